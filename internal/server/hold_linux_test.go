package server

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// passingFake is a supervisor that passes what a test says.
type passingFake struct {
	*mortalFake
	pass  chan control.Held
	exits chan control.Reaped // what it was told
	deny  bool
}

func newPassing(f *fakeSupervisor) *passingFake {
	return &passingFake{mortalFake: &mortalFake{fakeSupervisor: f, pid: 1, lost: make(chan struct{})},
		pass: make(chan control.Held, 10), exits: make(chan control.Reaped, 10)}
}

func (p *passingFake) Hold(ctx context.Context, exits <-chan control.Reaped, take func(control.Held)) error {
	if p.deny {
		return api.Errorf(api.CodeInvalid, "no such method")
	}
	lost := api.Errorf(api.CodeUnavailable, "the connection is lost")
	for {
		select {
		case h := <-p.pass:
			take(h)
			continue
		default: // what was passed before a death is read to its end
		}
		select {
		case h := <-p.pass:
			take(h)
		case x := <-exits:
			p.exits <- x
		case <-p.lost:
			if len(p.pass) == 0 {
				return lost
			}
		case <-ctx.Done():
			return lost
		}
	}
}

// fd is a new descriptor.
func fd(t *testing.T) int {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// held is a generation with as many descriptors.
func held(t *testing.T, name string, generation uint64, seq uint64, fds int) control.Held {
	t.Helper()
	h := control.Held{Name: name, ID: "proc_" + name, Generation: generation, Seq: seq,
		Identity: proc.Identity{BootID: "b", PID: 100 + int(generation), StartTime: generation, Marker: "PERDURE_ID=proc_" + name}}
	for range fds {
		h.FDs = append(h.FDs, fd(t))
	}
	return h
}

func openFDs(t *testing.T, fds ...int) (open int) {
	t.Helper()
	for _, n := range fds {
		if isOpen(n) {
			open++
		}
	}
	return open
}

// journaled is a journal entry of a process in a state.
func journaled(name string, s supervise.State) control.Entry {
	return control.Entry{Record: &control.Record{ID: "proc_" + name, Name: name, State: s}}
}

func TestHolderLetsGoOfWhatIsOver(t *testing.T) {
	t.Parallel()
	alive := supervise.State{Generation: 1, Alive: true, PID: 101}
	exited := alive
	exited.PID, exited.Exit = 0, &supervise.Exit{Generation: 1}
	for name, c := range map[string]struct {
		state supervise.State
		want  int // of three
	}{
		"alive":           {alive, 3},
		"exited, rest":    {exited, 2},
		"gone":            {supervise.State{Generation: 1}, 2},
		"being started":   {supervise.State{Generation: 1, SpawnPending: true}, 3},
		"next is started": {supervise.State{Generation: 2, SpawnPending: true, Exit: exited.Exit}, 2},
		"before it":       {supervise.State{Generation: 0}, 3},
	} {
		for _, order := range []string{"passed first", "read first"} {
			h, known := newHolder(slog.New(slog.DiscardHandler), false), newTable()
			x := held(t, "web", 1, 5, 3)
			fds := slices.Clone(x.FDs)
			known.replace([]control.Record{{Name: "web", ID: "proc_web"}}, "j", 5)
			if order == "passed first" {
				h.take(x, known)
				h.read(journaled("web", c.state))
			} else {
				h.read(journaled("web", c.state))
				h.take(x, known)
			}
			want := c.want
			if order == "read first" && want == 2 {
				want = 0 // nothing of it is of use any more
			}
			if n := openFDs(t, fds...); n != want || h.open != want {
				t.Errorf("%s, %s: %d descriptors are held, counted as %d; want %d", name, order, n, h.open, want)
			}
			removed := journaled("web", c.state)
			removed.Removed = true
			h.read(removed)
			if n := openFDs(t, fds...); n != 0 || h.open != 0 || len(h.items) != 0 || len(h.ends) != 0 {
				t.Errorf("%s, %s: after the removal %d are held", name, order, n)
			}
		}
	}
}

// Each process has one place; FIFOs stay over generations, and what the next
// supervisor passes again is not held twice.
func TestHolderKeepsOneOfEach(t *testing.T) {
	t.Parallel()
	h, known := newHolder(slog.New(slog.DiscardHandler), false), newTable()
	known.replace([]control.Record{{Name: "web", ID: "proc_web"}}, "j", 5)
	first, again := held(t, "web", 1, 5, 3), held(t, "web", 1, 6, 3)
	h.take(first, known)
	h.take(again, known)
	if openFDs(t, first.FDs...) != 3 || openFDs(t, again.FDs...) != 0 || h.open != 3 {
		t.Error("the same is held twice")
	}
	second := held(t, "web", 2, 7, 1)
	h.take(second, known)
	if openFDs(t, first.FDs[0]) != 0 || openFDs(t, first.FDs[1:]...) != 2 || openFDs(t, second.FDs...) != 1 || h.open != 3 {
		t.Error("the FIFOs do not stay")
	}
	third := held(t, "web", 3, 8, 3)
	h.take(third, known)
	if openFDs(t, first.FDs...)+openFDs(t, second.FDs...) != 0 || openFDs(t, third.FDs...) != 3 || h.open != 3 {
		t.Error("what was before is held too")
	}
	other := held(t, "web", 1, 9, 2)
	other.ID = "proc_new"
	h.take(other, known)
	if openFDs(t, third.FDs...) != 0 || openFDs(t, other.FDs...) != 2 || h.open != 2 {
		t.Error("what another process of the name had is held")
	}
	// A process that the journal, read so far, does not know was removed.
	late, early := held(t, "old", 1, 5, 3), held(t, "new", 1, 6, 3)
	h.take(late, known)
	h.take(early, known)
	if openFDs(t, late.FDs...) != 0 || openFDs(t, early.FDs...) != 3 {
		t.Error("what was removed is held, or what is new is not")
	}
	known.replace([]control.Record{{Name: "web", ID: "proc_new"}}, "j", 6)
	h.prune(known)
	if openFDs(t, early.FDs...) != 0 || h.open != 2 {
		t.Error("what is not in the list is held")
	}
	if err := h.close(); err != nil || openFDs(t, other.FDs...) != 0 || h.open != 0 {
		t.Errorf("after close %d are held, %v", h.open, err)
	}
}

// What there is no room for is told, until it is over.
func TestHolderWithoutRoom(t *testing.T) {
	t.Parallel()
	h, known := newHolder(slog.New(slog.DiscardHandler), false), newTable()
	h.room = 4
	a, b, c := held(t, "a", 1, 5, 3), held(t, "b", 1, 5, 3), held(t, "c", 4, 5, 0)
	for _, x := range []control.Held{a, b, c} {
		h.take(x, known)
	}
	if n := openFDs(t, slices.Concat(a.FDs, b.FDs)...); n != 3 {
		t.Errorf("%d are held", n)
	}
	if held, refused := h.counts(); held != 1 || refused != 2 {
		t.Errorf("%d held, %d refused", held, refused)
	}
	h.read(journaled("b", supervise.State{Generation: 2, Alive: true}))
	h.read(journaled("c", supervise.State{Generation: 4, Alive: true}))
	if held, refused := h.counts(); held != 1 || refused != 1 {
		t.Errorf("%d held, %d refused", held, refused)
	}
	if err := h.close(); err != nil {
		t.Error(err)
	}
}

// All that a supervisor has passed before its death is taken, exits of orphans
// are told to the next one, and handed over where they came first.
func TestHolderOverADeath(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h, known := newHolder(slog.New(slog.DiscardHandler), true), newTable()
			first := newPassing(newFake())
			h.follow(t.Context(), first, known)
			synctest.Wait()
			x, y := held(t, "web", 1, 5, 3), held(t, "api", 2, 5, 1)
			exit := proc.Exit{Code: 9}
			bare := proc.Identity{BootID: "b", PID: x.Identity.PID, StartTime: x.Identity.StartTime}
			if late {
				h.reaped(bare, exit) // before we are told whose it is
			}
			first.pass <- x
			first.pass <- y
			first.die()
			h.finish()
			if !late {
				h.reaped(bare, exit)
			}
			handing := h.handOver()
			if handing == nil || len(handing.items) != 2 || !handing.reaps {
				t.Fatalf("%+v", handing)
			}
			for _, it := range handing.items {
				want := 1
				if it.Name == "web" {
					want = 3
				}
				if len(it.FDs) != want || (it.Exit != nil) != (it.Name == "web") {
					t.Errorf("handed over %+v", it)
				}
			}
			handing.send(t.Context()) // to nobody: it does not hang
			_ = handing.over.Theirs.Close()
			handing.wait()

			next := newPassing(newFake())
			h.follow(t.Context(), next, known)
			want := control.Reaped{Identity: x.Identity, Exit: exit}
			if diff := cmp.Diff(want, <-next.exits); diff != "" {
				t.Error(diff)
			}
			h.reaped(proc.Identity{BootID: "b", PID: y.Identity.PID, StartTime: y.Identity.StartTime}, exit)
			if got := <-next.exits; got.Identity != y.Identity {
				t.Errorf("%+v", got)
			}
			h.read(journaled("web", supervise.State{Generation: 1}))
			synctest.Wait()
			began := time.Now()
			if err := h.close(); err != nil || time.Since(began) > 0 {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
			if len(next.exits) != 0 {
				t.Errorf("told again: %+v", <-next.exits)
			}
		})
	}
}

