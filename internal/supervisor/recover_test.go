package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// crash forgets a supervisor as SIGKILL does: nothing more is written by it.
func crash(t *testing.T, w *world, s *Supervisor) {
	t.Helper()
	w.breakJournal(errors.New("dead"))
	closed(t, s)
	w.breakJournal(nil)
}

// The machine sleeps in the middle of a wait. What the boot clock has counted
// counts, a minute after it is awake at the latest; and no wait ends early.
func TestWaitsGoOnWhileTheMachineSleeps(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		day := api.Duration(24 * time.Hour)
		s := w.open()
		apply(t, s, def("sick", func(d *api.Definition) { d.Backoff.Initial, d.Backoff.Max = &day, day }))
		synctest.Wait()
		w.process("sick").end(1, "")
		pass(2 * time.Hour)
		w.clock.slept.Store(int64(20 * time.Hour))
		pass(2*time.Hour - time.Second)
		if w.process("sick") != nil {
			t.Error("it was started before its time")
		}
		pass(time.Second)
		synctest.Wait()
		if w.process("sick") == nil {
			t.Error("it was not started at its time")
		}
		w.process("sick").end(1, "")
		pass(time.Hour)
		w.clock.slept.Store(int64(100 * time.Hour))
		pass(maxNap)
		synctest.Wait()
		if w.process("sick") == nil {
			t.Error("it was not started when the machine was awake for a minute")
		}
		closed(t, s)
	})
}

// The newest record of a process is lost with a damaged journal. What lives is taken
// over under its own number, and no second one is started, whatever is recorded.
func TestLostRecordsStartNothingTwice(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{false, true} { // whether a record of the first generation is left
		inWorld(t, func(t *testing.T, w *world) {
			s := w.open()
			apply(t, s, def("web"), def("off"))
			synctest.Wait()
			do(t, s, "stop", "off")
			synctest.Wait()
			before := w.latest[processKey("web")]
			w.process("web").end(1, "")
			pass(2 * time.Second)
			lives := w.process("web")
			crash(t, w, s)
			delete(w.latest, processKey("web"))
			if older {
				w.latest[processKey("web")] = before
			}
			w.flush.damage = []string{"lost"}
			s = w.open()
			apply(t, s, def("web"), def("off"))
			synctest.Wait()
			got := state(t, s, "web")
			if got.PID != lives.id.PID || got.Generation != 2 || got.State != api.StateRunning {
				t.Errorf("older %v: %+v, pid %d lives", older, got, lives.id.PID)
			}
			if off := state(t, s, "off"); off.State != api.StateStopped {
				t.Errorf("off is %s", off.State)
			}
			if n := w.count("start web"); n != 2 {
				t.Errorf("older %v: web was started %d times", older, n)
			}
			lives.end(1, "")
			pass(2 * time.Second)
			if got := state(t, s, "web"); got.Generation != 3 {
				t.Errorf("older %v: the next generation is %d", older, got.Generation)
			}
			closed(t, s)
		})
	}
}

func TestRecoverAdoptsAndGoesOn(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("db"), def("web", on(needs("db", "ready"))), def("sick"))
		synctest.Wait()
		w.process("sick").end(1, "")
		synctest.Wait()
		pid := w.process("web").id.PID
		pass(400 * time.Millisecond) // of the second that sick waits
		crash(t, w, s)
		begin := time.Now()
		s = w.open()
		synctest.Wait()
		if got := state(t, s, "web"); got.PID != pid || got.Generation != 1 || got.State != api.StateRunning {
			t.Errorf("web: %+v", got)
		}
		pass(599 * time.Millisecond)
		synctest.Wait()
		if w.process("sick") != nil {
			t.Error("the wait was cut short")
		}
		pass(2 * time.Millisecond)
		synctest.Wait()
		if w.process("sick") == nil {
			t.Errorf("sick is not back %s after its wait went on", time.Since(begin))
		}
		w.process("web").end(5, "")
		synctest.Wait()
		if got := state(t, s, "web"); got.Exit == nil || got.Exit.Code != 5 || got.State != api.StateBackoff {
			t.Errorf("the end of the adopted web: %+v, %+v", got, got.Exit)
		}
		closed(t, s)
	})
}

