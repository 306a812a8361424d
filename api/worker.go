package api

import (
	"encoding/json"
	"time"
)

// Heartbeat says how a process's heartbeats are watched. The supervisor takes
// them itself: a server that is away changes nothing.
type Heartbeat struct {
	// Interval is the time between two heartbeats that workers are asked for.
	// Default 5s.
	Interval Duration `json:"interval,omitempty" yaml:"interval,omitempty"`
	// Timeout is the time after the last heartbeat at which the process counts
	// as stale, which is told once. Default 30s.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"`
	// Grace is the time in which the first heartbeat must come, from the start
	// of the process and from its adoption by a new supervisor. Default: Timeout.
	Grace Duration `json:"grace,omitempty" yaml:"grace,omitempty"`
	// Kill is the time after the last heartbeat at which the process is ended,
	// and then restarted by its policy; "0s" never ends it. Default: twice Timeout.
	Kill *Duration `json:"kill,omitempty" yaml:"kill,omitempty"`
	// Any lets every message of a worker count as a heartbeat. Default false.
	Any bool `json:"any,omitempty" yaml:"any,omitempty"`
}

// Limits bound what the whole tree of a process uses, as Perdure measures it.
// Absent ones are none.
type Limits struct {
	// Runtime is how long a generation may run.
	Runtime Duration `json:"runtime,omitempty" yaml:"runtime,omitempty"`
	// Memory is the resident memory of the tree.
	Memory Size `json:"memory,omitempty" yaml:"memory,omitempty"`
	// CPU is the number of cores that the tree keeps busy, such as 1.5.
	CPU float64 `json:"cpu,omitempty" yaml:"cpu,omitempty"`
	// PIDs is the number of processes of the tree.
	PIDs int `json:"pids,omitempty" yaml:"pids,omitempty"`
	// OpenFiles is the number of open descriptors of the tree.
	OpenFiles int `json:"open_files,omitempty" yaml:"open_files,omitempty"`
	// Dwell is how long a use must stay over its limit. Default 0s: one
	// measurement is enough.
	Dwell Duration `json:"dwell,omitempty" yaml:"dwell,omitempty"`
	// Interval is the time between two measurements. Default 1s.
	Interval Duration `json:"interval,omitempty" yaml:"interval,omitempty"`
	// OnExceed is "restart" (default: the process is ended and its policy
	// decides, as after a failure), "stop" (it is ended and not restarted) or
	// "event" (it is only told).
	OnExceed string `json:"on_exceed,omitempty" yaml:"on_exceed,omitempty"`
}

// Watchdog are the settings of a watchdog beside the server, as other systems
// have it. Perdure's supervisor always watches, so that most of them mean
// nothing here; `perdure validate` says what each becomes.
type Watchdog struct {
	// Enabled means nothing: the supervisor always watches.
	Enabled *bool `json:"enabled,omitempty" yaml:"enabled,omitempty"`
	// Interval is the default of limits.interval. Heartbeats and runtimes need
	// none: they are timers.
	Interval Duration `json:"interval,omitempty" yaml:"interval,omitempty"`
	// Services means nothing: whatever has a heartbeat or limits is watched.
	Services Strings `json:"services,omitempty" yaml:"services,omitempty"`
	// KillGrace is the default of stop.grace.
	KillGrace Duration `json:"kill_grace,omitempty" yaml:"kill_grace,omitempty"`
}

// Worker is what is known of a process's workers: what they have said last.
type Worker struct {
	// Connections is how many are open now.
	Connections int `json:"connections"`
	// LastHeartbeat is when the last one came to this supervisor.
	LastHeartbeat *time.Time `json:"last_heartbeat,omitempty"`
	// Stale says that a heartbeat is overdue.
	Stale bool `json:"stale,omitempty"`
	// Status is the worker's own line about what it does.
	Status string `json:"status,omitempty"`
	// Progress is how far it is, if it has said so.
	Progress *Progress `json:"progress,omitempty"`
	// Stats are the last ones that it has sent.
	Stats json.RawMessage `json:"stats,omitempty"`
}

// Progress is how far a worker is.
type Progress struct {
	// Percent is 0 to 100.
	Percent float64 `json:"percent"`
	Message string  `json:"message,omitempty"`
}

// SendRequest gives a command to a process's worker, or sends it a value.
type SendRequest struct {
	// Command is the name of the command; empty for a value that is no command.
	Command string `json:"command,omitempty"`
	// Data is the command's data (default {}), or the value.
	Data json.RawMessage `json:"data,omitempty"`
	// Timeout bounds the wait for the reply to a command. Default 30s.
	Timeout Duration `json:"timeout,omitempty"`
}

// SendResult is what became of a SendRequest.
type SendResult struct {
	// Reply is the worker's answer; null for a value, and for a worker that
	// speaks the plain protocol, which has no replies.
	Reply json.RawMessage `json:"reply"`
}
