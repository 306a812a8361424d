//go:build unix

package logstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/internal/fault"
)

const (
	// turn is how many bytes of one FIFO are moved before the next has its turn.
	turn = 1 << 20
	// firstPipe is the size of a FIFO on Linux (pipe(7)); lastPipe is what a busy
	// one is grown to, the default limit of /proc/sys/fs/pipe-max-size.
	firstPipe = 64 << 10
	lastPipe  = 1 << 20
	// fullTurns is how often a FIFO must be found full to be grown.
	fullTurns = 8
)

// Sink stores the output of one process. All methods may be called from any
// goroutine. An idle Sink takes no goroutine and few hundred bytes.
type Sink struct {
	c       *Capture
	name    string
	keepFor Retention
	next    int64 // the offset behind the last byte; valid when w is nil

	mu      sync.Mutex
	w       *writer   // nil until the first byte
	stash   [2][]byte // bytes that were read and could not be written; not used with splice
	fifo    [2]int32
	slot    uint32
	full    [2]uint8 // how often in sequence the FIFO was found full
	size    [2]uint8 // how often it was grown
	failing bool     // nothing can be stored: the FIFOs are not read, or discarded
	lost    int64    // bytes that were discarded since then
	copying bool     // the file system cannot splice
	adopted bool     // it was looked whether an earlier capture has left files
	closed  bool
}

func fifoPath(runDir, name string, stream int) string {
	if stream == 0 {
		return filepath.Join(runDir, name+".out")
	}
	return filepath.Join(runDir, name+".err")
}

// openFIFO makes the FIFO where it does not exist and opens the capture's end.
func openFIFO(path string) (int, error) {
	made := unix.Mkfifo(path, 0o600)
	if made != nil && made != unix.EEXIST {
		return -1, fmt.Errorf("cannot make the FIFO %s: %w", path, made)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the FIFO %s: %w", path, err)
	}
	if made == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			unix.Close(fd)
			return -1, fmt.Errorf("cannot use %s: it is not a FIFO (remove it)", path)
		}
	}
	return fd, nil
}

// FIFOs returns new descriptors of both FIFOs, close-on-exec, for another process
// to hold: while any is held, output that waits in them outlives a capture and a
// child that are both killed, and Open takes it up. The caller closes them and
// does not read.
func (s *Sink) FIFOs() ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	var out []int
	for _, fd := range s.fifo {
		held, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("cannot hold the output of %q: %w", s.name, err)
		}
		out = append(out, held)
	}
	return out, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// takeFIFO takes a FIFO over that was held for us.
func takeFIFO(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("cannot take descriptor %d over: it is not a FIFO", fd)
	}
	unix.CloseOnExec(fd)
	return unix.SetNonblock(fd, true)
}

func openPair(open func(int) (*os.File, error)) (a, b *os.File, err error) {
	if a, err = open(0); err != nil {
		return nil, nil, err
	}
	if b, err = open(1); err != nil {
		_ = a.Close() // nothing was written
		return nil, nil, err
	}
	return a, b, nil
}

// ChildEnds opens the ends for one generation of the process: blocking, for
// reading and writing. The caller closes them after the start.
func (s *Sink) ChildEnds() (stdout, stderr *os.File, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	return openPair(func(i int) (*os.File, error) {
		path := fifoPath(s.c.o.RunDir, s.name, i)
		fd, err := s.c.poll.openChildEnd(path, int(s.fifo[i]))
		if err != nil {
			return nil, fmt.Errorf("cannot open the output of %q: %w", s.name, err)
		}
		return os.NewFile(uintptr(fd), path), nil
	})
}

// Configure changes the retention; it holds from the next byte on.
func (s *Sink) Configure(r Retention) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepFor = r.normal()
	if s.failing && !s.closed {
		s.watch(s.keepFor.Drop)
	}
}

