package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
)

func needs(name, condition string) api.Dependency {
	return api.Dependency{Process: name, Condition: condition}
}

// N24: dependents end first, wave by wave, and a wave waits for the one before.
func TestShutdownInReverseWaves(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		w.deaf["web"] = true // takes its whole grace
		apply(t, s, def("db"), def("cache"), def("api", on(needs("db", "ready"), needs("cache", "ready"))), def("web", on(needs("api", "ready"))))
		synctest.Wait()
		if err := s.Shutdown(context.Background(), time.Minute); err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(w.story(), func(l string) bool { return !strings.HasPrefix(l, "signal") && !strings.HasPrefix(l, "kill") })
		slices.Sort(got[3:]) // db and cache are one wave
		want := []string{"signal web SIGTERM", "kill web", "signal api SIGTERM", "signal cache SIGTERM", "signal db SIGTERM"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		if _, err := s.Command(context.Background(), control.Command{Verb: "start", Name: "db"}); api.CodeOf(err) != api.CodeConflict {
			t.Errorf("a start during a shutdown: %v", err)
		}
		if _, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: fill(def("new")), Source: "api"}); api.CodeOf(err) != api.CodeConflict {
			t.Errorf("a definition during a shutdown: %v", err)
		}
		if got := state(t, s, "db"); got.Desired != api.DesiredRunning {
			t.Errorf("the shutdown has changed what is wanted: %s", got.Desired)
		}
		closed(t, s)
	})
}

// N11: at the deadline everything that lives is killed, in any order, also when
// nobody waits for the shutdown any more.
func TestShutdownDeadlineKillsAll(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{true, false} {
		t.Run(map[bool]string{true: "awaited", false: "left alone"}[waits], func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				long := api.Duration(time.Hour)
				patient := func(d *api.Definition) { d.Stop.Grace = &long }
				s := w.open()
				w.deaf["web"], w.deaf["db"] = true, true
				apply(t, s, def("db", patient), def("web", patient, on(needs("db", "ready"))))
				synctest.Wait()
				begin := time.Now()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if !waits {
					cancel()
				}
				err := s.Shutdown(ctx, 5*time.Second)
				if !waits {
					if api.CodeOf(err) != api.CodeTimeout {
						t.Errorf("a caller that is gone: %v", err)
					}
					<-s.Done()
				} else if err != nil {
					t.Error(err)
				}
				if d := time.Since(begin); d != 5*time.Second {
					t.Errorf("ended after %s", d)
				}
				closed(t, s)
			})
		})
	}
}

// Keeps out P16.
func TestSecondShutdownHurries(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		long := api.Duration(time.Hour)
		s := w.open()
		w.deaf["web"] = true
		apply(t, s, def("web", func(d *api.Definition) { d.Stop.Grace = &long }))
		synctest.Wait()
		begin := time.Now()
		var wg sync.WaitGroup
		for _, timeout := range []time.Duration{30 * time.Minute, time.Hour} {
			wg.Go(func() { _ = s.Shutdown(context.Background(), timeout) })
		}
		pass(time.Second)
		if err := s.Shutdown(context.Background(), 2*time.Second); err != nil {
			t.Error(err)
		}
		wg.Wait() // both of the others have their answer as well
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("ended after %s", d)
		}
		closed(t, s)
	})
}

// S6: a spawn that is under way when the shutdown begins is waited for, and
// ended.
func TestShutdownWaitsForASpawn(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		entered, release := make(chan struct{}), make(chan struct{})
		w.onStart = func(*fakeProcess) error { close(entered); <-release; return nil }
		s := w.open()
		apply(t, s, def("web"))
		<-entered
		over := make(chan error, 1)
		go func() { over <- s.Shutdown(context.Background(), time.Minute) }()
		synctest.Wait()
		select {
		case err := <-over:
			t.Errorf("the shutdown was over while a spawn was under way (%v)", err)
		default:
		}
		close(release)
		if err := <-over; err != nil {
			t.Error(err)
		}
		if w.process("web") != nil || w.count("signal web") != 1 {
			t.Errorf("web was not ended: %q", w.story())
		}
		closed(t, s)
	})
}

func TestApplyTwiceIsUnchanged(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		defs := []api.Definition{def("db"), def("web", on(needs("db", "ready")))}
		apply(t, s, defs...)
		synctest.Wait()
		before := w.LastSeq()
		res := apply(t, s, defs...)
		synctest.Wait()
		if len(res.Added)+len(res.Changed)+len(res.Removed) > 0 || len(res.Unchanged) != 2 || w.LastSeq() != before {
			t.Errorf("result %+v, %d entries", res, w.LastSeq()-before)
		}
		closed(t, s)
	})
}

func TestHoldRestartsNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"))
		synctest.Wait()
		next := fill(def("web", func(d *api.Definition) { d.Env = map[string]string{"A": "1"} }))
		res, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: next, Source: "file", Hold: true})
		synctest.Wait()
		if err != nil || len(res.Changed) != 1 || w.count("start web") != 1 {
			t.Errorf("%+v, %v, started %d times", res, err, w.count("start web"))
		}
		do(t, s, "restart", "web")
		synctest.Wait()
		if w.count("start web") != 2 {
			t.Error("not restarted")
		}
		closed(t, s)
	})
}

// A name that is given again while its process is being removed belongs to a new
// process, which runs.
func TestRemoveThenAddAgain(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"apply", "command"} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.open()
				w.deaf["web"] = true // its end takes its grace
				apply(t, s, def("web"), def("api"))
				synctest.Wait()
				old := do(t, s, "start", "web").ID
				if how == "apply" {
					apply(t, s, def("api"))
				} else {
					do(t, s, "remove", "web")
				}
				res := apply(t, s, def("api"), def("web"))
				synctest.Wait()
				if !slices.Equal(res.Added, []string{"web"}) {
					t.Errorf("result %+v", res)
				}
				rec := do(t, s, "start", "web") // refused by a process that is barred
				if rec.ID == old || rec.State.Generation != 1 || rec.State.State != api.StateRunning || rec.State.Removed {
					t.Errorf("the new process: %+v", rec)
				}
				closed(t, s)
			})
		})
	}
}

func TestRemovalOutlivesAFullJournalAndASupervisor(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		w.deaf["web"], w.deaf["old"] = true, true
		apply(t, s, def("web"), def("old"))
		synctest.Wait()
		do(t, s, "remove", "old")
		closed(t, s) // while it is still being ended
		s = w.open()
		synctest.Wait()
		pass(11 * time.Second)
		synctest.Wait()
		if _, err := s.actor("old"); err == nil {
			t.Errorf("old is not forgotten: %+v", state(t, s, "old"))
		}
		do(t, s, "stop", "web")
		pass(11 * time.Second)
		w.breakJournal(errFull)
		if _, err := s.Command(context.Background(), control.Command{Verb: "remove", Name: "web"}); api.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("removed on a full disk: %v", err)
		}
		pass(3 * time.Second)
		w.breakJournal(nil)
		pass(2 * time.Second)
		synctest.Wait()
		if _, err := s.actor("web"); err == nil {
			t.Errorf("web is not forgotten: %+v", state(t, s, "web"))
		}
		if n := w.count("append web removed"); n != 1 {
			t.Errorf("told %d times that web is removed", n)
		}
		closed(t, s)
	})
}

// Of a removed process nothing is left when it is forgotten: a supervisor that
// dies in between would leave what nobody knows of.
func TestRemovalClearsBeforeItForgets(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"))
		synctest.Wait()
		do(t, s, "remove", "web")
		synctest.Wait()
		story := w.story()
		log, told := slices.Index(story, "forget the log of web"), slices.Index(story, "append web removed")
		if log < 0 || told < log {
			t.Errorf("%q", story)
		}
		closed(t, s)
	})
}

// A definition that could not be written leaves nothing that a shutdown would
// wait for.
func TestFailedApplyLeavesNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		w.breakJournal(errFull)
		if _, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: fill(def("web")), Source: "file"}); api.CodeOf(err) != api.CodeUnavailable {
			t.Errorf("applied on a full disk: %v", err)
		}
		w.breakJournal(nil)
		if recs, _, err := s.List(context.Background()); err != nil || len(recs) != 0 {
			t.Errorf("%v, %v", recs, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx, time.Second); err != nil {
			t.Error(err)
		}
		closed(t, s)
	})
}

// A new process hears of its dependencies although they were told before it had
// an actor.
func TestNewProcessHearsOfItsDependencies(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		gate := func(d *api.Definition) { d.Ready = &api.Probe{TCP: &api.TCPProbe{Address: "localhost:1"}} }
		apply(t, s, def("db", gate))
		synctest.Wait()
		changed := func(d *api.Definition) { d.Env = map[string]string{"A": "1"} }
		apply(t, s, def("db", gate, changed), def("web", on(needs("db", "ready"))))
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateWaiting {
			t.Errorf("web is %s, %s", got.State, got.Detail)
		}
		w.answer("db", 1)
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning {
			t.Errorf("web is %s, %s", got.State, got.Detail)
		}
		closed(t, s)
	})
}

