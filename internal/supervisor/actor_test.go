package supervisor

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/probe"
	"github.com/perdure/perdure/internal/supervise"
)

// inWorld runs a test in a bubble of its own, with its own time.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

// pass lets the bubble's time go on.
func pass(d time.Duration) { <-time.After(d) }

func TestPersistBeforeAct(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"))
		synctest.Wait()
		do(t, s, "restart", "web")
		synctest.Wait()
		do(t, s, "stop", "web")
		synctest.Wait()
		want := []string{
			"append web registered", "append boot ", "append web starting", "open web", "start web", "append web started,ready",
			"append web restarting,stopping", "signal web SIGTERM", "drain web", "append web exited,starting", "start web",
			"append web started,ready", "append web stopping", "signal web SIGTERM", "drain web", "append web exited,stopped",
		}
		if d := cmp.Diff(want, w.story()); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		closed(t, s)
	})
}

// A start that waits for its turn is not written down: after a death nobody could
// tell whether it had been done, and what must run once would not be run.
func TestWaitingForATurnIsNoStart(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		for range cap(s.spawning) {
			s.spawning <- struct{}{}
		}
		apply(t, s, def("web"))
		synctest.Wait()
		if n := w.count("append web starting"); n != 0 {
			t.Errorf("%d starts are written down: %q", n, w.story())
		}
		<-s.spawning
		synctest.Wait()
		if w.process("web") == nil {
			t.Errorf("web does not run: %q", w.story())
		}
		closed(t, s)
	})
}

// A process ends before its start has returned: Spawned is decided upon before
// Exited all the same.
func TestSpawnedBeforeExited(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.onStart = func(p *fakeProcess) error { p.end(3, ""); return nil }
		s := w.open()
		apply(t, s, def("web", func(d *api.Definition) { d.Restart = api.RestartNever }))
		synctest.Wait()
		got := state(t, s, "web")
		if got.State != api.StateFailed || got.Starts != 1 || got.Exit == nil || got.Exit.Code != 3 {
			t.Errorf("state %+v, exit %+v", got, got.Exit)
		}
		told := w.story("drain", "open")
		want := []string{"append web registered", "append boot ", "append web starting", "start web", "append web started,ready", "append web exited,error"}
		if d := cmp.Diff(want, told); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		closed(t, s)
	})
}

func TestFullJournalStopsButDoesNotStart(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("idle", func(d *api.Definition) { no := false; d.Autostart = &no }))
		synctest.Wait()
		w.breakJournal(errFull)
		do(t, s, "stop", "web")
		synctest.Wait()
		if w.process("web") != nil {
			t.Error("a full journal keeps web from being stopped")
		}
		do(t, s, "start", "idle")
		synctest.Wait()
		if w.process("idle") != nil {
			t.Error("idle was started although nobody could write it down")
		}
		info, _ := s.Info(context.Background())
		if len(info.Troubles) != 1 || info.Troubles[0].Kind != api.TroubleJournal || !strings.Contains(info.Troubles[0].Text(), "starts wait") {
			t.Errorf("the trouble is not told: %+v", info.Troubles)
		}
		w.breakJournal(nil)
		pass(retryStorage)
		synctest.Wait()
		if w.process("idle") == nil {
			t.Error("idle is not started after the journal can be written again")
		}
		if info, _ = s.Info(context.Background()); len(info.Troubles) > 0 {
			t.Errorf("the trouble is still told: %+v", info.Troubles)
		}
		story := strings.Join(w.story(), "\n")
		for _, want := range []string{"append web stopping,exited,stopped", "append idle starting", "supervisor storage.failed", "supervisor storage.recovered"} {
			if !strings.Contains(story, want) {
				t.Errorf("%q is missing in\n%s", want, story)
			}
		}
		closed(t, s)
	})
}

// What is written down and not durable is told once. Starts wait for it, stops do not.
func TestStartsWaitUntilTheJournalIsDurable(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("idle", func(d *api.Definition) { no := false; d.Autostart = &no }))
		synctest.Wait()
		lazy := func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.flush.err = err
		}
		lazy(errFull)
		do(t, s, "stop", "web")
		do(t, s, "start", "idle")
		pass(3 * retryStorage)
		synctest.Wait()
		if w.process("web") != nil || w.process("idle") != nil {
			t.Errorf("web should be stopped, and idle not started: %q", w.story())
		}
		lazy(nil)
		pass(retryStorage)
		synctest.Wait()
		if w.process("idle") == nil {
			t.Error("idle is not started after its start is durable")
		}
		if n := w.count("append idle starting"); n != 1 {
			t.Errorf("the start is told %d times: %q", n, w.story())
		}
		closed(t, s)
	})
}

