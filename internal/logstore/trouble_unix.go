//go:build unix

package logstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fail begins the time in which nothing can be stored. Called with the lock.
func (s *Sink) fail() {
	s.failing, s.lost = true, 0
	s.watch(s.keepFor.Drop)
}

// watch stops or goes on to watch the FIFOs. Called with the lock.
func (s *Sink) watch(on bool) {
	for i, fd := range s.fifo {
		s.c.poll.pause(int(fd), s.slot, i, !on)
	}
}

// tell reports an error that began such a time. Called without the lock.
func (s *Sink) tell(err error, drops bool) {
	if err == nil {
		return
	}
	s.c.fail(s)
	what := "it waits"
	if drops {
		what = "it is discarded"
	}
	s.c.trouble(s.name, Trouble{Err: fmt.Errorf("cannot store the output of %q (%s): %w", s.name, what, err), Drops: drops})
}

// again tries to store what failed, or whether anything could be stored now.
func (s *Sink) again() {
	s.mu.Lock()
	if s.closed || !s.failing {
		s.mu.Unlock()
		return
	}
	err := s.retry()
	if err != nil {
		s.mu.Unlock()
		return
	}
	s.failing = false
	s.watch(true)
	t := Trouble{Drops: s.keepFor.Drop, Lost: s.lost}
	s.mu.Unlock()
	s.c.recovered(s)
	s.c.trouble(s.name, t)
}

func (s *Sink) retry() error {
	if !s.keepFor.Drop {
		return s.drain()
	}
	if err := s.room(); err != nil {
		return err
	}
	// What was discarded may have been the rest of a line.
	return s.endLines()
}

// roomSize is how much must fit before output is stored again: what a file has
// left of its last block is no room.
const roomSize = 64 << 10

// room says whether the place of the logs takes bytes.
func (s *Sink) room() error {
	dir := s.dir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, "room"+tempSuffix)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, roomSize))
	return errors.Join(err, f.Close(), os.Remove(path))
}

// discard takes at most limit bytes of a stream, and counts them. Called with
// the lock.
func (s *Sink) discard(stream, limit int) {
	s.lost += int64(len(s.stash[stream]))
	limit -= len(s.stash[stream])
	s.stash[stream] = nil
	b := make([]byte, copyBlock)
	for limit > 0 {
		n, err := unix.Read(int(s.fifo[stream]), b[:min(limit, len(b))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return // nothing waits (EAGAIN); its end is never concluded from a FIFO
		}
		s.lost += int64(n)
		limit -= n
	}
}
