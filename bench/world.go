//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// birth is a program's word that it runs.
type birth struct {
	name string
	pid  int
	at   time.Time
}

// life is a program that said it runs; the pidfd names it for good.
type life struct {
	birth
	fd int
}

// world hears what the programs say and knows which of them live. Only the
// goroutine of the harness uses it; one other goroutine receives.
type world struct {
	path   string
	sock   int
	births chan birth
	gone   chan struct{}
	// lives holds all that were born under a name and are not known to be gone.
	lives map[string][]life
}

func newWorld(path string) (*world, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make the socket of the programs: %w", err)
	}
	if err := unix.Bind(sock, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("cannot bind %s: %w", path, err)
	}
	// A row may run a program as somebody else.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, err
	}
	w := &world{path: path, sock: sock, births: make(chan birth, 8192), gone: make(chan struct{}), lives: map[string][]life{}}
	go w.receive()
	return w, nil
}

// receive stamps each word as it comes. It blocks in the kernel on a thread of
// its own, because a wake-up through the poller would be measured as well.
func (w *world) receive() {
	defer close(w.gone)
	runtime.LockOSThread()
	buf := make([]byte, 512)
	for {
		n, _, err := unix.Recvfrom(w.sock, buf, 0)
		at := time.Now()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		name, text, _ := strings.Cut(string(buf[:n]), " ")
		pid, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		w.births <- birth{name, pid, at}
	}
}

func (w *world) close() {
	_ = unix.Shutdown(w.sock, unix.SHUT_RDWR) // wakes receive
	<-w.gone
	_ = unix.Close(w.sock)
}

// note keeps a birth with its pidfd.
func (w *world) note(b birth) {
	fd, err := unix.PidfdOpen(b.pid, 0)
	if err != nil {
		return // it is gone already
	}
	w.lives[b.name] = append(w.lives[b.name], life{b, fd})
}

// next waits until name is born.
func (w *world) next(ctx context.Context, name string, limit time.Duration) (birth, error) {
	b, err := w.all(ctx, []string{name}, limit)
	return b[name], err
}

// all waits until each of names is born once from now on.
func (w *world) all(ctx context.Context, names []string, limit time.Duration) (map[string]birth, error) {
	missing := make(map[string]bool, len(names))
	for _, n := range names {
		missing[n] = true
	}
	out := make(map[string]birth, len(names))
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for len(missing) > 0 {
		select {
		case b := <-w.births:
			w.note(b)
			if missing[b.name] {
				delete(missing, b.name)
				out[b.name] = b
			}
		case <-timer.C:
			return out, fmt.Errorf("%d of %d programs did not run within %s", len(missing), len(names), limit)
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
	return out, nil
}

// listen takes births for the whole of d.
func (w *world) listen(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case b := <-w.births:
			w.note(b)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// quiet takes births until none has come for d, or the limit is over.
func (w *world) quiet(ctx context.Context, d, limit time.Duration) {
	end := time.Now().Add(limit)
	for left := d; left > 0 && ctx.Err() == nil; left = min(d, time.Until(end)) {
		timer := time.NewTimer(left)
		select {
		case b := <-w.births:
			w.note(b)
			timer.Stop()
		case <-timer.C:
			return
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// drain takes what has been said so far.
func (w *world) drain() {
	for {
		select {
		case b := <-w.births:
			w.note(b)
		default:
			return
		}
	}
}

// alive returns who lives under a prefix, and forgets the others.
func (w *world) alive(prefix string) []life {
	w.drain()
	var out []life
	for name, list := range w.lives {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		var rest []life
		for _, l := range list {
			if ended(l.fd, 0) {
				_ = unix.Close(l.fd)
				continue
			}
			rest = append(rest, l)
		}
		if len(rest) == 0 {
			delete(w.lives, name)
			continue
		}
		w.lives[name] = rest
		out = append(out, rest...)
	}
	return out
}

// ended waits up to d for the process of a pidfd to end (pidfd_open(2): it
// becomes readable).
func ended(fd int, d time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(d); ; {
		n, err := unix.Poll(p, int(max(0, time.Until(deadline)).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}

// allEnded waits until nobody under prefix lives and returns the survivors.
func (w *world) allEnded(prefix string, d time.Duration) int {
	deadline := time.Now().Add(d)
	n := 0
	for _, l := range w.alive(prefix) {
		if !ended(l.fd, time.Until(deadline)) {
			n++
		}
	}
	return n
}

// sweep kills what is left under a prefix.
func (w *world) sweep(prefix string) {
	for _, l := range w.alive(prefix) {
		_ = unix.PidfdSendSignal(l.fd, unix.SIGKILL, nil, 0) // it may have ended by itself
		ended(l.fd, 2*time.Second)
	}
	w.alive(prefix)
}
