package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/store/sqlite"
)

// Each event comes into the log once, however often the connection is cut and
// the server replaced.
func TestIngestExactlyOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		f.cut = 3
		var want []string
		add := func(n int) {
			for range n {
				typ := fmt.Sprintf("process.n%d", len(want))
				want = append(want, "web "+typ)
				f.add(running("web", 1), false, typ)
			}
		}
		add(10)
		s := serve(t, f, m)
		pass(10 * time.Second)
		end(t, s)
		add(10)
		s = serve(t, f, m) // a new server goes on at the cursor
		pass(10 * time.Second)
		f.mu.Lock()
		f.cut = 0
		f.mu.Unlock()
		add(5)
		pass(10 * time.Second)
		end(t, s)
		if got := m.types(); !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if follows, acked := f.reading(); follows < 5 || acked == 0 {
			t.Errorf("followed %d times, acknowledged up to %d", follows, acked)
		}
	})
}

// Nothing is shown that is not in the log, nothing acknowledged, and the
// supervisor is kept, while the database cannot be written.
func TestDatabaseErrorsAreTriedAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		s := serve(t, f, m)
		m.setFail(errors.New("disk full"))
		f.add(running("web", 1), false, "process.ready")
		pass(5 * time.Second)
		if _, acked := f.reading(); m.tries() < 3 || acked != 0 {
			t.Errorf("tried %d times, acknowledged %d", m.tries(), acked)
		}
		if _, err := s.Process(context.Background(), "web"); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("shown before it is in the log: %v", err)
		}
		if info, err := s.Info(context.Background()); err != nil || len(info.Troubles) != 1 || info.Troubles[0].Kind != api.TroubleDatabase {
			t.Errorf("%+v, %v", info.Troubles, err)
		}
		s.say(context.Background(), "config.reloaded", nil)
		m.setFail(nil)
		recovered := time.Now()
		pass(2 * time.Second)
		if p, err := s.Process(context.Background(), "web"); err != nil || p.State != api.StateRunning || len(m.types()) != 1 {
			t.Errorf("%+v, %v, %v", p, err, m.types())
		}
		if info, err := s.Info(context.Background()); err != nil || len(info.Troubles) != 0 {
			t.Errorf("%+v, %v", info.Troubles, err)
		}
		m.mu.Lock()
		last := m.events[len(m.events)-3:]
		m.mu.Unlock()
		if last[0].Type != "config.reloaded" || last[0].Time.After(recovered) || last[1].Type != "storage.failed" ||
			last[1].Time.After(recovered.Add(-4*time.Second)) || last[2].Type != "storage.recovered" {
			t.Errorf("it was over at %s, and told are %+v", recovered, last)
		}
		end(t, s)
	})
}

// A database that is found damaged while it is written is marked, and the server goes
// on as the same program anew, which replaces it. One that is part of another
// program leaves that to its next start.
func TestDamagedDatabaseIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("junk "), 2000), 0o600); err != nil {
		t.Fatal(err)
	}
	_, damaged := sqlite.Open(t.Context(), junk, sqlite.Options{})
	for _, embedded := range []bool{false, true} {
		inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
			s := serve(t, f, m)
			s.o.Embedded, s.o.StateDir, s.o.Become.Args = embedded, t.TempDir(), []string{"up"}
			s.ready.Store(true)
			m.setFail(damaged)
			f.add(running("web", 1), false, "process.ready")
			pass(5 * time.Second)
			var becomes string
			select {
			case becomes = <-s.moves:
			default:
			}
			if (becomes == "") != embedded {
				t.Errorf("embedded %v: it becomes %q", embedded, becomes)
			}
			if tr := s.trouble.Load(); tr == nil || tr.Cause != "damaged" {
				t.Errorf("the trouble is %+v", tr)
			}
			told := false
			store, err := sqlite.OpenSound(context.Background(), filepath.Join(s.o.StateDir, databaseName), sqlite.Options{}, time.Now(),
				func(string, error) api.Event { told = true; return newEvent("server.database_replaced", nil) })
			if err == nil {
				err = store.Close()
			}
			if !told || err != nil {
				t.Errorf("the next server has not replaced it: %v", err)
			}
			end(t, s)
		})
	}
}

// An error of the journal makes an embedded server let go of nothing.
func TestEmbeddedSupervisorIsKept(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		f.ackErr = errors.New("input/output error") // before anybody reads
		s := serve(t, f, m)
		f.add(running("web", 1), false, "process.ready")
		pass(5 * time.Second)
		if sup, err := s.att.get(); err != nil || sup != control.Supervisor(f) {
			t.Errorf("supervisor %v, %v", sup, err)
		}
		f.mu.Lock()
		f.ackErr = nil
		f.mu.Unlock()
		f.add(running("web", 2), false, "process.ready")
		pass(5 * time.Second)
		if _, acked := f.reading(); acked != 2 || len(m.types()) != 2 {
			t.Errorf("acknowledged %d, %v", acked, m.types())
		}
		end(t, s)
	})
}

// A full event log does not hold the end up.
func TestStopDoesNotWaitForTheLogForEver(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		s := serve(t, f, m)
		m.setFail(errors.New("disk full"))
		f.add(in("web", api.StateStopped, api.DesiredRunning), false, "process.stopped")
		begin := time.Now()
		if err := s.Stop(context.Background(), time.Second); err == nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if d := time.Since(begin); d != lastEvents {
			t.Errorf("waited %s", d)
		}
		<-s.Stopped()
		end(t, s)
	})
}