// A spawn whose outcome nobody has recorded: what carries the marker is taken,
// and nothing is started beside it.
func TestRecoverFindsAnUnrecordedSpawn(t *testing.T) {
	t.Parallel()
	for _, survives := range []bool{true, false} {
		t.Run(map[bool]string{true: "lives", false: "ended"}[survives], func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				zero := api.Duration(0)
				s := w.open()
				// A generation before it, whose leader the record must not name.
				apply(t, s, def("web", func(d *api.Definition) { d.ReapGroupOnExit = "failure"; d.Backoff.Initial = &zero }))
				synctest.Wait()
				w.onStart = func(*fakeProcess) error { w.breakJournal(errFull); return nil }
				first := w.process("web")
				first.leftovers = true // so that its end does not let go of it
				first.end(0, "")
				synctest.Wait()
				w.onStart = nil
				spawned := w.process("web")
				crash(t, w, s)
				if !survives {
					spawned.notify = nil
					spawned.end(0, "")
				}
				s = w.open()
				pass(time.Second) // what the first has left is ended before
				synctest.Wait()
				got, starts := state(t, s, "web"), w.count("start web")
				if survives && (got.PID != spawned.id.PID || starts != 2 || got.Generation != 2) {
					t.Errorf("pid %d, want %d; started %d times; %+v", got.PID, spawned.id.PID, starts, got)
				}
				if !survives && (got.State != api.StateRunning || starts != 3) {
					t.Errorf("started %d times; %+v", starts, got)
				}
				closed(t, s)
			})
		})
	}
}

// A spawn that nobody has recorded, which ended, and which the server has reaped:
// its start and its real exit are told, and nothing that was before it is taken for it.
func TestRecoverKnowsAnUnrecordedExit(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"reaped", "zombie", "nowhere"} {
		t.Run(where, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.open()
				apply(t, s, def("web", func(d *api.Definition) { d.Restart = api.RestartNever }))
				synctest.Wait()
				w.process("web").end(0, "")
				synctest.Wait()
				ended := int64(state(t, s, "web").ExitedAt)
				w.onStart = func(*fakeProcess) error { w.breakJournal(errFull); return nil }
				if _, err := s.Command(t.Context(), control.Command{Verb: "start", Name: "web"}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				w.onStart = nil
				p := w.process("web")
				crash(t, w, s)
				p.notify, p.zombie = nil, where == "zombie"
				p.leftovers = p.zombie // it is there as long as somebody waits for it
				p.end(0, "")
				id := proc.Identity{BootID: w.bootID, PID: p.id.PID, StartTime: uint64(ended)/uint64(clockTick) + 1, Cgroup: "/cgroup/web"}
				before, other := id, id
				before.StartTime, before.PID = before.StartTime-3, 7
				other.Cgroup, other.PID = "/cgroup/api", 8
				w.reaped = []control.Reaped{{Identity: before, Exit: proc.Exit{Code: 4}}, {Identity: other, Exit: proc.Exit{Code: 5}}}
				want := supervise.Exit{Unknown: true}
				switch where {
				case "reaped":
					w.reaped = append(w.reaped, control.Reaped{Identity: id, Exit: proc.Exit{Code: 7}})
					want = supervise.Exit{Code: 7}
				case "zombie":
					w.zombies = map[string][]proc.Identity{"/cgroup/web": {before, id}}
					want = supervise.Exit{Code: 1} // as the world tells of zombies
				}
				s = w.open()
				synctest.Wait()
				got := state(t, s, "web")
				if got.Exit == nil || got.Exit.Generation != 2 || got.Exit.Unknown != want.Unknown || got.Exit.Code != want.Code || w.count("start web") != 2 {
					t.Errorf("%+v, exit %+v", got, got.Exit)
				}
				closed(t, s)
			})
		})
	}
}

// The rest of a leader that ended while nobody watched is ended before the next
// generation starts.
func TestRecoverEndsLeftoversFirst(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"))
		synctest.Wait()
		crash(t, w, s)
		p := w.process("web")
		p.notify, p.leftovers = nil, true
		p.end(1, "")
		s = w.open()
		pass(2 * time.Second)
		synctest.Wait()
		story := strings.Join(w.story("open", "drain"), "\n")
		if sweep, start := strings.LastIndex(story, "sweep web"), strings.LastIndex(story, "start web"); sweep < 0 || start < sweep {
			t.Errorf("not swept before the start:\n%s", story)
		}
		if got := state(t, s, "web"); got.State != api.StateRunning || got.Generation != 2 || got.Exit == nil || !got.Exit.Unknown {
			t.Errorf("%+v, exit %+v", got, got.Exit)
		}
		closed(t, s)
	})
}

// The end of a leader that is recorded is not told again, though its zombie is
// there and something that it has left lives.
func TestRecoverTellsARecordedEndOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web", func(d *api.Definition) { d.Stop.Grace = new(api.Duration(time.Hour)) }))
		synctest.Wait()
		p := w.process("web")
		p.leftovers, p.zombie = true, true
		p.end(1, "")
		synctest.Wait()
		crash(t, w, s)
		s = w.open()
		synctest.Wait()
		if n := w.count("append web exited"); n != 1 || w.count("adopt") != 0 {
			t.Errorf("the end was told %d times:\n%s", n, strings.Join(w.story(), "\n"))
		}
		pass(2 * time.Second)
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning || got.Generation != 2 {
			t.Errorf("%+v, exit %+v", got, got.Exit)
		}
		closed(t, s)
	})
}