// What had to wait to be written down has the time at which it was.
func TestOwedEventsKeepTheirTime(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web", func(d *api.Definition) { d.Restart = api.RestartNever }))
		synctest.Wait()
		w.breakJournal(errFull)
		pass(time.Minute)
		died := time.Now()
		w.process("web").end(7, "")
		pass(time.Hour)
		w.breakJournal(nil)
		pass(retryStorage)
		synctest.Wait()
		e, err := decode(w.latest[processKey("web")])
		if err != nil || len(e.Events) == 0 {
			t.Fatalf("the exit is not written down: %+v, %v", e, err)
		}
		for _, ev := range e.Events {
			if !ev.Time.Equal(died) || e.Time.Before(died.Add(time.Hour)) {
				t.Errorf("%s is of %s and written at %s, it was at %s", ev.Type, ev.Time, e.Time, died)
			}
		}
		closed(t, s)
	})
}

func TestStopTakesBackAWaitingSpawn(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"stop", "kill", "shutdown"} {
		t.Run(verb, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.open()
				apply(t, s, def("web", func(d *api.Definition) { no := false; d.Autostart = &no }))
				w.breakJournal(errFull)
				do(t, s, "start", "web")
				if verb == "shutdown" {
					if err := s.Shutdown(context.Background(), time.Minute); err != nil {
						t.Error(err)
					}
				} else {
					do(t, s, verb, "web")
				}
				w.breakJournal(nil)
				pass(2 * retryStorage)
				synctest.Wait()
				if n := w.count("start "); n != 0 {
					t.Errorf("spawned %d times", n)
				}
				if got := state(t, s, "web"); got.State != api.StateStopped || got.SpawnPending {
					t.Errorf("state %+v", got)
				}
				closed(t, s)
			})
		})
	}
}

// What asks a probe is no more begun for a generation that has ended meanwhile.
func TestOwedAskingEndsWithItsGeneration(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		gate := func(d *api.Definition) {
			d.Ready = &api.Probe{TCP: &api.TCPProbe{Address: "localhost:1"}}
			d.Health = &api.Probe{TCP: &api.TCPProbe{Address: "localhost:1"}}
			d.Restart = api.RestartNever
		}
		apply(t, s, def("web", gate))
		synctest.Wait()
		w.breakJournal(errFull)
		w.answer("web", probe.Yes) // ready: begin to ask for health, which is owed
		synctest.Wait()
		w.process("web").end(1, "")
		synctest.Wait()
		w.breakJournal(nil)
		pass(2 * retryStorage)
		synctest.Wait()
		if n := w.asked(); n != 0 {
			t.Errorf("%d probes ask about a process that is %s", n, state(t, s, "web").State)
		}
		closed(t, s)
	})
}

// A yes that changes nothing wakes nobody; one after a no is counted.
func TestOnlyAYesThatChangesNothingIsDropped(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web", func(d *api.Definition) {
			d.Health = &api.Probe{TCP: &api.TCPProbe{Address: "localhost:1"}, Failures: 2, OnFail: "event"}
		}))
		synctest.Wait()
		a := s.actors["web"]
		for i, step := range []struct {
			answer probe.Answer
			health api.Health
			fails  int
			calm   uint64
		}{
			{probe.Yes, api.HealthHealthy, 0, 1}, {probe.Yes, api.HealthHealthy, 0, 1}, {probe.No, api.HealthHealthy, 1, 0},
			{probe.Yes, api.HealthHealthy, 0, 1}, {probe.No, api.HealthHealthy, 1, 0}, {probe.No, api.HealthUnhealthy, 2, 0},
			{probe.Yes, api.HealthHealthy, 0, 1},
		} {
			w.answer("web", step.answer)
			synctest.Wait()
			if got := state(t, s, "web"); got.Health != step.health || got.HealthFailures != step.fails || a.calm.Load() != step.calm {
				t.Errorf("%d: %s, %d noes, calm in %d; want %+v", i, got.Health, got.HealthFailures, a.calm.Load(), step)
			}
		}
		w.process("web").end(1, "")
		synctest.Wait()
		if calm := a.calm.Load(); calm != 0 {
			t.Errorf("calm in generation %d, which has ended", calm)
		}
		closed(t, s)
	})
}