// serve moves one turn of a stream. Called by the capture's loop.
func (s *Sink) serve(stream int) {
	s.mu.Lock()
	if s.closed || s.failing {
		if !s.closed && s.keepFor.Drop {
			s.discard(stream, turn)
		}
		s.mu.Unlock()
		return
	}
	_, err := s.pump(stream, turn)
	drops := s.keepFor.Drop
	if err != nil {
		s.fail()
	}
	s.mu.Unlock()
	s.tell(err, drops)
}

// pump moves at most limit bytes of a stream into the segment. Called with the
// lock.
func (s *Sink) pump(stream int, limit int64) (int64, error) {
	now := nowMicros()
	w, err := s.ready(now)
	if err != nil {
		return 0, err
	}
	tag := tagStdout + uint16(stream)
	if err := w.mark(tag, now); err != nil {
		return 0, err
	}
	limit = max(1, min(limit, 2*s.keepFor.MaxSize-w.size()))
	n, err := s.move(stream, w, limit)
	if errors.Is(err, unix.EFBIG) && n == 0 && w.off > 0 {
		// A limit of file sizes (setrlimit(2)) that is below ours.
		if err = s.rotate(); err == nil {
			return s.pump(stream, limit)
		}
	}
	if n > 0 {
		fault.Here("logstore.move.after")
		w.off += n
		w.end[stream] = w.off
		w.open = true
	}
	s.grow(stream, n)
	if err != nil {
		return n, fmt.Errorf("cannot write a log: %w", err)
	}
	return n, nil
}

// ready returns the writer for the next byte, after opening or rotating.
func (s *Sink) ready(micros int64) (*writer, error) {
	if s.w == nil {
		w, err := openWriter(s.dir(), s.next)
		if err != nil {
			return nil, err
		}
		s.w = w
		if len(w.closed) > 0 {
			return w, s.closedOne()
		}
		return w, nil
	}
	if s.w.due(s.keepFor, micros) || s.w.lost(micros) {
		return s.w, s.rotate()
	}
	return s.w, nil
}

func (s *Sink) rotate() error {
	if err := s.w.begin(s.w.base + s.w.off); err != nil {
		return err
	}
	return s.closedOne()
}

// closedOne does what is owed after a segment was closed.
func (s *Sink) closedOne() error {
	if err := s.w.prune(s.keepFor); err != nil {
		return err
	}
	if s.keepFor.Compress && len(s.w.closed) > 0 {
		s.c.keep.pack(s.name, s.w.dir)
	}
	return nil
}

func (s *Sink) dir() string { return filepath.Join(s.c.o.LogDir, s.name) }

// grow enlarges a FIFO that is found full again and again. A system that
// refuses is asked no more.
func (s *Sink) grow(stream int, n int64) {
	if n < firstPipe<<(2*s.size[stream]) {
		s.full[stream] = 0
		return
	}
	if s.full[stream]++; s.full[stream] < fullTurns || firstPipe<<(2*s.size[stream]) >= lastPipe {
		s.full[stream] = min(s.full[stream], fullTurns)
		return
	}
	s.size[stream]++
	s.full[stream] = 0
	if setPipeSize(int(s.fifo[stream]), firstPipe<<(2*s.size[stream])) != nil {
		s.size[stream] = 2 // the greatest step
	}
}

// Drain stores everything that is in the FIFOs now, and marks the end of a
// generation: a last line without an end becomes a line. It is called when the
// process is proven gone, before its exit is told. On an error the bytes stay in
// the FIFO and are stored later.
func (s *Sink) Drain() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	begins, drops := !s.failing, s.keepFor.Drop
	err := s.drain()
	if err == nil && s.w == nil && !s.adopted {
		err = s.adopt()
		s.adopted = err == nil
	}
	if err == nil && !(s.failing && drops) {
		err = s.endLines()
	}
	begins = begins && err != nil
	if begins {
		s.fail()
	}
	if err != nil && drops {
		err = errors.Join(err, s.drain()) // which discards
	}
	s.mu.Unlock()
	if begins {
		s.tell(err, drops)
	}
	if err != nil && !drops {
		return fmt.Errorf("cannot store the last output of %q (it is kept in the FIFO): %w", s.name, err)
	}
	return nil
}

