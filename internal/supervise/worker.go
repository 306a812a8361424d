package supervise

import (
	"time"

	"github.com/perdure/perdure/api"
)

// HeartbeatWatch says how a process's heartbeats are watched. A heartbeat is
// due Timeout after the last one, the first one Grace after the start.
type HeartbeatWatch struct {
	Timeout time.Duration
	// Kill is the time after the last heartbeat at which the process is ended;
	// 0 never ends it.
	Kill time.Duration
	// Grace is the time in which the first heartbeat must come, counted from the
	// start, and from the adoption by a new supervisor.
	Grace time.Duration
}

// Limits are bounds on what the whole tree of a process uses; 0 means none.
type Limits struct {
	Runtime   time.Duration
	Memory    int64   // bytes
	CPU       float64 // cores
	PIDs      int
	OpenFiles int
	// Dwell is how long a measured use must stay over its limit.
	Dwell time.Duration
	// OnExceed is "restart" (ended; then by the policy), "stop" (ended, and not
	// restarted) or "event" (only told).
	OnExceed string
}

const (
	exceedStop  = "stop"
	exceedEvent = "event"
)

// Measured says whether samples are needed.
func (l *Limits) Measured() bool {
	return l != nil && (l.Memory > 0 || l.CPU > 0 || l.PIDs > 0 || l.OpenFiles > 0)
}

// Use is what was measured of the whole tree of a process.
type Use struct {
	Memory    int64
	CPU       float64
	PIDs      int
	OpenFiles int
}

// Said is what a worker says of itself that decides something.
type Said uint8

// What workers say.
const (
	// SaidReady: it is ready to do its work.
	SaidReady Said = iota + 1
	// SaidUnhealthy: it is broken, as if its heartbeats had failed; Detail is why.
	SaidUnhealthy
	// SaidExtend: it needs Span more, from now, to become ready or to stop.
	SaidExtend
	// SaidWatchdog: from now on a heartbeat is due every Span.
	SaidWatchdog
)

// Worker is what is remembered of a generation's heartbeats and uses.
type Worker struct {
	// From is when the watch of this generation began, LastBeat its last
	// heartbeat that Step has seen.
	From     Instant `json:"from,omitempty"`
	LastBeat Instant `json:"last_beat,omitempty"`
	// Stale says that a heartbeat is overdue and that this has been told.
	Stale bool `json:"stale,omitempty"`
	// Watchdog is the timeout that the worker itself has asked for.
	Watchdog time.Duration `json:"watchdog,omitempty"`
	// Over is since when each use has been over its limit; 0: it is not.
	Over [numUses]Instant `json:"over,omitzero"`
	// Told says which limits were told as exceeded and are only told.
	Told [numUses]bool `json:"told,omitzero"`
	// Ended is why the supervisor itself is ending the generation.
	Ended *Sentence `json:"ended,omitempty"`
}

// Sentence is why a generation is ended for what its workers did.
type Sentence struct {
	// Reason is "heartbeat", or the limit: "runtime", "memory", "cpu", "pids",
	// "open_files".
	Reason string `json:"reason"`
	// Value is what was measured, Limit what is allowed; both 0 for heartbeat.
	Value float64 `json:"value,omitempty"`
	Limit float64 `json:"limit,omitempty"`
}

const (
	useMemory = iota
	useCPU
	usePIDs
	useOpenFiles
	numUses
)

// causeHeartbeat is the word for a missing heartbeat in events.
const causeHeartbeat = string(api.ReasonHeartbeat)
