package api

import (
	"encoding/json"
	"time"
)

// Event is one entry of the event log.
type Event struct {
	// Seq is the place in the log. It grows from event to event: by one on SQLite,
	// with gaps on PostgreSQL.
	Seq uint64 `json:"seq"`
	// Time is when it happened, as the part that saw it tells.
	Time time.Time `json:"time"`
	// Type is its name, words joined by dots, such as "process.exited".
	Type string `json:"type"`
	// ProcessID, Name and Generation say whom it is about, if anyone.
	ProcessID  string `json:"process_id,omitempty"`
	Name       string `json:"name,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	// Data are the event's own fields.
	Data json.RawMessage `json:"data,omitempty"`
}
