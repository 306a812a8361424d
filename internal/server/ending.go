package server

import (
	"context"
	"sync"
	"sync/atomic"
)

// ending is how far a server is on its way to the end. Each step is taken once;
// the channels tell it to whoever waits.
type ending struct {
	asked    chan struct{} // closed when a process asked for the end
	stopping chan struct{} // closed when a shutdown begins
	done     chan struct{} // closed when the supervisor has said that everything is gone
	stopped  chan struct{} // closed when that is told, and with it the last events
	read     chan struct{} // closed when the journal is not read any more

	over atomic.Bool // the boot is over, as far as the journal is read

	mu       sync.Mutex // orders the steps
	exitCode int        // what was asked for; valid once asked is closed
}

func newEnding() *ending {
	return &ending{asked: make(chan struct{}), stopping: make(chan struct{}), done: make(chan struct{}), stopped: make(chan struct{}),
		read: make(chan struct{})}
}

// ask notes the exit code that a process wants. The first one counts.
func (e *ending) ask(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !isClosed(e.asked) {
		e.exitCode = code
		close(e.asked)
	}
}

// code is what was asked for, if anything was.
func (e *ending) code() (int, bool) {
	if !isClosed(e.asked) {
		return 0, false
	}
	return e.exitCode, true
}

// begin marks that a shutdown begins, and says whether it is the first one.
func (e *ending) begin() bool { return e.once(e.stopping) }

// finish marks that everything is proven gone.
func (e *ending) finish() { e.once(e.done) }

// reach marks that the end is told.
func (e *ending) reach() { e.once(e.stopped) }

// readToEnd marks that the journal is not read any more.
func (e *ending) readToEnd() { e.once(e.read) }

// awaitRead waits until the journal is not read any more.
func (e *ending) awaitRead(ctx context.Context) error {
	select {
	case <-e.read:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *ending) once(step chan struct{}) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if isClosed(step) {
		return false
	}
	close(step)
	return true
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
