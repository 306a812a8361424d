package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// Bounds of what runs of the program for its worker.
const (
	maxCommands  = 64
	maxCallbacks = 256
)

// calls runs what belongs to the program, so that none of it holds up the
// connection: each command in a goroutine of its own, callbacks one after the
// other.
type calls struct {
	within func(time.Duration) (context.Context, context.CancelFunc) // makes the context of one command
	cancel context.CancelFunc                                        // cancels all commands

	queue   chan func()
	quit    chan struct{} // ends the callbacks
	over    chan struct{} // closed when they have ended
	dropped atomic.Uint64 // callbacks that were too many

	mu      sync.Mutex
	byName  map[string]CommandFunc
	running int
	ended   bool          // no command is begun any more
	idle    chan struct{} // closed when ended and none runs
}

func newCalls(ctx context.Context, commands map[string]CommandFunc) *calls {
	ctx, cancel := context.WithCancel(ctx)
	c := &calls{
		within: func(d time.Duration) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) },
		cancel: cancel, queue: make(chan func(), maxCallbacks),
		quit: make(chan struct{}), over: make(chan struct{}), idle: make(chan struct{}),
		byName: map[string]CommandFunc{},
	}
	maps.Copy(c.byName, commands)
	go c.callbacks()
	return c
}

func (c *calls) callbacks() {
	defer close(c.over)
	for {
		select {
		case f := <-c.queue:
			f()
		case <-c.quit:
			return
		}
	}
}

// later runs f behind the callbacks that wait; when too many do it is dropped.
func (c *calls) later(f func()) {
	select {
	case c.queue <- f:
	default:
		c.dropped.Add(1)
	}
}

// set sets up a command.
func (c *calls) set(name string, f CommandFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName[name] = f
}

// any says whether commands are set up.
func (c *calls) any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byName) > 0
}

// command runs a command and gives its outcome to reply. It returns an error
// when it cannot be begun.
func (c *calls) command(cmd wire.Command, reply func(data json.RawMessage, err error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.byName[cmd.Command]
	switch {
	case f == nil:
		return fmt.Errorf("unknown command %q", cmd.Command)
	case c.ended:
		return errors.New("the program is about to end")
	case c.running == maxCommands:
		return fmt.Errorf("the program is busy with %d commands", maxCommands)
	}
	c.running++
	limit := time.Duration(cmd.TimeoutMs) * time.Millisecond
	if limit <= 0 {
		limit = 24 * time.Hour // none is said
	}
	ctx, cancel := c.within(limit)
	go func() {
		defer c.done()
		defer cancel()
		v, err := f(ctx, cmd.Data)
		var data json.RawMessage
		if err == nil {
			data, err = encode(v)
		}
		reply(data, err)
	}()
	return nil
}

func (c *calls) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if c.ended && c.running == 0 {
		close(c.idle)
	}
}

// end cancels the commands and waits for them until ctx ends.
func (c *calls) end(ctx context.Context) error {
	c.mu.Lock()
	c.ended = true
	if c.running == 0 {
		close(c.idle)
	}
	c.mu.Unlock()
	c.cancel()
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
		return errors.New("a command goes on although its context has ended")
	}
}

// finish ends the callbacks; those that wait are not run.
func (c *calls) finish(ctx context.Context) error {
	close(c.quit)
	select {
	case <-c.over:
		return nil
	case <-ctx.Done():
		return errors.New("a callback of the worker does not return")
	}
}

// OnCommand sets up what the program does when Perdure gives it the command. To
// have all commands from the beginning, put them into Options.Commands: after
// that the first one makes the worker connect anew.
func (w *Worker) OnCommand(name string, f CommandFunc) {
	if !w.addressed() {
		return
	}
	w.calls.set(name, f)
	w.nudge()
}

// obey runs a command of Perdure and replies.
func (w *Worker) obey(cmd wire.Command) {
	reply := func(data json.RawMessage, err error) { w.reply(cmd.ID, data, err) }
	if err := w.calls.command(cmd, reply); err != nil {
		w.reply(cmd.ID, nil, err)
	}
}

func (w *Worker) reply(to string, data json.RawMessage, err error) {
	s := wire.Sent{To: to, Data: data}
	if err != nil {
		text := err.Error()
		s.Error = &text
	}
	if putErr := w.put(wire.Reply, s); putErr != nil {
		w.o.Logger.Warn("Cannot reply to a command", "command", to, "error", putErr)
		if err == nil && !errors.Is(putErr, ErrFull) { // the data cannot be sent: that can be told
			w.reply(to, nil, fmt.Errorf("cannot send the reply: %w", putErr))
		}
	}
}
