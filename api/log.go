package api

import "time"

// LogLine is one line that a process wrote.
type LogLine struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
	// Stream is "stdout" or "stderr".
	Stream string `json:"stream"`
	// Text is the line without its end; bytes that are not UTF-8 are replaced.
	Text string `json:"text"`
	// Cursor continues after this line when given to a later request.
	Cursor string `json:"cursor,omitempty"`
}
