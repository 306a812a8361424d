package supervise

import (
	"time"

	"github.com/perdure/perdure/api"
)

// Kind is the kind of an input. The table in table.go has a rule for every
// pair of state and kind.
type Kind uint8

// The kinds of input.
const (
	// Start is an operator's or the boot's wish that it runs.
	Start Kind = iota
	// Stop is the wish that it does not run.
	Stop
	// Kill is Stop without a signal and a grace before SIGKILL.
	Kill
	// Restart ends a live generation and starts the next without a wait; it
	// starts one that is not live.
	Restart
	// Reset zeroes the counters and takes a failed process to idle; it starts nothing.
	Reset
	// Shutdown ends it for good without touching Desired.
	Shutdown
	// Redefine brings a new Spec; Apply says whether a live generation that
	// wants to run is restarted for it.
	Redefine
	// DepsChanged brings the graph's word on the dependencies.
	DepsChanged
	// Spawned says that exec succeeded.
	Spawned
	// SpawnFailed says that nothing lives of the generation that was ordered.
	SpawnFailed
	// Exited says that the leader has ended; Gone may come with it.
	Exited
	// Gone says that nothing of the generation lives any more. It never comes
	// before Exited.
	Gone
	// ReadyAnswer and HealthAnswer bring one probe's answer.
	ReadyAnswer
	HealthAnswer
	// Heartbeat says that there is a heartbeat after one was missed; Beat is its
	// time. Other heartbeats are no inputs: TimerFired brings the last one along.
	Heartbeat
	// WorkerSaid brings what a worker says of itself.
	WorkerSaid
	// Sample brings what was measured of the whole tree.
	Sample
	// TimerFired says that a timer has reached its deadline.
	TimerFired
	// Adopted brings back a recorded process after the supervisor itself was
	// replaced: PID is set if the leader still lives. All that the old
	// supervisor had under way is taken up again.
	Adopted
	// NumKinds is the number of kinds.
	NumKinds
)

// Input is everything that Step may know besides the spec and the state.
type Input struct {
	Kind Kind
	// Now is the time of the input; Roll one draw in [0,1).
	Now  Instant
	Roll float64
	// Generation is whom the input is about. Inputs of the kinds Spawned to
	// Sample with another generation than the state's are dropped.
	Generation uint64
	// Timer is for TimerFired.
	Timer  TimerID
	Number uint64
	// Apply is for Redefine, Force for Start: start even if the breaker is open.
	Apply, Force bool
	// PID is for Spawned and Adopted.
	PID int
	// Leftovers is for Adopted: the leader is gone (PID is 0), but something of
	// the generation still lives; Gone will follow. NewBoot says that the
	// machine has booted since, so that recorded instants mean nothing any more.
	// Over says that everything has been ended since, or the machine has booted: a
	// wish to leave has come true.
	Leftovers, NewBoot, Over bool
	// Exit is for Exited: Code, Signal, Unknown and CoreDumped are set. Gone
	// says that the whole group is proven gone as well.
	Exit Exit
	Gone bool
	// Answer and Error are for the probe answers; Error is also the text of
	// SpawnFailed.
	Answer Answer
	Error  string
	// Deps and Detail are for DepsChanged.
	Deps   DepStatus
	Detail string
	// Reason is for Shutdown: shutdown or removed.
	Reason api.Reason
	// Beat is for Heartbeat and for TimerStale: the time of the last heartbeat
	// that came, 0 when none did.
	Beat Instant
	// Said and Span are for WorkerSaid; Detail is the text of SaidUnhealthy.
	Said Said
	Span time.Duration
	// Use is for Sample.
	Use Use
}

// Answer is the answer of one probe.
type Answer uint8

// The answers. Unknown means that the question could not be asked; it changes
// nothing.
const (
	Unknown Answer = iota
	Yes
	No
)