func TestExitIsTakenFromTheJournal(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		s := serve(t, f, m)
		if _, asked := s.ExitCode(); asked {
			t.Error("asked for before")
		}
		code, other := 7, 8
		f.mu.Lock()
		f.write("supervisor", control.Entry{Exit: &code})
		f.write("supervisor", control.Entry{Exit: &other})
		f.mu.Unlock()
		<-s.ExitAsked()
		synctest.Wait()
		if got, asked := s.ExitCode(); !asked || got != 7 {
			t.Errorf("%d, %v", got, asked)
		}
		end(t, s)
	})
}

// A list that was taken before an entry says nothing against it.
func TestTableIsNeverOlderThanAnEntry(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		f.add(running("web", 1), false, "process.ready")
		f.add(running("old", 1), false, "process.ready")
		s := serve(t, f, m)
		synctest.Wait()
		f.listing = func() {
			f.listing = nil
			f.add(running("web", 2), false, "process.ready")
			f.add(running("new", 1), false, "process.ready")
			f.add(in("old", api.StateStopped, api.DesiredStopped), true, "process.removed")
			synctest.Wait() // all of it has been read while the list is on its way
		}
		if err := s.loadNow(context.Background()); err != nil {
			t.Fatal(err)
		}
		if rec, _, err := s.table.get("web"); err != nil || rec.State.Generation != 2 {
			t.Errorf("web fell back to generation %d, %v", rec.State.Generation, err)
		}
		if _, _, err := s.table.get("new"); err != nil {
			t.Errorf("new was dropped: %v", err)
		}
		if _, _, err := s.table.get("old"); err == nil {
			t.Error("old came back")
		}
		end(t, s)
	})
}

func entry(r control.Record) control.Entry { return control.Entry{Seq: r.Seq, Record: &r} }

// A journal that is read from far behind does not take the table back.
func TestReplayDoesNotTakeTheTableBack(t *testing.T) {
	t.Parallel()
	tb := newTable()
	first := control.Record{Seq: 3, Name: "web", ID: "proc_1"}
	second := control.Record{Seq: 12, Name: "web", ID: "proc_2"}
	tb.replace([]control.Record{second}, "j1", 12)
	tb.take([]control.Entry{entry(first), {Seq: 10, Record: &control.Record{Seq: 10, Name: "web", ID: "proc_1"}, Removed: true},
		entry(control.Record{Seq: 5, Name: "ghost", ID: "proc_3"})}, 10)
	if rec, _, err := tb.get("web"); err != nil || rec.ID != "proc_2" {
		t.Errorf("%+v, %v", rec, err)
	}
	if got := tb.names(); !slices.Equal(got, []string{"web"}) {
		t.Errorf("names %v", got)
	}
	// The numbers of a journal that begins anew start small.
	tb.replace([]control.Record{{Seq: 2, Name: "web", ID: "proc_9"}}, "j2", 2)
	tb.take([]control.Entry{entry(control.Record{Seq: 3, Name: "web", ID: "proc_9"})}, 3)
	if rec, _, err := tb.get("web"); err != nil || rec.ID != "proc_9" || rec.Seq != 3 {
		t.Errorf("%+v, %v", rec, err)
	}
}

// Of a batch only the newest record of each process is shown, those who wait are
// woken once, and no event is left out; one entry that cannot be read is told
// and holds nothing up.
func TestOneBatch(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		f.add(running("web", 1), false, "process.n0")
		s := serve(t, f, m)
		pass(time.Second)
		looks := 0
		waiting := make(chan error, 1)
		go func() {
			_, err := s.table.await(t.Context(), "web", func(r control.Record, _ *api.Definition) (bool, error) {
				looks++
				return r.State.Generation == 5, nil
			})
			waiting <- err
		}()
		synctest.Wait()
		f.mu.Lock() // so that all of it is one batch
		f.frames = append(f.frames, control.Frame{Seq: 2, Time: time.Now(), Key: "process/bad", Payload: []byte(`{"record":{"name":5}}`)})
		for g := uint64(2); g <= 5; g++ {
			rec := running("web", g)
			rec.Seq, rec.ID = g+1, "proc_web"
			f.write("process/web", control.Entry{Record: &rec, Events: []control.Event{{Type: fmt.Sprintf("process.n%d", g), Name: "web"}}})
		}
		f.mu.Unlock()
		synctest.Wait()
		if err := <-waiting; err != nil || looks != 2 {
			t.Errorf("looked %d times: %v", looks, err)
		}
		m.mu.Lock()
		var told []string
		for _, e := range m.events {
			if e.Type != "server.started" {
				told = append(told, e.Type)
			}
		}
		m.mu.Unlock()
		want := []string{"process.n0", "supervisor.journal_unreadable", "process.n2", "process.n3", "process.n4", "process.n5"}
		if !slices.Equal(told, want) {
			t.Errorf("told %v", told)
		}
		end(t, s)
	})
}

// What a process has asked for is heard by the server that is there, whichever
// supervisor wrote it down; a server that begins after the end of that supervisor
// does not end for it.
func TestWishOfAnEarlierSupervisor(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeSupervisor, m *memory) {
		wish := func(code int) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.write("supervisor", control.Entry{Exit: &code, Events: []control.Event{{Type: "supervisor.exit"}}})
		}
		wish(9)
		f.openSeq = f.last()
		s := serve(t, f, m)
		pass(time.Second)
		if code, asked := s.ExitCode(); asked {
			t.Errorf("it ends with %d, for what an earlier supervisor was asked", code)
		}
		wish(7)
		f.openSeq = f.last()
		info, err := f.Info(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.att.set(f, info) // the next supervisor
		pass(time.Second)
		if code, asked := s.ExitCode(); !asked || code != 7 {
			t.Errorf("asked %v, with %d: the wish of the supervisor before is lost", asked, code)
		}
		end(t, s)
	})
}
