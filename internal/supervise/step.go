package supervise

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/api"
)

// Step decides what an input means for a process. It returns the new state,
// the events to be told and the effects to be executed, in that order, and
// changes nothing that it was given. An input that is stale, or that means
// nothing in the state, returns the state as it was, without events or effects.
//
// The actor calls it with one input at a time, persists State and Events, then
// executes Effects. It must have fed DepsChanged before the first Start of a
// process that depends on something.
func Step(sp Spec, s State, in Input) Result {
	m := begin(&sp, &s, &in)
	if !fresh(&m.s, &in) {
		return Result{State: m.s}
	}
	m.enter()
	run(ruleOf(m.s.State, in.Kind), &m)
	return m.result(&s)
}

func begin(sp *Spec, s *State, in *Input) machine {
	m := machine{sp: sp, s: *s, in: in, now: in.Now}
	if s.State == "" {
		m.s.State, m.s.Desired, m.s.Health = api.StateIdle, api.DesiredStopped, api.HealthUnknown
	}
	return m
}

// enter takes note that a fresh timer has fired.
func (m *machine) enter() {
	if m.in.Kind == TimerFired {
		m.s.Timers[m.in.Timer] = Timer{}
	}
}

// result is what the caller gets; before is its state, which a refusal leaves.
func (m *machine) result(before *State) Result {
	if m.refused != "" {
		return Result{State: *before, Refused: m.refused}
	}
	return Result{State: m.s, Events: m.events, Effects: m.effects}
}

// fresh is the one place where inputs are dropped that are about another
// generation, come twice, or come from a timer that is not armed any more.
func fresh(s *State, in *Input) bool {
	switch in.Kind {
	case Spawned, SpawnFailed:
		return in.Generation == s.Generation && s.SpawnPending
	case Exited, ReadyAnswer, HealthAnswer, Heartbeat, WorkerSaid, Sample:
		return in.Generation == s.Generation && s.Alive && s.PID != 0
	case Gone:
		return in.Generation == s.Generation && s.Alive && s.PID == 0
	case TimerFired:
		return in.Timer < NumTimers && in.Number != 0 && in.Number == s.Timers[in.Timer].Number
	default:
		return in.Kind < NumKinds
	}
}

// machine is one Step under way. s is a copy of the caller's state; slices and
// pointers in it are shared with the caller and are replaced, never written to.
type machine struct {
	sp      *Spec
	s       State
	in      *Input
	now     Instant
	events  []Event
	effects []Effect
	refused string
}

func (m *machine) tell(typ string, data map[string]any) {
	m.events = append(m.events, Event{Type: typ, Generation: m.s.Generation, Data: data})
}

func (m *machine) do(d Do) {
	m.effects = append(m.effects, Effect{Do: d, Generation: m.s.Generation})
}

func (m *machine) arm(id TimerID, deadline Instant) {
	m.s.TimerNo++
	m.s.Timers[id] = Timer{Number: m.s.TimerNo, Deadline: deadline}
	m.effects = append(m.effects, Effect{Do: DoArm, Generation: m.s.Generation,
		Timer: id, Number: m.s.TimerNo, Deadline: deadline})
}

func (m *machine) disarm(id TimerID) {
	t := m.s.Timers[id]
	if t.Number == 0 {
		return
	}
	m.s.Timers[id] = Timer{}
	m.effects = append(m.effects, Effect{Do: DoDisarm, Generation: m.s.Generation, Timer: id, Number: t.Number})
}

func (m *machine) disarmAll() {
	for id := range NumTimers {
		m.disarm(id)
	}
}

func (m *machine) set(state api.State, reason api.Reason, detail string) {
	m.s.State, m.s.Reason, m.s.Detail = state, reason, detail
}

// wanted says whether the process shall run. It is read last in every decision.
func (m *machine) wanted() bool { return m.s.Desired == api.DesiredRunning && !m.s.Barrier }

