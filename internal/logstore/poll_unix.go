//go:build unix && !linux

package logstore

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const fionread = 0x4004667f // FIONREAD, sys/filio.h of the BSDs and macOS

// ready is a stream that has bytes.
type ready struct {
	slot   uint32
	stream int
}

// poller watches FIFOs with poll(2): kqueue does not tell everything about
// FIFOs. A pipe to itself wakes it.
type poller struct {
	wake [2]int

	mu   sync.Mutex
	set  map[int]ready
	due  time.Time // of wakeIn; zero: none
	fds  []unix.PollFd
	gone bool
}

func newPoller() (*poller, error) {
	p := &poller{set: map[int]ready{}}
	if err := unix.Pipe(p.wake[:]); err != nil {
		return nil, err
	}
	for _, fd := range p.wake {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

func (p *poller) add(fd int, slot uint32, stream int) error {
	p.mu.Lock()
	p.set[fd] = ready{slot: slot, stream: stream}
	p.mu.Unlock()
	p.poke()
	return nil
}

func (p *poller) pause(fd int, slot uint32, stream int, on bool) {
	if on {
		p.remove(fd)
	} else {
		_ = p.add(fd, slot, stream) // never fails here
	}
}

func (p *poller) remove(fd int) {
	p.mu.Lock()
	delete(p.set, fd)
	p.mu.Unlock()
	p.poke()
}

// poke wakes wait; a full pipe does too.
func (p *poller) poke() { _, _ = unix.Write(p.wake[1], []byte{0}) }

func (p *poller) wakeIn(d time.Duration) {
	p.mu.Lock()
	p.due = time.Now().Add(d)
	p.mu.Unlock()
	p.poke()
}

func (p *poller) wait(to []ready) (_ []ready, timer bool, _ error) {
	for {
		p.mu.Lock()
		p.fds = append(p.fds[:0], unix.PollFd{Fd: int32(p.wake[0]), Events: unix.POLLIN})
		for fd := range p.set {
			p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		ms := -1
		if !p.due.IsZero() {
			ms = max(0, int(time.Until(p.due)/time.Millisecond)+1)
		}
		p.mu.Unlock()
		if _, err := unix.Poll(p.fds, ms); err != nil && err != unix.EINTR {
			return to, false, err
		}
		var b [64]byte
		_, _ = unix.Read(p.wake[0], b[:]) // only to make it unreadable
		p.mu.Lock()
		if timer = !p.due.IsZero() && !time.Now().Before(p.due); timer {
			p.due = time.Time{}
		}
		for _, f := range p.fds[1:] {
			if r, ok := p.set[int(f.Fd)]; ok && f.Revents != 0 {
				to = append(to, r)
			}
		}
		p.mu.Unlock()
		if len(to) > 0 || timer {
			return to, timer, nil
		}
	}
}

func (p *poller) close() error { return errors.Join(unix.Close(p.wake[0]), unix.Close(p.wake[1])) }

func (p *poller) openChildEnd(path string, _ int) (int, error) {
	return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

func setPipeSize(int, int) error { return unix.ENOTSUP }

// move copies: splice(2) is Linux's.
func (s *Sink) move(stream int, w *writer, limit int64) (int64, error) {
	return s.copyTo(stream, w, limit)
}
