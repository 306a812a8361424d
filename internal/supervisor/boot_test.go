package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/journal"
)

// A supervisor that was killed, and the server with it, is no boot: what is done
// is not done again, what waits goes on to wait, and what was stopped stays so.
// After an orderly end an up starts everything.
func TestRecoverIsNoBoot(t *testing.T) {
	t.Parallel()
	hour := api.Duration(time.Hour)
	defs := func() []api.Definition {
		return []api.Definition{def("db"), def("done", func(d *api.Definition) { d.Restart = api.RestartOnFailure }),
			def("bad", func(d *api.Definition) { d.Restart = api.RestartNever }), def("off"),
			def("sick", func(d *api.Definition) { d.Backoff.Initial, d.Backoff.Max = &hour, hour })}
	}
	const killed, changed, cutOff, ended, rebooted = "killed", "killed, and changed", "killed in a shutdown", "ended", "the machine has booted"
	for name, starts := range map[string]map[string]int{
		killed:   {"db": 1, "done": 1, "bad": 1, "off": 1, "sick": 1},
		changed:  {"db": 1, "done": 1, "bad": 2, "off": 1, "sick": 1},
		cutOff:   {"db": 2, "done": 1, "bad": 1, "off": 1, "sick": 2},
		ended:    {"db": 2, "done": 2, "bad": 2, "off": 2, "sick": 2},
		rebooted: {"db": 2, "done": 2, "bad": 2, "off": 2, "sick": 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				s := w.open()
				apply(t, s, defs()...)
				synctest.Wait()
				w.process("done").end(0, "")
				w.process("bad").end(1, "")
				w.process("sick").end(1, "")
				do(t, s, "stop", "off")
				synctest.Wait()
				next := defs()
				switch name {
				case changed:
					next[2].Command = api.Command{"/bin/better"}
				case cutOff:
					w.deaf["db"] = true
					ctx, cancel := context.WithCancel(context.Background())
					cancel()
					_ = s.Shutdown(ctx, time.Minute)
					synctest.Wait()
				case ended:
					// Killed right after it has said so.
					if err := s.Shutdown(context.Background(), time.Minute); err != nil {
						t.Fatal(err)
					}
				}
				crash(t, w, s)
				if name == rebooted {
					w.bootID = "boot-2"
					clear(w.live)
				}
				s = w.open()
				if name == cutOff {
					pass(20 * time.Second) // what was being ended is
				}
				if _, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: fill(next...), Full: true, Boot: true, Source: "file"}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got := map[string]int{}
				for name := range starts {
					got[name] = w.count("start " + name)
				}
				if diff := cmp.Diff(starts, got); diff != "" {
					t.Errorf("starts (-want +got):\n%s", diff)
				}
				closed(t, s)
			})
		})
	}
}

// An up is cut off after any number of entries. What it was to begin is begun by
// the next up, and without one when everything had been defined; each once.
func TestCutOffUpIsCarriedOut(t *testing.T) {
	t.Parallel()
	defs := func() []api.Definition {
		return []api.Definition{def("db"), def("web", on(needs("db", "ready"))), def("hand", func(d *api.Definition) {
			no := false
			d.Autostart = &no
		}), def("old")}
	}
	up := func(s *Supervisor) error {
		_, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: fill(defs()...), Full: true, Boot: true, Source: "file"})
		return err
	}
	// Another boot has been before, in which old has run.
	first := func(t *testing.T, w *world) *Supervisor {
		s := w.open()
		apply(t, s, def("old"))
		synctest.Wait()
		if err := s.Shutdown(context.Background(), time.Minute); err != nil {
			t.Fatal(err)
		}
		closed(t, s)
		return w.open()
	}
	whole := 0 // entries of an up that is not cut off
	inWorld(t, func(t *testing.T, w *world) {
		s := first(t, w)
		before := len(w.frames)
		if err := up(s); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		whole = len(w.frames) - before
		closed(t, s)
	})
	for n := range whole + 1 {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("after %d entries, another up: %v", n, again), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					s := first(t, w)
					w.mu.Lock()
					w.last = len(w.frames) + n
					w.mu.Unlock()
					_ = up(s) // it may be cut off
					synctest.Wait()
					begun := s.boot().Number == 2 && !w.bootOver()
					w.mu.Lock()
					w.broken, w.last = errors.New("dead"), 0
					w.mu.Unlock()
					crash(t, w, s)
					s = w.open()
					if again {
						if err := up(s); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
					for name, want := range map[string]int{"db": 1, "web": 1, "hand": 0, "old": 2} {
						if !again && !begun {
							want-- // nobody has said yet all that is to be begun
						}
						if got := w.count("start " + name); got != max(want, 0) {
							t.Errorf("%s was started %d times, want %d", name, got, max(want, 0))
						}
					}
					closed(t, s)
				})
			})
		}
	}
}