// A supervisor of before this, or one that lives on behind a lost connection,
// holds nobody up.
func TestHolderIsNotHeldUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHolder(slog.New(slog.DiscardHandler), false)
		old := newPassing(newFake())
		old.deny = true
		h.follow(t.Context(), old, newTable())
		h.finish()
		live := newPassing(newFake())
		h.follow(t.Context(), live, newTable())
		synctest.Wait()
		began := time.Now()
		h.finish()
		if d := time.Since(began); d != lastPassed {
			t.Errorf("after %s", d)
		}
		if h.handOver() != nil {
			t.Error("nothing is handed over")
		}
		var none *holder
		none.follow(t.Context(), live, nil)
		none.read(control.Entry{})
		none.prune(nil)
		none.finish()
		none.handOver().wait()
		if err := none.close(); err != nil {
			t.Error(err)
		}
	})
}

// Strangers are forgotten, the oldest first.
func TestStraysAreBounded(t *testing.T) {
	t.Parallel()
	h := newHolder(slog.New(slog.DiscardHandler), true)
	for i := range 10 * maxStrays {
		h.reaped(proc.Identity{BootID: "b", PID: i}, proc.Exit{})
	}
	if n := len(h.strays); n > maxStrays || h.strays[n-1].Identity.PID != 10*maxStrays-1 {
		t.Errorf("%d, the last %+v", n, h.strays[n-1])
	}
	// One of them may have been started just before the supervisor died.
	handing := h.handOver()
	if handing == nil || !slices.Equal(handing.reaped, h.strays) {
		t.Errorf("handed over: %+v", handing)
	}
	_ = handing.over.Theirs.Close()
	handing.send(t.Context())
	handing.wait()
}
