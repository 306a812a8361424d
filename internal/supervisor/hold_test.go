package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
)

// of is what a server would hold of a live process.
func of(t *testing.T, s *Supervisor, p *fakeProcess, exit *proc.Exit) control.Held {
	t.Helper()
	a, err := s.actor(p.name)
	if err != nil {
		t.Fatal(err)
	}
	// As it comes from a socket: Leads stays here.
	return control.Held{Name: p.name, ID: a.who.id, Generation: state(t, s, p.name).Generation, Identity: p.id, Exit: exit, FDs: []int{-1}}
}

// What ended while no supervisor lived has its real exit, and policy decides on
// it once: a failure waits and counts, a success of a oneshot is the end.
func TestRecoverTakesAHeldExit(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("once", func(d *api.Definition) { d.Restart = api.RestartOnFailure }))
		synctest.Wait()
		web, once := w.process("web"), w.process("once")
		w.held = map[string]control.Held{
			"web":  of(t, s, web, &proc.Exit{Code: 139, Signal: "SIGSEGV", CoreDumped: true}),
			"once": of(t, s, once, &proc.Exit{}),
		}
		crash(t, w, s)
		for _, p := range []*fakeProcess{web, once} {
			p.notify = nil
			p.end(0, "")
		}
		s = w.open()
		synctest.Wait()
		if len(w.held) != 0 {
			t.Errorf("left over: %v", w.held)
		}
		if got := state(t, s, "web"); got.State != api.StateBackoff || got.Exit == nil || got.Exit.Code != 139 || got.Exit.Signal != "SIGSEGV" ||
			!got.Exit.CoreDumped || got.Exit.Unknown || got.Exit.Cause != "exit" || got.Failures != 1 {
			t.Errorf("web: %+v, exit %+v", got, got.Exit)
		}
		if got := state(t, s, "once"); got.State != api.StateExited || got.Exit.Unknown || got.Exit.Failure {
			t.Errorf("once: %+v, exit %+v", got, got.Exit)
		}
		if n := w.count("append web exited"); n != 1 {
			t.Errorf("the exit was told %d times: %q", n, w.story())
		}
		crash(t, w, s)
		w.held = nil
		s = w.open()
		synctest.Wait()
		pass(2 * time.Second)
		synctest.Wait()
		if got := state(t, s, "web"); got.Generation != 2 || got.State != api.StateRunning || w.count("start web") != 2 {
			t.Errorf("after another death: %+v", got)
		}
		closed(t, s)
	})
}

// The supervisor died between a fork and its record. What was passed before is
// enough to know the generation and how it ended.
func TestRecoverTakesAnUnrecordedSpawnThatWasHeld(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		var spawned *fakeProcess
		w.onStart = func(p *fakeProcess) error {
			spawned = p
			w.breakJournal(errFull)
			return nil
		}
		apply(t, s, def("web", func(d *api.Definition) { d.Restart = api.RestartNever }))
		synctest.Wait()
		w.onStart = nil
		w.held = map[string]control.Held{"web": of(t, s, spawned, &proc.Exit{Code: 3})}
		crash(t, w, s)
		spawned.notify = nil
		spawned.end(3, "")
		s = w.open()
		synctest.Wait()
		if got := state(t, s, "web"); got.Exit == nil || got.Exit.Code != 3 || got.Exit.Unknown || got.Generation != 1 || got.State != api.StateFailed {
			t.Errorf("%+v, exit %+v", got, got.Exit)
		}
		if started, exited := w.count("append web started"), w.count("append web exited"); started != 1 || exited != 1 {
			t.Errorf("started %d times, exited %d: %q", started, exited, w.story())
		}
		closed(t, s)
	})
}

// What nobody has held, because it was started just before the supervisor died,
// has its real exit all the same if the server has reaped it.
func TestRecoverTakesAReapedExit(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("api"))
		synctest.Wait()
		web, other := w.process("web"), w.process("api")
		stranger := other.id
		stranger.StartTime++
		w.reaped = []control.Reaped{{Identity: stranger, Exit: proc.Exit{Code: 4}}, {Identity: web.id, Exit: proc.Exit{Code: 3}}}
		crash(t, w, s)
		for _, p := range []*fakeProcess{web, other} {
			p.notify = nil
			p.end(0, "")
		}
		s = w.open()
		synctest.Wait()
		if got := state(t, s, "web"); got.Exit == nil || got.Exit.Unknown || got.Exit.Code != 3 || got.State != api.StateBackoff {
			t.Errorf("web: %+v, exit %+v", got, got.Exit)
		}
		if got := state(t, s, "api"); got.Exit == nil || !got.Exit.Unknown {
			t.Errorf("api: %+v, exit %+v", got, got.Exit)
		}
		closed(t, s)
	})
}

// What is held of another process, generation or pid than the recorded one tells
// nothing of it.
func TestRecoverTakesNothingElse(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*control.Held){
		"id":         func(h *control.Held) { h.ID = "proc_other" },
		"generation": func(h *control.Held) { h.Generation++ },
		"pid":        func(h *control.Held) { h.Identity.PID++ },
		"start":      func(h *control.Held) { h.Identity.StartTime++ },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				s := w.open()
				apply(t, s, def("web", func(d *api.Definition) { d.Restart = api.RestartNever }))
				synctest.Wait()
				p := w.process("web")
				h := of(t, s, p, &proc.Exit{Code: 3})
				change(&h)
				w.held = map[string]control.Held{"web": h}
				crash(t, w, s)
				p.notify = nil
				p.end(0, "")
				s = w.open()
				synctest.Wait()
				if got := state(t, s, "web"); got.Exit == nil || !got.Exit.Unknown {
					t.Errorf("%+v, exit %+v", got, got.Exit)
				}
				if len(w.held) != 1 {
					t.Error("it was taken")
				}
				closed(t, s)
			})
		})
	}
}

// A server that comes is offered what lives, and each start from then on, in the
// newest form only; one that comes later takes its place.
func TestPassOffersWhatLives(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("a"), def("b"), def("off", func(d *api.Definition) { no := false; d.Autostart = &no }))
		synctest.Wait()
		w.passes = true
		got := map[string][]uint64{}
		over := make(chan error, 2)
		hear := func() {
			over <- s.Pass(t.Context(), false, func(h control.Held) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				got[h.Name] = append(got[h.Name], h.Generation)
				return nil
			})
		}
		go hear()
		synctest.Wait()
		w.process("a").end(1, "")
		pass(2 * time.Second)
		synctest.Wait()
		if len(got) != 2 || len(got["a"]) != 2 || got["a"][1] != 2 || len(got["b"]) != 1 {
			t.Errorf("%v", got)
		}
		clear(got)
		go hear()
		synctest.Wait()
		if err := <-over; api.CodeOf(err) != api.CodeConflict {
			t.Errorf("the first server: %v", err)
		}
		if len(got) != 2 || got["a"][0] != 2 {
			t.Errorf("%v", got)
		}
		closed(t, s)
	})
}
