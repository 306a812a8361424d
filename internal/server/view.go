package server

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// clock turns readings of the boot clock into times of day, for people.
type clock struct {
	wall time.Time
	boot supervise.Instant
}

func readClock() clock {
	return clock{wall: time.Now().UTC(), boot: supervise.Instant(proc.Now())}
}

// at is the time of day of an instant, nil when it is not set.
func (c clock) at(i supervise.Instant) *time.Time {
	if i == 0 {
		return nil
	}
	t := c.wall.Add(i.Sub(c.boot)).Truncate(time.Millisecond)
	return &t
}

// view is a record in the words of the API.
func view(rec control.Record, def *api.Definition, c clock) api.Process {
	s := rec.State
	p := api.Process{ID: rec.ID, Name: rec.Name, Definition: rec.Name, Generation: s.Generation, Desired: s.Desired,
		State: s.State, Reason: s.Reason, Detail: s.Detail, Ready: s.Ready, Health: s.Health, PID: s.PID,
		Starts: s.Starts, Restarts: s.Restarts, Failures: s.Failures, HealthFailures: s.HealthFailures,
		CreatedAt: rec.CreatedAt, LastExit: exit(s.Exit), LastError: s.LastError}
	if p.Health == "" {
		p.Health = api.HealthUnknown
	}
	if s.PID != 0 {
		p.StartedAt = c.at(s.StartedAt)
		p.ReadyAt = c.at(s.ReadyAt)
		p.Uptime = api.Duration(c.boot.Sub(s.StartedAt).Truncate(time.Millisecond))
	}
	if t := s.Timers[supervise.TimerStart]; t.Number != 0 && (s.State == api.StateBackoff || s.State == api.StateCrashLoop) {
		p.NextStart = c.at(t.Deadline)
	}
	if def != nil {
		p.Metadata = def.Metadata
		if def.Origin != "" {
			p.Definition = def.Origin
		}
	}
	return p
}

func exit(e *supervise.Exit) *api.Exit {
	if e == nil {
		return nil
	}
	out := &api.Exit{Signal: e.Signal, At: e.Wall, Expected: e.Expected, Cause: e.Cause, CoreDumped: e.CoreDumped,
		Uptime: api.Duration(e.Uptime.Truncate(time.Millisecond))}
	if !e.Unknown {
		code := e.Code
		out.Code = &code
	}
	return out
}

// condition returns what a wait for a word waits for.
func condition(word string) (func(control.Record, *api.Definition) (bool, error), error) {
	switch word {
	case "started":
		return holds(func(s supervise.State) bool { return s.PID != 0 || succeeded(s) }), nil
	case "running":
		return holds(func(s supervise.State) bool { return s.State == api.StateRunning }), nil
	case "ready":
		return holds(func(s supervise.State) bool { return s.State == api.StateRunning && s.Ready || succeeded(s) }), nil
	case "healthy":
		return healthy, nil
	case "completed":
		return holds(succeeded), nil
	case "stopped":
		return func(r control.Record, _ *api.Definition) (bool, error) { return atRest(r.State), nil }, nil
	}
	for _, st := range api.States() {
		if word == string(st) {
			return func(r control.Record, _ *api.Definition) (bool, error) { return r.State.State == st, nil }, nil
		}
	}
	return nil, &api.Error{Code: api.CodeInvalid, Field: "for", Message: fmt.Sprintf(
		"cannot wait for %q (started, running, ready, healthy, completed, stopped, or the name of a state)", word)}
}

// healthy waits for a yes of the health probe, which must be there.
func healthy(r control.Record, def *api.Definition) (bool, error) {
	if def != nil && definition.Fill(*def).Health == nil {
		return false, &api.Error{Code: api.CodeInvalid, Field: "for", Message: fmt.Sprintf(
			"%q has no health probe and is never healthy: wait for ready", r.Name)}
	}
	return holds(func(s supervise.State) bool { return s.Health == api.HealthHealthy })(r, def)
}

// holds waits for something good, and gives up when it can no longer come true
// by itself.
func holds(ok func(supervise.State) bool) func(control.Record, *api.Definition) (bool, error) {
	return func(r control.Record, _ *api.Definition) (bool, error) {
		if ok(r.State) {
			return true, nil
		}
		if hopeless(r.State) {
			return false, api.Errorf(api.CodeFailed, "%q is %s: %s", r.Name, r.State.State, because(r.State))
		}
		return false, nil
	}
}

// succeeded says that it ended by itself with code 0.
func succeeded(s supervise.State) bool { return s.State == api.StateExited }

// atRest says that nothing of it lives and nothing will start by itself.
func atRest(s supervise.State) bool {
	if s.Alive || s.SpawnPending {
		return false
	}
	switch s.State {
	case api.StateIdle, api.StateStopped, api.StateExited, api.StateFailed, api.StateDependencyFailed:
		return true
	}
	return false
}

// hopeless says that only an operator can change it.
func hopeless(s supervise.State) bool {
	switch s.State {
	case api.StateFailed, api.StateDependencyFailed:
		return true
	case api.StateExited, api.StateStopped:
		return s.Desired == api.DesiredStopped || s.State == api.StateExited
	}
	return false
}

func because(s supervise.State) string {
	if s.Detail != "" {
		return s.Detail
	}
	return string(s.Reason)
}