func TestStaleTimerIsDropped(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		w.deaf["web"] = true
		grace := api.Duration(4 * time.Second)
		apply(t, s, def("web", func(d *api.Definition) { d.Stop.Grace = &grace }))
		synctest.Wait()
		do(t, s, "stop", "web")
		pass(time.Second)
		old := state(t, s, "web").Timers[supervise.TimerGrace].Number
		w.process("web").end(0, "") // it obeys after a second
		synctest.Wait()
		do(t, s, "start", "web")
		synctest.Wait()
		do(t, s, "stop", "web")
		pass(3500 * time.Millisecond) // later than the grace of the first stop
		a, err := s.actor("web")
		if err != nil {
			t.Fatal(err)
		}
		a.tell(supervise.Input{Kind: supervise.TimerFired, Timer: supervise.TimerGrace, Number: old})
		synctest.Wait()
		if n := w.count("kill"); n != 0 {
			t.Errorf("killed %d times before its own grace was over", n)
		}
		pass(time.Second)
		synctest.Wait()
		if n := w.count("kill"); n != 1 {
			t.Errorf("killed %d times after its grace", n)
		}
		closed(t, s)
	})
}

// The rest of an older generation ends late: the live one stays in hand.
func TestLateGoneOfAnOlderGeneration(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		zero := api.Duration(0)
		s := w.open()
		apply(t, s, def("web", func(d *api.Definition) { d.ReapGroupOnExit = "failure"; d.Backoff.Initial = &zero }))
		synctest.Wait()
		first := w.process("web")
		first.leftovers = true
		first.end(0, "")
		synctest.Wait()
		second := w.process("web")
		if second == nil || second.generation != "2" {
			t.Fatalf("no second generation: %+v", second)
		}
		first.sweepAway()
		do(t, s, "stop", "web")
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateStopped {
			t.Errorf("the live generation could not be stopped: %+v", got)
		}
		closed(t, s)
	})
}

// One goroutine per actor at most, and the order of each sender is kept.
func TestInboxOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open()
	apply(t, s, def("web", func(d *api.Definition) { no := false; d.Autostart = &no }))
	a, err := s.actor("web")
	if err != nil {
		t.Fatal(err)
	}
	const senders, each = 100, 200
	inside := 0 // not synchronized: the race detector tells if two run at once
	last := make([]int, senders)
	var sent, handled sync.WaitGroup
	handled.Add(senders * each)
	for i := range senders {
		sent.Go(func() {
			for n := 1; n <= each; n++ {
				a.post(message{do: func(*actor) error {
					inside++
					if last[i] != n-1 {
						t.Errorf("sender %d: %d after %d", i, n, last[i])
					}
					last[i] = n
					return nil
				}, done: func(control.Record, error) { handled.Done() }})
			}
		})
	}
	sent.Wait()
	handled.Wait()
	closed(t, s)
	if inside != senders*each {
		t.Errorf("handled %d messages of %d", inside, senders*each)
	}
}

// Nothing runs for processes that rest.
func TestIdleCostsNoGoroutine(t *testing.T) {
	// Not parallel: it counts goroutines.
	w := newWorld(t)
	s := w.open()
	base := runtime.NumGoroutine()
	var defs []api.Definition
	for i := range 1000 {
		defs = append(defs, def("p"+string(rune('a'+i%26))+strings.Repeat("x", i/26)))
	}
	apply(t, s, defs...)
	// A drain that is over has called Done.
	s.running.Wait()
	if n := w.count("start "); n != 1000 {
		t.Fatalf("%d of 1000 started", n)
	}
	// Whoever has called Done may still be on its way out.
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > base && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > base {
		t.Errorf("%d goroutines more than before", n-base)
	}
	closed(t, s)
}

// Every waiter gets an outcome, whatever ends meanwhile (N5).
func TestWaitersAlwaysSettle(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("api"))
		synctest.Wait()
		var wg sync.WaitGroup
		for i := range 50 {
			verb := []string{"start", "stop", "restart", "kill", "reset"}[i%5]
			wg.Go(func() {
				_, _ = s.Command(context.Background(), control.Command{Verb: verb, Name: "web"})
				_, _, _ = s.List(context.Background())
			})
		}
		wg.Go(func() { apply(t, s, def("api")) }) // removes web in their midst
		wg.Wait()                                 // the bubble fails if one never settles
		a, err := s.actor("api")
		if err != nil {
			t.Fatal(err)
		}
		closed(t, s)
		if _, err := await(context.Background(), a, message{}); api.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("a command to a closed supervisor: %v", err)
		}
	})
}

func TestCloseLeavesProcessesAndNoGoroutine(t *testing.T) {
	// Not parallel: it looks at all goroutines.
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w := newWorld(t)
	s := w.open()
	apply(t, s, def("web"), def("waits", on(api.Dependency{File: t.TempDir() + "/never"})))
	s.running.Wait()
	closed(t, s)
	if w.process("web") == nil || w.count("signal")+w.count("kill") > 0 {
		t.Errorf("Close has ended a process: %q", w.story())
	}
}