// launch is the only place that orders a spawn: it is wanted, nothing of it
// lives, and the dependencies are met; or it waits for them.
func (m *machine) launch() {
	s := &m.s
	m.disarm(TimerStart)
	s.Again = false
	if !m.wanted() {
		m.settleStopped(api.ReasonRequest)
		return
	}
	switch s.Deps {
	case DepsUnmet:
		m.wait()
		return
	case DepsFailed:
		m.failDependency()
		return
	case DepsNone, DepsMet:
	}
	s.Generation++
	s.PID, s.Alive, s.SpawnPending = 0, false, true
	s.StopCause, s.KillAsked, s.Killed, s.KillTries, s.Leave = "", false, false, 0, nil
	s.StartedAt, s.ReadyAt, s.HealthyAt, s.WasStable = 0, 0, 0, false
	s.Worker = Worker{}
	m.clearProbes()
	m.set(api.StateStarting, api.ReasonNone, "being started")
	m.tell("process.starting", map[string]any{"generation": s.Generation})
	m.do(DoSpawn)
}

func (m *machine) wait() {
	s := &m.s
	detail := s.DepsDetail
	if detail == "" {
		detail = "waits for a dependency"
	}
	if s.State == api.StateWaiting && s.Detail == detail {
		return
	}
	m.set(api.StateWaiting, api.ReasonDependency, detail)
	m.tell("process.waiting", map[string]any{"reason": string(api.ReasonDependency), "detail": detail})
}

func (m *machine) failDependency() {
	s := &m.s
	detail := s.DepsDetail
	if detail == "" {
		detail = "a dependency can no longer be met"
	}
	if s.State == api.StateDependencyFailed && s.Detail == detail {
		return
	}
	m.set(api.StateDependencyFailed, api.ReasonDependency, detail)
	m.tell("process.dependency_failed", map[string]any{"detail": detail})
}

// settleStopped ends in stopped; nothing of the process lives.
func (m *machine) settleStopped(reason api.Reason) {
	m.disarmAll()
	detail := "stopped on request; it stays so until it is started"
	switch reason {
	case api.ReasonShutdown:
		detail = "stopped because Perdure was shut down"
	case api.ReasonRemoved:
		detail = "stopped because it was removed"
	}
	m.set(api.StateStopped, reason, detail)
	m.s.Automatic, m.s.Again = false, false
	m.tell("process.stopped", map[string]any{"reason": string(reason)})
}

// fail ends in failed, which only an operator leaves.
func (m *machine) fail(reason api.Reason, detail string) {
	m.disarmAll()
	m.s.Automatic = false
	m.set(api.StateFailed, reason, detail)
}

// zero sets back what an operator's start, restart or reset sets back (N4).
func (m *machine) zero() {
	s := &m.s
	s.Failures, s.BackoffN, s.HealthRestarts, s.Budget = 0, 0, 0, 0
	s.Window, s.CooldownUntil = nil, 0
}

// breakerOpen says whether the process is where an open breaker has put it.
func (m *machine) breakerOpen() bool {
	return m.s.State == api.StateCrashLoop || m.s.State == api.StateFailed && m.s.Reason == api.ReasonBreaker
}

func (m *machine) clearProbes() {
	s := &m.s
	s.Ready, s.ReadyRun = false, 0
	s.Health, s.HealthFailures, s.HealthSuccesses = api.HealthUnknown, 0, 0
}

func ms(d time.Duration) int64 { return d.Milliseconds() }

// brief shortens a wait for people: whole milliseconds are enough.
func brief(d time.Duration) string { return d.Round(time.Millisecond).String() }

// describe says in words how a generation ended.
func describe(e *Exit) string {
	switch {
	case e == nil:
		return "ended"
	case e.Cause == causeSpawnError:
		return "could not be spawned"
	case e.Cause == string(api.ReasonHealth):
		return "was ended because its health check failed"
	case e.Cause == string(api.ReasonBootTimeout):
		return "was ended because it did not become ready in time"
	case e.Cause == string(api.ReasonLimit):
		return "was ended because it went over a limit"
	case e.Cause == causeHeartbeat:
		return "was ended because its heartbeats failed"
	case e.Unknown:
		return "ended while nobody could see its exit code"
	case e.Signal != "":
		return "was ended by " + e.Signal
	default:
		return fmt.Sprintf("exited with code %d", e.Code)
	}
}