// After a boot nothing lives and the old clock means nothing: waits end at once,
// and nothing that has the pid of a recorded process is touched.
func TestRecoverAfterABoot(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		long := api.Duration(time.Hour)
		apply(t, s, def("web"), def("sick", func(d *api.Definition) { d.Backoff.Initial, d.Backoff.Max = &long, long }), def("off"))
		synctest.Wait()
		w.process("sick").end(1, "")
		do(t, s, "stop", "off")
		synctest.Wait()
		crash(t, w, s)
		w.mu.Lock()
		w.bootID = "boot-2"
		stranger := w.live[state0(w, "web")]
		stranger.name, stranger.id.Marker, stranger.id.BootID = "stranger", "", "boot-2"
		w.mu.Unlock()
		s = w.open()
		pass(2 * time.Second)
		synctest.Wait()
		for _, name := range []string{"web", "sick"} {
			if got := state(t, s, name); got.State != api.StateRunning || got.Generation != 2 {
				t.Errorf("%s: %+v", name, got)
			}
		}
		if got := state(t, s, "off"); got.State != api.StateStopped {
			t.Errorf("off: %+v", got)
		}
		if w.process("stranger") == nil || w.count("signal stranger")+w.count("kill stranger")+w.count("adopt") > 0 {
			t.Errorf("a stranger was touched: %q", w.story())
		}
		closed(t, s)
	})
}

// state0 is the pid of a live process; mu is held.
func state0(w *world, name string) int {
	for pid, p := range w.live {
		if p.name == name {
			return pid
		}
	}
	return 0
}

func TestRecoverLeavesUnreadableEntriesAlone(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"))
		synctest.Wait()
		crash(t, w, s)
		for key, text := range map[string]string{"definition/odd": `{"record":7}`, "process/odd": `{"record":{"name":"odd"}}`,
			"definition/empty": `{"record":{"name":"empty"}}`, "strange": `{}`} {
			f := w.latest["process/web"]
			f.Key, f.Payload = key, []byte(text)
			w.latest[key] = f
		}
		s = w.open()
		synctest.Wait()
		recs, _, err := s.List(context.Background())
		if err != nil || len(recs) != 1 || recs[0].Name != "web" || recs[0].State.State != api.StateRunning {
			t.Errorf("%+v, %v", recs, err)
		}
		if _, kept := w.latest["process/odd"]; !kept {
			t.Error("an entry that cannot be read was removed")
		}
		closed(t, s)
	})
}

// A removal that was cut off between its two entries is finished.
func TestRecoverFinishesARemoval(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("api"))
		synctest.Wait()
		do(t, s, "stop", "web")
		synctest.Wait()
		var rec control.Entry
		if err := json.Unmarshal(w.latest["process/web"].Payload, &rec); err != nil {
			t.Fatal(err)
		}
		rec.Record.State.Removed, rec.Record.State.Barrier = true, true
		payload, _ := json.Marshal(rec)
		if _, err := w.Write("process/web", payload); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteDelete("definition/web", []byte("{}")); err != nil {
			t.Fatal(err)
		}
		crash(t, w, s)
		s = w.open()
		synctest.Wait()
		if _, left := w.latest["process/web"]; left || w.count("append web removed") != 1 {
			t.Errorf("left %v, told %d times", left, w.count("append web removed"))
		}
		closed(t, s)
	})
}

// A place for output that cannot be opened leaves no process unwatched.
func TestRecoverWithoutAPlaceForOutput(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"))
		synctest.Wait()
		crash(t, w, s)
		w.noSink = errors.New("no such directory")
		s = w.open()
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning || got.Generation != 1 {
			t.Errorf("%+v", got)
		}
		opened := w.count("open web")
		w.mu.Lock()
		w.noSink = nil
		w.mu.Unlock()
		pass(2 * retryStorage)
		synctest.Wait()
		if w.count("open web") != opened+1 {
			t.Error("its output is not taken once it can be")
		}
		closed(t, s)
	})
}

// A shutdown's barrier is lifted by the next supervisor; what was being ended
// stays ended.
func TestRecoverAfterAShutdownThatWasCutOff(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		w.deaf["web"] = true
		apply(t, s, def("web"))
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx, time.Minute)
		pass(time.Second)
		crash(t, w, s)
		s = w.open()
		pass(20 * time.Second)
		synctest.Wait()
		got := state(t, s, "web")
		if got.State != api.StateStopped || got.Desired != api.DesiredRunning || got.Barrier {
			t.Errorf("%+v", got)
		}
		if rec := do(t, s, "start", "web"); rec.State.State == api.StateStopped {
			t.Errorf("cannot be started: %+v", rec.State)
		}
		closed(t, s)
	})
}
