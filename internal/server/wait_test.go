package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
)

// Each row is what a process becomes after a command, and how its wait ends.
func TestCommandWaits(t *testing.T) {
	t.Parallel()
	stopping := running("web", 1)
	stopping.State.State = api.StateStopping
	wants := running("web", 1)
	wants.State.State, wants.State.Ready, wants.State.PID = api.StateStarting, false, 0
	for _, c := range []struct {
		name, verb    string
		before, after control.Record
		then          []control.Record
		code          api.Code // of the error; empty: none
		generation    uint64
		says          string
	}{
		{"start until ready", "start", in("web", api.StateStopped, api.DesiredStopped), wants, []control.Record{running("web", 1)}, "", 1, ""},
		{"start overtaken by a stop", "start", in("web", api.StateStopped, api.DesiredStopped), wants,
			[]control.Record{in("web", api.StateStopped, api.DesiredStopped)}, api.CodeConflict, 0, "overtaken by a stop"},
		{"start hopeless", "start", in("web", api.StateStopped, api.DesiredStopped), wants,
			[]control.Record{in("web", api.StateFailed, api.DesiredRunning)}, api.CodeFailed, 0, "failed"},
		{"start of a oneshot", "start", in("web", api.StateIdle, api.DesiredStopped), wants,
			[]control.Record{in("web", api.StateExited, api.DesiredRunning)}, "", 1, ""},
		{"restart waits for the new generation", "restart", running("web", 1), stopping,
			[]control.Record{running("web", 1), running("web", 2)}, "", 2, ""},
		{"restart times out", "restart", running("web", 1), stopping, nil, api.CodeTimeout, 0, "timed out"},
		{"stop until nothing lives", "stop", running("web", 1), stopping,
			[]control.Record{stopping, in("web", api.StateStopped, api.DesiredStopped)}, "", 1, ""},
		{"stop overtaken by a start", "stop", running("web", 1), func() control.Record {
			r := stopping
			r.State.Desired = api.DesiredStopped
			return r
		}(), []control.Record{running("web", 2)}, api.CodeConflict, 0, "overtaken by a start"},
		{"reset", "reset", in("web", api.StateFailed, api.DesiredRunning), in("web", api.StateIdle, api.DesiredStopped), nil, "", 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
				f.add(c.before, false)
				s := serve(t, f, m)
				defer end(t, s)
				if c.verb == "stop" {
					c.after.State.Desired = api.DesiredStopped
					for i := range c.then[:len(c.then)-1] {
						c.then[i].State.Desired = api.DesiredStopped
					}
				}
				f.onCmd = func(control.Command) (control.Record, error) { return f.add(c.after, false), nil }
				go func() {
					for _, r := range c.then {
						pass(time.Second)
						f.add(r, false)
					}
				}()
				p, err := s.Command(context.Background(), "web", api.CommandRequest{Verb: c.verb, Wait: true, Timeout: api.Duration(10 * time.Second)})
				if c.code != "" {
					if api.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
						t.Errorf("error %v, want %s: %s", err, c.code, c.says)
					}
					return
				}
				if err != nil || p.Generation != c.generation {
					t.Errorf("generation %d, want %d; %v", p.Generation, c.generation, err)
				}
			})
		})
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	sound := running("web", 1)
	sound.State.Health = api.HealthHealthy
	unready := running("web", 1)
	unready.State.Ready = false
	for _, c := range []struct {
		word string
		rec  control.Record
		yes  bool
		code api.Code
	}{
		{"started", unready, true, ""}, {"started", in("web", api.StateWaiting, api.DesiredRunning), false, ""},
		{"running", running("web", 1), true, ""}, {"running", in("web", api.StateExited, api.DesiredRunning), false, api.CodeFailed},
		{"ready", unready, false, ""}, {"ready", running("web", 1), true, ""},
		{"ready", in("web", api.StateDependencyFailed, api.DesiredRunning), false, api.CodeFailed},
		{"ready", in("web", api.StateBackoff, api.DesiredRunning), false, ""},
		{"healthy", sound, true, ""}, {"healthy", running("web", 1), false, ""},
		{"completed", in("web", api.StateExited, api.DesiredRunning), true, ""},
		{"completed", in("web", api.StateFailed, api.DesiredRunning), false, api.CodeFailed},
		{"stopped", running("web", 1), false, ""}, {"stopped", in("web", api.StateBackoff, api.DesiredRunning), false, ""},
		{"stopped", in("web", api.StateFailed, api.DesiredRunning), true, ""},
		{"crash_loop", in("web", api.StateCrashLoop, api.DesiredRunning), true, ""},
		{"failed", running("web", 1), false, ""},
	} {
		ok, err := condition(c.word)
		if err != nil {
			t.Fatal(err)
		}
		yes, err := ok(c.rec, nil)
		if yes != c.yes || (err != nil) != (c.code != "") || err != nil && api.CodeOf(err) != c.code {
			t.Errorf("%s of a process that is %s: %v, %v", c.word, c.rec.State.State, yes, err)
		}
	}
	blind := api.Definition{Name: "web", Command: api.Command{"./web"}}
	if _, err := healthy(running("web", 1), &blind); api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), "no health probe") {
		t.Errorf("waiting for the health of what has no probe: %v", err)
	}
	if _, err := condition("happy"); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a word that means nothing: %v", err)
	}
}

// A wait for a process that is removed ends.
func TestWaitEndsWithItsProcess(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		f.add(running("web", 1), false)
		s := serve(t, f, m)
		defer end(t, s)
		go func() {
			pass(time.Second)
			f.add(in("web", api.StateStopped, api.DesiredStopped), true, "process.removed")
		}()
		if _, err := s.Wait(context.Background(), "web", api.WaitRequest{For: "healthy"}); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%v", err)
		}
	})
}

// A removal whose name is taken again at once is over all the same.
func TestRemoveIsOverWhenTheNameIsTakenAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		old := f.add(running("web", 1), false)
		s := serve(t, f, m)
		defer end(t, s)
		f.onCmd = func(control.Command) (control.Record, error) {
			f.add(in("web", api.StateStopped, api.DesiredStopped), true, "process.removed")
			next := running("web", 1)
			next.ID = "proc_next"
			f.add(next, false, "process.registered")
			return old, nil
		}
		begin := time.Now()
		if err := s.Remove(context.Background(), "web"); err != nil || time.Since(begin) > time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}