func TestDroppedDependencyFreesWhoWaits(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		never := def("db", func(d *api.Definition) { no := false; d.Autostart = &no })
		apply(t, s, never, def("web", on(needs("db", "ready"))))
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateWaiting {
			t.Fatalf("web is %s", got.State)
		}
		apply(t, s, never, def("web"))
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning {
			t.Errorf("web is %s, %s", got.State, got.Detail)
		}
		closed(t, s)
	})
}

// What depends on a removed process goes on living with that, and so does every
// later definition and supervisor.
func TestRemovedDependencyRefusesNothingElse(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("db"))
		all := fill(def("db"), def("web", on(needs("db", "ready"))))
		if _, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: all[1:], Source: "api"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		apply(t, s) // the file has no db any more
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning {
			t.Errorf("web is %s", got.State)
		}
		apply(t, s, def("other"))
		closed(t, s)
		s = w.open()
		synctest.Wait()
		do(t, s, "restart", "web")
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateDependencyFailed || !strings.Contains(got.Detail, "does not exist") {
			t.Errorf("web is %s: %s", got.State, got.Detail)
		}
		apply(t, s, def("other"), def("db"))
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning {
			t.Errorf("web is %s: %s", got.State, got.Detail)
		}
		closed(t, s)
	})
}

func TestRestartWithADependency(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		with := api.Dependency{Process: "db", Restart: true}
		apply(t, s, def("db"), def("web", on(with)), def("calm", on(needs("db", "started"))))
		synctest.Wait()
		w.process("db").end(1, "")
		pass(2 * time.Second)
		synctest.Wait()
		if w.count("start db") != 2 || w.count("start web") != 2 || w.count("start calm") != 1 {
			t.Errorf("starts: %q", w.story("append", "open", "drain"))
		}
		// Without the wish no more.
		apply(t, s, def("db"), def("web", on(needs("db", "started"))), def("calm", on(needs("db", "started"))))
		synctest.Wait()
		n := w.count("start web")
		w.process("db").end(1, "")
		pass(2 * time.Second)
		synctest.Wait()
		if w.count("start web") != n || len(s.tree.restarts) != 0 {
			t.Errorf("web was restarted although its definition no longer says so; restarts %v", s.tree.restarts)
		}
		closed(t, s)
	})
}

// N22: a file that does not come fails the dependency; a start waits anew, and
// the file that comes late is seen.
func TestFileDependency(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		file := filepath.Join(t.TempDir(), "go")
		s := w.open()
		apply(t, s, def("web", on(api.Dependency{File: file, Timeout: api.Duration(10 * time.Second)})))
		pass(9 * time.Second)
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateWaiting {
			t.Errorf("web is %s after 9s", got.State)
		}
		pass(2 * time.Second)
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateDependencyFailed {
			t.Errorf("web is %s after 11s", got.State)
		}
		do(t, s, "start", "web")
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateWaiting {
			t.Errorf("web is %s after a start: it must wait anew", got.State)
		}
		pass(11 * time.Second)
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateDependencyFailed {
			t.Errorf("web is %s 11s after the start", got.State)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning {
			t.Errorf("web is %s although the file is there", got.State)
		}
		closed(t, s)
		if len(s.tree.waits) != 0 {
			t.Errorf("waits are kept: %v", s.tree.waits)
		}
	})
}

func TestExitIsAskedForOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		var codes []int
		s.o.OnExit = func(code int) { codes = append(codes, code) }
		last := func(d *api.Definition) { d.Restart, d.OnNoRestart = api.RestartNever, "exit" }
		apply(t, s, def("one", last), def("two", last), def("stays"))
		synctest.Wait()
		w.process("one").end(7, "")
		synctest.Wait()
		w.process("two").end(8, "")
		synctest.Wait()
		code, asked := s.ExitCode()
		if !slices.Equal(codes, []int{7}) || !asked || code != 7 {
			t.Errorf("asked for %v; code %d, %v", codes, code, asked)
		}
		exits := 0
		for frames, err := range s.Follow(context.Background(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				if e, err := f.Entry(); err != nil {
					t.Error(err)
				} else if e.Exit != nil {
					exits++
				}
			}
		}
		if exits != 1 {
			t.Errorf("%d entries ask for the end", exits)
		}
		// Without OnExit the supervisor ends everything itself.
		s.o.OnExit = nil
		s.end.code = nil
		do(t, s, "start", "two")
		synctest.Wait()
		w.process("two").end(8, "")
		<-s.Done()
		if w.process("stays") != nil {
			t.Error("something lives after the end")
		}
		closed(t, s)
	})
}
