//go:build unix

package logstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// retryStep is how often output that cannot be stored is tried again.
const retryStep = time.Second

// Capture stores the output of many processes with one goroutine. All methods
// may be called from any goroutine.
type Capture struct {
	o    Options
	born time.Time // of the capture
	poll *poller
	keep *keeper
	done chan struct{}

	// mu guards what follows; it is taken before a Sink's lock, never after.
	mu      sync.Mutex
	sinks   map[string]*Sink
	slots   []*Sink // by the number that the poller knows
	free    []uint32
	failed  map[*Sink]struct{}
	closing bool
}

// NewCapture makes the directories and starts the capture. The caller closes it.
func NewCapture(o Options) (*Capture, error) {
	for _, d := range []string{o.LogDir, o.RunDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("cannot make a log directory: %w", err)
		}
	}
	p, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("cannot watch for output: %w", err)
	}
	c := &Capture{o: o, born: time.Now(), poll: p, done: make(chan struct{}), sinks: map[string]*Sink{}, failed: map[*Sink]struct{}{}}
	c.keep = newKeeper(c.sweep, c.report)
	go c.keep.run()
	go c.loop()
	return c, nil
}

// Open makes the FIFOs of a process where they do not exist and begins to store
// what comes through them; what waits in them from before is stored too. Held
// are FIFOs of an earlier Sink of the process that somebody has held (FIFOs):
// with them none are looked for, and they are taken over, except with an error.
// Files in LogDir are made with the first byte. A name can be open once.
func (c *Capture) Open(name string, r Retention, held ...int) (*Sink, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	s := &Sink{c: c, name: name, keepFor: r.normal()}
	opened, err := s.openFIFOs(c.o.RunDir, held)
	if err != nil {
		return nil, err
	}
	if err := c.enter(s); err != nil {
		closeAll(opened)
		return nil, err
	}
	return s, nil
}

// openFIFOs sets the ends that the capture reads and returns those that were
// opened here.
func (s *Sink) openFIFOs(runDir string, held []int) (opened []int, err error) {
	for i := range s.fifo {
		var fd int
		if i < len(held) {
			fd, err = held[i], takeFIFO(held[i])
		} else if fd, err = openFIFO(fifoPath(runDir, s.name, i)); err == nil {
			opened = append(opened, fd)
		}
		if err != nil {
			closeAll(opened)
			return nil, err
		}
		s.fifo[i] = int32(fd)
	}
	return opened, nil
}

// enter makes the Sink known and watches its FIFOs. With an error they are the
// caller's again.
func (c *Capture) enter(s *Sink) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.sinks[s.name] != nil {
		if c.closing {
			return ErrClosed
		}
		return fmt.Errorf("cannot open the logs of %q twice", s.name)
	}
	if n := len(c.free); n > 0 {
		s.slot, c.free = c.free[n-1], c.free[:n-1]
	} else {
		s.slot = uint32(len(c.slots))
		c.slots = append(c.slots, nil)
	}
	c.slots[s.slot], c.sinks[s.name] = s, s
	for i, fd := range s.fifo {
		if err := c.poll.add(int(fd), s.slot, i); err != nil {
			c.forgetLocked(s)
			for _, fd := range s.fifo[:i] {
				c.poll.remove(int(fd))
			}
			return fmt.Errorf("cannot watch the output of %q: %w", s.name, err)
		}
	}
	return nil
}

// Remove closes the Sink of name if it is open, and removes its FIFOs and logs.
func (c *Capture) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	c.mu.Lock()
	s := c.sinks[name]
	c.mu.Unlock()
	if s != nil {
		if err := s.Close(); err != nil {
			return err
		}
	}
	c.keep.forget(name)
	return errors.Join(
		removeFile(fifoPath(c.o.RunDir, name, 0)),
		removeFile(fifoPath(c.o.RunDir, name, 1)),
		os.RemoveAll(filepath.Join(c.o.LogDir, name)))
}

// Close ends the capture and closes all Sinks. FIFOs and files stay, and so do
// the processes: they wait when a FIFO is full, until the next capture.
func (c *Capture) Close() error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		<-c.done
		return nil
	}
	c.closing = true
	sinks := make([]*Sink, 0, len(c.sinks))
	for _, s := range c.sinks {
		sinks = append(sinks, s)
	}
	c.mu.Unlock()
	c.poll.wakeIn(time.Nanosecond)
	<-c.done
	c.keep.close()
	var err error
	for _, s := range sinks {
		err = errors.Join(err, s.Close())
	}
	return errors.Join(err, c.poll.close())
}

func (c *Capture) forgetLocked(s *Sink) {
	if c.sinks[s.name] != s {
		return
	}
	delete(c.sinks, s.name)
	delete(c.failed, s)
	c.slots[s.slot] = nil
	c.free = append(c.free, s.slot)
}

func (c *Capture) report(name string, err error) {
	if c.o.OnError != nil {
		c.o.OnError(name, err)
	}
}

func (c *Capture) trouble(name string, t Trouble) {
	if c.o.OnTrouble != nil {
		c.o.OnTrouble(name, t)
	}
}

// loop serves each FIFO that has bytes, a bounded piece in turn.
func (c *Capture) loop() {
	defer close(c.done)
	var batch []ready
	for {
		var timer bool
		var err error
		batch, timer, err = c.poll.wait(batch[:0])
		if err != nil {
			// The poller is ours alone: an error is a broken invariant, told once.
			c.report("", fmt.Errorf("cannot watch for output any more: %w", err))
			return
		}
		for _, r := range batch {
			c.mu.Lock()
			var s *Sink
			if int(r.slot) < len(c.slots) {
				s = c.slots[r.slot]
			}
			c.mu.Unlock()
			if s != nil {
				s.serve(r.stream)
			}
		}
		if timer && !c.retry() {
			return
		}
	}
}

// retry tries the Sinks that failed; false says that the capture closes.
func (c *Capture) retry() bool {
	c.mu.Lock()
	closing := c.closing
	sinks := make([]*Sink, 0, len(c.failed))
	for s := range c.failed {
		sinks = append(sinks, s)
	}
	c.mu.Unlock()
	if closing {
		return false
	}
	for _, s := range sinks {
		s.again()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.failed) > 0 && !c.closing {
		c.poll.wakeIn(retryStep)
	}
	return !c.closing
}

// fail keeps s for retry.
func (c *Capture) fail(s *Sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sinks[s.name] != s || c.closing {
		return
	}
	if len(c.failed) == 0 {
		c.poll.wakeIn(retryStep)
	}
	c.failed[s] = struct{}{}
}

func (c *Capture) recovered(s *Sink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.failed, s)
}

// sweep rotates and removes by age.
func (c *Capture) sweep() {
	c.mu.Lock()
	sinks := make([]*Sink, 0, len(c.sinks))
	for _, s := range c.sinks {
		sinks = append(sinks, s)
	}
	c.mu.Unlock()
	for _, s := range sinks {
		if err := s.age(); err != nil {
			c.report(s.name, err)
		}
	}
}
