package supervise

import (
	"time"

	"github.com/perdure/perdure/api"
)

// Spec is what Step needs to know of a definition, with every default filled
// in. It is immutable; a change arrives as an Input of kind Redefine.
type Spec struct {
	Oneshot          bool
	Restart          api.RestartPolicy
	NoRestartCodes   []int
	NoRestartCodeMin int
	NoRestartSignals []string // canonical names, "SIGTERM"
	SignalIsFailure  bool
	ExitOnNoRestart  bool
	MaxRestarts      int    // -1: no limit
	MaxRestartsScope string // since_healthy | consecutive | lifetime
	StartResets      bool
	ReapAlways       bool // end leftovers after a clean exit too

	Backoff Backoff
	Breaker Breaker
	Stable  Stable

	Ready  *ReadyGate   // nil: running as soon as it is spawned
	Health *HealthWatch // nil: not asked

	Heartbeat *HeartbeatWatch // nil: not watched, unless the worker itself asks
	Limits    *Limits         // nil: none

	StopSignal string // canonical name
	Grace      time.Duration
	KillWait   time.Duration
}

// Backoff is api.Backoff with its defaults filled in.
type Backoff struct {
	Fixed         bool
	Initial, Max  time.Duration
	Multiplier    float64
	FirstExponent int
	Jitter        api.Jitter
	ResetAfter    time.Duration // health backoff only; 0: never
}

// Breaker is api.Breaker with its defaults filled in; Failures 0 means off.
type Breaker struct {
	Failures int
	Window   time.Duration
	Gap      bool   // false: rolling
	Count    string // failures | exits | restarts
	OnOpen   string // park | cooldown | retry | exit
	Cooldown time.Duration
	ExitCode int
}

// Stable is api.Stable with its defaults filled in.
type Stable struct {
	After    time.Duration
	From     string // start | ready | healthy
	Backoff  bool   // resets the backoff exponent
	Failures bool   // resets Failures
	Window   bool   // resets the breaker's window
	Restarts bool   // resets the budget of max_restarts
}

// ReadyGate is the part of a ready probe that Step decides by.
type ReadyGate struct {
	Successes int
	Deadline  time.Duration
	Warn      bool // at the deadline: go on as running, not ready
	// Told says that the worker itself says when it is ready; nothing is asked.
	Told bool
}

// HealthWatch is the part of a health probe that Step decides by.
type HealthWatch struct {
	Failures, Successes int
	Restart             bool // false: only tell
	Pause               time.Duration
	Backoff             *Backoff
}