// A changed setting is in force at once and with the next supervisor, before any
// server comes. It begins no boot and touches no process.
func TestSettingsAreJournaled(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("off"))
		synctest.Wait()
		do(t, s, "stop", "off")
		synctest.Wait()
		frames := len(w.frames)
		set := func(sync time.Duration, defs ...api.Definition) {
			t.Helper()
			_, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: fill(defs...), Full: len(defs) > 0, Source: "file",
				Settings: &control.Settings{Sync: api.Duration(sync)}})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		want := func(what string, sync time.Duration, entries int) {
			t.Helper()
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.flush.every != sync || len(w.frames) != frames+entries {
				t.Errorf("%s: the interval is %s and %d entries are new, want %s and %d", what, w.flush.every, len(w.frames)-frames, sync, entries)
			}
		}
		set(journal.DefaultSyncEvery)
		want("the default", 0, 0) // the journal has been opened with it
		set(0, def("web"), def("off"))
		want("a reload", 0, 1)
		set(-1)
		want("settings alone", -1, 2)
		w.mu.Lock()
		w.flush.every = time.Hour
		w.mu.Unlock()
		crash(t, w, s)
		s = w.open()
		want("the next supervisor", -1, 4) // it has taken over two processes
		if n := w.count("start "); n != 2 {
			t.Errorf("%d were started, want 2", n)
		}
		if err := s.Shutdown(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		closed(t, s)
		s = w.open()
		set(time.Second)
		if !w.bootOver() {
			t.Error("a setting has begun a boot")
		}
		closed(t, s)
	})
}

// lapsing is a context that ends when it has been asked n times whether it has.
type lapsing struct {
	context.Context
	n     *int
	ended chan struct{}
}

func (l lapsing) Done() <-chan struct{} {
	if *l.n--; *l.n == 0 {
		close(l.ended)
	}
	return l.ended
}

// The server dies that has asked for an Apply. It is carried out, or not at all.
func TestApplyOutlivesTheServer(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 8; n++ {
		inWorld(t, func(t *testing.T, w *world) {
			s := w.open()
			left := n
			ctx := lapsing{context.Background(), &left, make(chan struct{})}
			_, err := s.Apply(ctx, control.ApplyRequest{Definitions: fill(def("a"), def("b"), def("c")), Full: true, Source: "file"})
			synctest.Wait()
			started := w.count("start ")
			if err == nil && started != 3 || err != nil && started != 0 {
				t.Errorf("ended at question %d: %v, and %d were started", n, err, started)
			}
			closed(t, s)
		})
	}
}

// A process has asked for the end, and the supervisor dies before everything is
// ended: the next one asks again. Once everything was ended, the wish has come
// true, whatever supervisors come afterwards.
func TestWishForTheEndIsNotLost(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		var asked []int
		open := func() *Supervisor { return w.openWith(func(code int) { asked = append(asked, code) }) }
		want := func(what string, codes ...int) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(asked, codes) {
				t.Errorf("%s: the end was asked for with %v, want %v", what, asked, codes)
			}
			asked = nil
		}
		s := open()
		apply(t, s, def("web"), def("leaver", func(d *api.Definition) { d.Restart, d.OnNoRestart = api.RestartNever, "exit" }))
		synctest.Wait()
		w.process("leaver").end(9, "")
		want("it ends", 9)
		for range 2 {
			crash(t, w, s)
			s = open()
			want("the supervisor died before it did anything", 9)
		}
		if err := s.Shutdown(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		closed(t, s)
		s = open()
		want("everything was ended")
		if _, err := s.Command(t.Context(), control.Command{Verb: "reset", Name: "leaver"}); err != nil {
			t.Fatal(err)
		}
		crash(t, w, s)
		s = open()
		want("its state was written once more")
		closed(t, s)
	})
}

// The wish of a dead supervisor's process is heard when all others are adopted:
// else they would be ended in no order, or not at all.
func TestWishIsHeardAfterTheRecovery(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		defs := []api.Definition{def("leaver", func(d *api.Definition) { d.Restart, d.OnNoRestart = api.RestartNever, "exit" })}
		for i := range 20 {
			defs = append(defs, def(fmt.Sprintf("web%d", i)))
		}
		s := w.open()
		apply(t, s, defs...)
		synctest.Wait()
		w.process("leaver").end(9, "")
		synctest.Wait()
		crash(t, w, s)
		adopted := -1
		s = w.openWith(func(int) { adopted = w.count("adopt web") })
		if adopted != 20 {
			t.Errorf("%d of 20 were adopted when the end was asked for", adopted)
		}
		closed(t, s)
	})
}
