package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/proc"
)

// passer is a fake that passes pipes which hold their own number.
type passer struct {
	*fake
	n     int
	reaps chan bool
	told  chan Reaped
	more  chan int // passes this one as well
	end   chan struct{}
}

func (p *passer) Pass(ctx context.Context, reaps bool, send func(Held) error) error {
	p.reaps <- reaps
	for i := range p.n {
		if err := p.pass(i, send); err != nil {
			return err
		}
	}
	for {
		select {
		case i := <-p.more:
			if err := p.pass(i, send); err != nil {
				return err
			}
		case <-p.end:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *passer) pass(i int, send func(Held) error) error {
	h, err := held(i)
	if err != nil {
		return err
	}
	defer CloseFDs(h.FDs)
	return send(h)
}

func (p *passer) Told(r Reaped) { p.told <- r }

// held is number i: three pipes, the first of which holds its text.
func held(i int) (Held, error) {
	h := Held{Name: fmt.Sprint("p", i), ID: fmt.Sprint("proc_", i), Generation: uint64(i + 1), Seq: uint64(100 + i),
		Identity: proc.Identity{BootID: "boot", PID: i + 10, StartTime: 7, Marker: strings.Repeat("x", i%3000)}}
	for k := range 3 {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return h, err
		}
		if k == 0 {
			if _, err := unix.Write(fds[1], []byte(h.Name)); err != nil {
				return h, err
			}
		}
		unix.Close(fds[1])
		h.FDs = append(h.FDs, fds[0])
	}
	return h, nil
}

// check holds that h is number i, with its own descriptors, and closes them.
func check(t *testing.T, h Held, i int) {
	t.Helper()
	want, err := held(i)
	if err != nil {
		t.Fatal(err)
	}
	CloseFDs(want.FDs)
	if len(h.FDs) != 3 {
		t.Fatalf("%s came with %d descriptors", h.Name, len(h.FDs))
	}
	b := make([]byte, 100)
	n, err := unix.Read(h.FDs[0], b)
	if err != nil || string(b[:n]) != want.Name {
		t.Errorf("the descriptor of %s is that of %q (%v)", h.Name, b[:n], err)
	}
	for _, fd := range h.FDs {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d of %s would be inherited (%v)", fd, h.Name, err)
		}
	}
	CloseFDs(h.FDs)
	h.FDs, want.FDs = nil, nil
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
}

func newPasser(n int) *passer {
	return &passer{fake: newFake(), n: n, reaps: make(chan bool, 9), told: make(chan Reaped, 9), more: make(chan int), end: make(chan struct{})}
}

func TestHoldPassesDescriptorsAndTellsExits(t *testing.T) {
	t.Parallel()
	p := newPasser(300)
	path, _ := serve(t, p, ServeOptions{})
	c := dial(t, path)
	exits := make(chan Reaped)
	got := make(chan Held)
	over := make(chan error, 1)
	go func() { over <- c.Hold(t.Context(), exits, func(h Held) { got <- h }) }()
	for i := range p.n {
		check(t, <-got, i)
	}
	if !<-p.reaps {
		t.Error("that the server reaps was not told")
	}
	want := Reaped{Identity: proc.Identity{BootID: "b", PID: 4, StartTime: 5}, Exit: proc.Exit{Code: 137, Signal: "SIGKILL", CoreDumped: true}}
	exits <- want
	if diff := cmp.Diff(want, <-p.told); diff != "" {
		t.Error(diff)
	}
	p.more <- 1234
	check(t, <-got, 1234)
	// Other requests go on beside it.
	if _, err := c.Info(t.Context()); err != nil {
		t.Error(err)
	}
	close(p.end)
	if err := <-over; api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("the end of the supervisor: %v", err)
	}
}

func TestHoldEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := newPasser(1)
	path, _ := serve(t, p, ServeOptions{})
	c := dial(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Hold(ctx, nil, func(h Held) {
		check(t, h, 0)
		cancel()
	})
	if err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
	if <-p.reaps {
		t.Error("a server that reaps nothing is said to")
	}
}

func TestASupervisorThatPassesNothingSaysSo(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, newFake(), ServeOptions{})
	c := dial(t, path)
	if err := c.Hold(t.Context(), nil, func(Held) { t.Error("something came") }); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("%v", err)
	}
}

// What was sent before a death is there after it: descriptors on their way are
// held by the kernel.
func TestHoldReadsWhatADeadSupervisorHasSent(t *testing.T) {
	t.Parallel()
	p := newPasser(50)
	path, stop := serve(t, p, ServeOptions{})
	c := dial(t, path)
	var all []Held
	first := make(chan struct{})
	dead := make(chan struct{})
	over := make(chan error, 1)
	go func() {
		over <- c.Hold(t.Context(), nil, func(h Held) {
			if len(all) == 0 {
				close(first)
				<-dead
			}
			all = append(all, h)
		})
	}()
	<-first
	<-p.reaps
	p.more <- 50 // so all before it are sent
	stop()
	close(dead)
	if err := <-over; err != nil {
		t.Logf("it ended with: %v", err) // how it ends is told elsewhere
	}
	if len(all) < 50 {
		t.Fatalf("%d came", len(all))
	}
	for i, h := range all {
		check(t, h, i)
	}
}

