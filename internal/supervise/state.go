package supervise

import (
	"time"

	"github.com/perdure/perdure/api"
)

// Instant is a reading of a clock that never jumps and outlives processes:
// nanoseconds since boot (CLOCK_BOOTTIME, clock_gettime(2)). Zero means "not set".
type Instant int64

// Add returns t shifted by d.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns the span from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// TimerID names a timer of one process. A process has at most one of each.
type TimerID uint8

// The timers.
const (
	// TimerStart ends backoff and crash_loop.
	TimerStart TimerID = iota
	// TimerReady is the deadline of the readiness gate.
	TimerReady
	// TimerStable is the time at which the generation counts as stable.
	TimerStable
	// TimerGrace is the end of the grace after the stop signal.
	TimerGrace
	// TimerKill is the end of the wait for proof after SIGKILL.
	TimerKill
	// TimerStale is when a heartbeat is overdue, or the end of what is stale.
	TimerStale
	// TimerRuntime is the end of the time that a generation may run.
	TimerRuntime
	// NumTimers is the number of timers.
	NumTimers
)

// Timer is an armed timer. Number tells one arming from the next: a firing
// whose number is not the armed one is stale and dropped in one place.
type Timer struct {
	Number   uint64  `json:"number,omitempty"` // 0: not armed
	Deadline Instant `json:"deadline,omitempty"`
}

// State is everything that is remembered of one process between two inputs. It
// is a value: Step returns a new one. It is journaled as JSON as it stands.
type State struct {
	Desired api.Desired `json:"desired"`
	State   api.State   `json:"state"`
	Reason  api.Reason  `json:"reason,omitempty"`
	Detail  string      `json:"detail,omitempty"`

	// Generation is the number of the current or last incarnation.
	Generation uint64 `json:"generation,omitempty"`
	// PID is the leader's, 0 when it is gone; Alive says that something of the
	// generation may still live (leader or leftovers), and so that no other
	// generation may be spawned. SpawnPending says that Spawn was ordered and
	// neither Spawned nor SpawnFailed has come.
	PID          int  `json:"pid,omitempty"`
	Alive        bool `json:"alive,omitempty"`
	SpawnPending bool `json:"spawn_pending,omitempty"`

	// StopCause is why the generation is being ended (request, restart,
	// shutdown, health, boot_timeout, leftovers, removed, limit, heartbeat); empty while
	// it is not.
	StopCause api.Reason `json:"stop_cause,omitempty"`
	// Again says that the next generation is to be spawned as soon as this one
	// is gone, without a wait and without counting: Restart, Start during a
	// stop, or a new definition. A later Stop takes it back.
	Again bool `json:"again,omitempty"`
	// KillAsked says that an operator wants SIGKILL in place of the stop signal;
	// Killed that SIGKILL has been sent to this generation, KillTries how often.
	KillAsked bool `json:"kill_asked,omitempty"`
	Killed    bool `json:"killed,omitempty"`
	KillTries int  `json:"kill_tries,omitempty"`
	// Automatic says that the generation that is being ordered is an automatic
	// restart, so that process.restarted is told once it is spawned.
	Automatic bool `json:"automatic,omitempty"`
	// Barrier is set by Shutdown: nothing is started again. Adopted lifts it,
	// because a supervisor that adopts begins anew, except after a removal.
	Barrier bool `json:"barrier,omitempty"`
	// Removed says that the barrier is there for good.
	Removed bool `json:"removed,omitempty"`

	// Leave is the exit code with which the end of the last generation has asked
	// that Perdure end. It stands until the next generation, or until Adopted says
	// that it has come true, and is asked for again by each Adopted before.
	Leave *int `json:"leave,omitempty"`

	// Deps is the last word on the dependencies.
	Deps       DepStatus `json:"deps,omitempty"`
	DepsDetail string    `json:"deps_detail,omitempty"`

	Ready           bool       `json:"ready,omitempty"`
	ReadyRun        int        `json:"ready_run,omitempty"` // yeses in a row before ready
	Health          api.Health `json:"health,omitempty"`
	HealthFailures  int        `json:"health_failures,omitempty"`  // noes in a row
	HealthSuccesses int        `json:"health_successes,omitempty"` // yeses in a row
	WasStable       bool       `json:"was_stable,omitempty"`       // this generation has been judged stable

	StartedAt Instant `json:"started_at,omitempty"` // this generation's exec
	ExitedAt  Instant `json:"exited_at,omitempty"`  // the end of the generation in Exit
	ReadyAt   Instant `json:"ready_at,omitempty"`
	HealthyAt Instant `json:"healthy_at,omitempty"` // first healthy in this generation

	Starts         int       `json:"starts,omitempty"`          // spawns that succeeded, ever
	Restarts       int       `json:"restarts,omitempty"`        // automatic restarts, ever
	RestartsBase   int       `json:"restarts_base,omitempty"`   // Restarts at the last reset, for the scope lifetime
	Budget         int       `json:"budget,omitempty"`          // automatic restarts since it was stable or an operator acted
	Failures       int       `json:"failures,omitempty"`        // failures in a row
	BackoffN       int       `json:"backoff_n,omitempty"`       // waits in a row, for the exponent
	HealthRestarts int       `json:"health_restarts,omitempty"` // exponent of the health backoff
	Window         []Instant `json:"window,omitempty"`          // counted events for the breaker
	CooldownUntil  Instant   `json:"cooldown_until,omitempty"`  // on_open cooldown: from then on a start by hand is taken

	Exit      *Exit  `json:"exit,omitempty"` // the last generation's end, kept until the next end
	LastError string `json:"last_error,omitempty"`

	// Worker is what is remembered of the heartbeats and the use of a generation.
	Worker Worker `json:"worker,omitzero"`

	Timers  [NumTimers]Timer `json:"timers"`
	TimerNo uint64           `json:"timer_no,omitempty"` // the last number given
}

// Exit says how a generation ended.
type Exit struct {
	Generation uint64        `json:"generation"`
	Code       int           `json:"code"` // 128+n after signal n
	Signal     string        `json:"signal,omitempty"`
	Unknown    bool          `json:"unknown,omitempty"` // the code is not known
	CoreDumped bool          `json:"core_dumped,omitempty"`
	Expected   bool          `json:"expected,omitempty"`
	Failure    bool          `json:"failure,omitempty"`
	Cause      string        `json:"cause"` // as in api.Exit
	Uptime     time.Duration `json:"uptime"`
	// Wall is set by the actor when it persists, for people only.
	Wall time.Time `json:"wall,omitzero"`
}

// DepStatus is what the graph says of a process's dependencies.
type DepStatus string

// The dependency statuses. The zero value is for a process without any.
const (
	DepsNone   DepStatus = ""
	DepsMet    DepStatus = "met"
	DepsUnmet  DepStatus = "unmet"
	DepsFailed DepStatus = "failed"
)