// endLines marks that what comes next is no continuation of a line.
func (s *Sink) endLines() error {
	if s.w == nil || !s.w.open {
		return nil
	}
	err := s.w.mark(tagBreak, nowMicros())
	if err == nil {
		s.w.open = false
	}
	return err
}

// adopt opens the writer if there are files: a line that an earlier capture
// stored may be open in them.
func (s *Sink) adopt() error {
	_, err := os.Lstat(s.dir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = s.ready(nowMicros())
	}
	return err
}

// drain moves as many bytes as wait at its beginning: one that still writes
// cannot hold it. While nothing can be stored it discards them, where that is
// the policy.
func (s *Sink) drain() error {
	for stream, fd := range s.fifo {
		left, err := unix.IoctlGetInt(int(fd), fionread)
		if err != nil {
			return fmt.Errorf("cannot ask a FIFO: %w", err)
		}
		left += len(s.stash[stream])
		if s.failing && s.keepFor.Drop {
			s.discard(stream, left)
			continue
		}
		for left > 0 {
			n, err := s.pump(stream, int64(left))
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			left -= int(n)
		}
	}
	return nil
}

// Rotate closes the segment that is written, if it has any byte.
func (s *Sink) Rotate() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.w == nil {
		w, err := openWriter(s.dir(), s.next)
		if err != nil {
			return err
		}
		s.w = w
	}
	if s.w.off == 0 {
		return nil
	}
	return s.rotate()
}

// Reopen looks again for the files, for when another program moved or removed
// them. No byte is lost.
func (s *Sink) Reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.release()
	return nil
}

// release closes the writer; the next byte opens one.
func (s *Sink) release() {
	if s.w != nil {
		s.next = s.w.base + s.w.off
		s.w.close()
		s.w, s.adopted = nil, false
	}
}

// age closes the segment and removes closed ones when they are too old.
func (s *Sink) age() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.keepFor.MaxAge == 0 {
		return nil
	}
	// Counted on from the beginning, so that a wall clock that is set forward takes
	// no logs with it.
	now := s.c.born.Add(time.Since(s.c.born))
	if s.w != nil && s.w.due(s.keepFor, now.UnixMicro()) {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	return removeOld(s.dir(), now.Add(-s.keepFor.MaxAge))
}

// Close ends the capture of this process. Its FIFOs and files stay.
func (s *Sink) Close() error {
	s.c.mu.Lock()
	s.c.forgetLocked(s)
	s.c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for _, fd := range s.fifo {
		s.c.poll.remove(int(fd))
	}
	err := s.flushStash()
	s.release()
	for _, fd := range s.fifo {
		unix.Close(int(fd))
	}
	return err
}

// flushStash stores what a copying capture has read already.
func (s *Sink) flushStash() error {
	var err error
	for stream := range s.stash {
		for len(s.stash[stream]) > 0 && err == nil {
			_, err = s.pump(stream, int64(len(s.stash[stream])))
		}
	}
	return err
}

// copyBlock is how much a capture that cannot splice takes at once.
const copyBlock = 64 << 10

// copyTo moves by read and write, for systems and files that cannot splice.
// What was read and cannot be written is kept until it can.
func (s *Sink) copyTo(stream int, w *writer, limit int64) (int64, error) {
	if len(s.stash[stream]) == 0 {
		b := make([]byte, min(limit, copyBlock))
		n, err := unix.Read(int(s.fifo[stream]), b)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		s.stash[stream] = b[:n]
	}
	b := s.stash[stream]
	n, err := pwrite(w.log, b, w.off)
	if n < 0 {
		n = 0
	}
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	if s.stash[stream] = b[n:]; len(b) == n {
		s.stash[stream] = nil
	}
	return int64(n), err
}