func TestHandOverIsTakenOver(t *testing.T) {
	t.Parallel()
	const n = 500 // more than a socket holds
	over, err := NewHandOver()
	if err != nil {
		t.Fatal(err)
	}
	var all []Held
	for i := range n {
		h, err := held(i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	all[3].Exit = &proc.Exit{Code: 9}
	fd, err := unix.Dup(int(over.Theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	over.Theirs.Close()
	var reaped []Reaped
	for i := range 1000 {
		reaped = append(reaped, Reaped{proc.Identity{BootID: "b", PID: i, StartTime: 1 << 60}, proc.Exit{Code: i, Signal: "SIGKILL"}})
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := over.HandOver(t.Context(), HandedOver{Held: all, Reaped: reaped, Reaps: true}); err != nil {
			t.Error(err)
		}
		for _, h := range all {
			CloseFDs(h.FDs)
		}
	})
	got, err := TakeOver(fd, time.Minute)
	sending.Wait()
	if err != nil || len(got.Held) != n || !got.Reaps || !slices.Equal(got.Reaped, reaped) {
		t.Fatalf("%d, %v: %v", len(got.Held), got.Reaps, err)
	}
	if x := got.Held[3].Exit; x == nil || x.Code != 9 {
		t.Errorf("%+v", x)
	}
	got.Held[3].Exit = nil
	for i, h := range got.Held {
		check(t, h, i)
	}
}

// A hand-over that is cut off, never comes, or is of another version keeps nobody
// from starting.
func TestTakeOverWithoutAnEnd(t *testing.T) {
	t.Parallel()
	pair := func() (*HandOver, int) {
		over, err := NewHandOver()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Dup(int(over.Theirs.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		over.Theirs.Close()
		return over, fd
	}
	over, fd := pair()
	h, err := held(0)
	if err == nil {
		err = sendFDs(t.Context(), over.conn, heldLine{Version: Version}, nil)
	}
	if err == nil {
		err = sendFDs(t.Context(), over.conn, heldLine{Held: &h, FDs: 3}, h.FDs)
	}
	if err != nil {
		t.Fatal(err)
	}
	CloseFDs(h.FDs)
	over.conn.Close()
	got, err := TakeOver(fd, time.Minute)
	if err == nil || len(got.Held) != 1 {
		t.Errorf("cut off: %d, %v", len(got.Held), err)
	} else {
		check(t, got.Held[0], 0)
	}

	over, fd = pair()
	if _, err := TakeOver(fd, time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("never: %v", err)
	}
	over.conn.Close()

	over, fd = pair()
	if err := sendFDs(t.Context(), over.conn, heldLine{Version: Version + 1}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeOver(fd, time.Minute); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("of another version: %v", err)
	}
	over.conn.Close()
	if _, err := TakeOver(1<<20, time.Minute); err == nil {
		t.Error("a descriptor that is none was taken over")
	}
}

// Where the system has no room for descriptors, the lines come without them and
// those after them are not mixed up. Not parallel: it lowers the limit of the
// whole process.
func TestDescriptorsWithoutRoom(t *testing.T) {
	over, err := NewHandOver()
	if err != nil {
		t.Fatal(err)
	}
	theirs := int(over.Theirs.Fd())
	fd, err := unix.Dup(theirs)
	if err != nil {
		t.Fatal(err)
	}
	over.Theirs.Close()
	conn, err := inherited(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := newFDReader(conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		h, err := held(i)
		if err == nil {
			err = sendFDs(t.Context(), over.conn, heldLine{Held: &h, FDs: 3}, h.FDs)
		}
		CloseFDs(h.FDs)
		if err != nil {
			t.Fatal(err)
		}
	}
	over.conn.Close()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	room := func(free int) {
		// The lowest free descriptor is the next one.
		next, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(next)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next + free), Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	next := func() (Held, []int) {
		l, fds, err := r.next()
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		if err != nil || l.Held == nil {
			t.Fatalf("%+v %v", l, err)
		}
		return *l.Held, fds
	}
	room(0)
	if h, fds := next(); h.Name != "p0" || fds != nil {
		t.Errorf("%s %v", h.Name, fds)
	}
	room(2)
	if h, fds := next(); h.Name != "p1" || fds != nil {
		t.Errorf("%s %v", h.Name, fds)
	}
	h, fds := next()
	h.FDs = fds
	check(t, h, 2)
}
