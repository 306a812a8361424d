package api

import "time"

// Desired is what an operator or a file wants of a process. It is written
// first, survives everything, and every decision reads it last.
type Desired string

// The desired states.
const (
	DesiredRunning Desired = "running"
	DesiredStopped Desired = "stopped"
)

// State is what is observed of a process.
type State string

// The states.
const (
	// StateIdle means: defined, never started or reset.
	StateIdle State = "idle"
	// StateWaiting means: it shall run, but a dependency is not met; Reason and
	// Detail say which.
	StateWaiting State = "waiting"
	// StateStarting means: it is being spawned, or lives and is not ready yet.
	StateStarting State = "starting"
	// StateRunning means: it lives and has passed its readiness gate.
	StateRunning State = "running"
	// StateBackoff means: it will be started again at NextStart.
	StateBackoff State = "backoff"
	// StateCrashLoop means: the breaker is open; it will be tried at NextStart.
	StateCrashLoop State = "crash_loop"
	// StateStopping means: it is being ended and its group is not yet gone.
	StateStopping State = "stopping"
	// StateStopped means: ended on request, and proven gone.
	StateStopped State = "stopped"
	// StateExited means: it ended by itself with success and stays so.
	StateExited State = "exited"
	// StateFailed means: it ended and needs an operator; Reason says why.
	StateFailed State = "failed"
	// StateDependencyFailed means: it was never started, because something it
	// depends on can no longer be met.
	StateDependencyFailed State = "dependency_failed"
	// StateOrphaned means: it lives from before and is not yet adopted.
	StateOrphaned State = "orphaned"
)

// States lists all states in the order in which a process may meet them.
func States() []State {
	return []State{StateIdle, StateWaiting, StateStarting, StateRunning, StateBackoff, StateCrashLoop,
		StateStopping, StateStopped, StateExited, StateFailed, StateDependencyFailed, StateOrphaned}
}

// Reason says why a process is in its state.
type Reason string

// The reasons of waiting, stopping and failed.
const (
	ReasonNone        Reason = ""
	ReasonDependency  Reason = "dependency"
	ReasonSchedule    Reason = "schedule"
	ReasonPreStart    Reason = "pre_start"
	ReasonRequest     Reason = "request"
	ReasonRestart     Reason = "restart"
	ReasonShutdown    Reason = "shutdown"
	ReasonRemoved     Reason = "removed"
	ReasonHealth      Reason = "health"
	ReasonBootTimeout Reason = "boot_timeout"
	ReasonLeftovers   Reason = "leftovers"
	ReasonBreaker     Reason = "breaker"
	ReasonMaxRestarts Reason = "max_restarts"
	ReasonSpawnError  Reason = "spawn_error"
	ReasonExit        Reason = "exit"
	ReasonLimit       Reason = "limit"
	ReasonHeartbeat   Reason = "heartbeat"
	ReasonConfig      Reason = "config"
	ReasonStorage     Reason = "storage"
)

// Health is the answer of the health probe so far.
type Health string

// The health values.
const (
	HealthUnknown   Health = "unknown"
	HealthHealthy   Health = "healthy"
	HealthUnhealthy Health = "unhealthy"
)

// Exit says how a generation ended.
type Exit struct {
	// Code is the exit code, 128+n after signal n, and null when it is unknown
	// because the process died while nobody was its parent.
	Code *int `json:"code"`
	// Signal is the signal's name, such as "SIGKILL", or empty.
	Signal string `json:"signal,omitempty"`
	// At is when it was noticed.
	At time.Time `json:"at"`
	// Expected says whether Perdure had asked for it.
	Expected bool `json:"expected"`
	// Cause is why it ended: "exit", "request", "restart", "shutdown",
	// "health", "boot_timeout", "heartbeat", "limit", "spawn_error" or "unknown".
	Cause string `json:"cause"`
	// CoreDumped says whether a core file was written.
	CoreDumped bool `json:"core_dumped,omitempty"`
	// Uptime is how long the generation lived.
	Uptime Duration `json:"uptime"`
}

// Process is the record of one supervised process.
type Process struct {
	// ID is stable over restarts, of the form proc_<unix ms>_<random>.
	ID string `json:"id"`
	// Name is unique among the processes of one Perdure.
	Name string `json:"name"`
	// Definition is the name of the definition that it was made from.
	Definition string `json:"definition"`
	// Generation counts its incarnations from 1; 0 means never started.
	Generation uint64  `json:"generation"`
	Desired    Desired `json:"desired"`
	State      State   `json:"state"`
	Reason     Reason  `json:"reason,omitempty"`
	// Detail is a sentence for people: why it is so, and what comes next.
	Detail string `json:"detail,omitempty"`
	Ready  bool   `json:"ready"`
	Health Health `json:"health"`
	// PID is 0 when nothing lives.
	PID int `json:"pid,omitempty"`

	// Starts counts spawns, Restarts automatic restarts (never reset),
	// Failures failures in a row.
	Starts   int `json:"starts"`
	Restarts int `json:"restarts"`
	Failures int `json:"failures"`
	// HealthFailures counts noes of the health probe in a row.
	HealthFailures int `json:"health_failures"`

	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	ReadyAt   *time.Time `json:"ready_at,omitempty"`
	// NextStart is when it will be started again by itself.
	NextStart *time.Time `json:"next_start,omitempty"`
	// Uptime is 0 unless it lives.
	Uptime    Duration `json:"uptime"`
	LastExit  *Exit    `json:"last_exit,omitempty"`
	LastError string   `json:"last_error,omitempty"`

	// CPU is the share of one core over the last seconds (1 = one core), of the
	// whole process tree; Memory its resident bytes. Both are absent when
	// nothing lives.
	CPU    float64 `json:"cpu,omitempty"`
	Memory int64   `json:"memory,omitempty"`
	// Processes is the number of operating system processes in its tree.
	Processes int `json:"processes,omitempty"`

	Metadata map[string]any `json:"metadata,omitempty"`
	// Worker is absent until one has been there.
	Worker *Worker `json:"worker,omitempty"`
}
