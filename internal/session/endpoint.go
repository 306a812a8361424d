package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// Endpoint is where the workers of one process connect. Its methods may be
// called from any goroutine; the fields are guarded by the hub's lock.
type Endpoint struct {
	hub     *Hub
	spec    Spec
	handler Handler
	port    int // of TCP
	net     any // the transport's own
	conns   []*conn
	closed  bool

	queue  []Report // waits to be handed over
	batch  Batch    // is handed over; nobody writes to it until it is taken
	queued bool     // is in hub.due
	marks  []*mark  // the one heard last is the last
	latest map[wire.Kind]*latest
	turned rejections
	asked  map[string]*pending
	stats  json.RawMessage
	notes  notify

	lastBeat atomic.Int64 // 0: none yet
	awaited  atomic.Bool
}

// mark is what is known of one instance.
type mark struct {
	instance string
	settled  uint64 // all ids up to it are settled
	taken    uint64 // all up to it are settled or in the queue
	conn     *conn  // its connection, or nil
}

// latest is for messages of which only the last counts.
type latest struct {
	last    int64 // when one was handed over
	waiting *Report
	timer   *time.Timer
}

// rejections counts connections that were turned away since the last report.
type rejections struct {
	count int
	last  int64
	timer *time.Timer
}

// pending is a command that waits for its reply.
type pending struct {
	conn *conn
	done chan reply // capacity 1
}

type reply struct {
	data json.RawMessage
	err  error
}

// Listen makes the endpoint of a process. The socket is there when it returns,
// with a mode that lets this user alone connect (0600). A socket file that is
// there already is replaced: the caller sees to it that no other program serves
// the path.
func (h *Hub) Listen(spec Spec, handler Handler) (*Endpoint, error) {
	e := &Endpoint{hub: h, spec: spec, handler: handler, latest: map[wire.Kind]*latest{}, asked: map[string]*pending{}}
	for _, m := range spec.Marks {
		e.marks = append(e.marks, &mark{instance: m.Instance, settled: m.ID, taken: m.ID})
	}
	h.lock()
	defer h.unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if err := h.net.listen(e); err != nil {
		return nil, err
	}
	h.endpoints[e] = struct{}{}
	return e, nil
}

// Port is the port of an endpoint on TCP.
func (e *Endpoint) Port() int { return e.port }

// Close hangs up on all workers of the process and stops listening. What is not
// yet durable is not acked. The socket file stays.
func (e *Endpoint) Close() {
	e.hub.lock()
	defer e.hub.unlock()
	e.shut(ErrClosed)
}

// shut ends the endpoint; commands under way end with why.
func (e *Endpoint) shut(why error) {
	if e.closed {
		return
	}
	e.closed = true
	e.hub.net.unlisten(e)
	for _, c := range slices.Clone(e.conns) {
		c.hangUp()
	}
	for id, p := range e.asked {
		p.done <- reply{err: why}
		delete(e.asked, id)
	}
	for _, l := range e.latest {
		stop(l.timer)
	}
	stop(e.turned.timer)
	e.queue = nil
	delete(e.hub.endpoints, e)
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// LastBeat is the time of the last heartbeat by Options.Clock, 0 when there was none.
func (e *Endpoint) LastBeat() int64 { return e.lastBeat.Load() }

// AwaitBeat has the handler told of the next heartbeat.
func (e *Endpoint) AwaitBeat() { e.awaited.Store(true) }

// beat notes a heartbeat.
func (e *Endpoint) beat() {
	e.lastBeat.Store(e.hub.now)
	if e.awaited.Load() && e.awaited.CompareAndSwap(true, false) {
		e.handler.Beat()
	}
}

// Look is what an endpoint knows that is not durable.
type Look struct {
	Conns    int
	LastBeat int64
	Stats    json.RawMessage // the last ones
}

// Look returns what is known now.
func (e *Endpoint) Look() Look {
	e.hub.lock()
	defer e.hub.unlock()
	return Look{Conns: len(e.conns), LastBeat: e.LastBeat(), Stats: e.stats}
}

// ErrNoWorker is returned when no worker of the process is connected that could
// be sent to.
var ErrNoWorker = errors.New("no worker of the process is connected")

// ErrOutcomeUnknown is returned for a command whose connection ended before its reply.
var ErrOutcomeUnknown = errors.New("the worker's connection ended before its reply: whether the command was carried out is unknown")

// RepliedError is the error that a worker replied to a command with.
type RepliedError struct{ Text string }

// Error returns the worker's text.
func (e *RepliedError) Error() string { return e.Text }

// Send sends a JSON value to the newest connection that has said who it is, or
// else to the newest one. It returns when the value is on its way, not when it
// has arrived.
func (e *Endpoint) Send(value json.RawMessage) error {
	e.hub.lock()
	defer e.hub.unlock()
	c := e.target(false)
	if c == nil {
		return ErrNoWorker
	}
	line, err := wire.AppendSent(nil, c.plain, value)
	if err != nil {
		return err
	}
	return c.sendNow(line)
}

// Command gives a worker a command and waits for its reply. Whoever speaks the
// plain protocol is sent the command, and the reply is null at once.
func (e *Endpoint) Command(ctx context.Context, cmd wire.Command) (json.RawMessage, error) {
	p, err := e.order(cmd)
	if p == nil || err != nil {
		return json.RawMessage("null"), err
	}
	timer := time.NewTimer(time.Duration(cmd.TimeoutMs) * time.Millisecond)
	defer timer.Stop()
	select {
	case r := <-p.done:
		return r.data, r.err
	case <-timer.C:
		err = fmt.Errorf("the worker has not replied in %dms: %w", cmd.TimeoutMs, context.DeadlineExceeded)
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.hub.lock()
	defer e.hub.unlock()
	delete(e.asked, cmd.ID)
	return nil, err
}

// order sends a command; without a reply to come it returns nil.
func (e *Endpoint) order(cmd wire.Command) (*pending, error) {
	e.hub.lock()
	defer e.hub.unlock()
	c := e.target(true)
	if c == nil {
		return nil, ErrNoWorker
	}
	if c.plain {
		line, err := wire.AppendPlainCommand(nil, cmd.Command, cmd.Data)
		if err != nil {
			return nil, err
		}
		return nil, c.sendNow(line)
	}
	line, err := wire.AppendCommand(nil, cmd)
	if err != nil {
		return nil, err
	}
	if err := c.sendNow(line); err != nil {
		return nil, err
	}
	p := &pending{conn: c, done: make(chan reply, 1)}
	e.asked[cmd.ID] = p
	return p, nil
}

// target is the connection that something is sent to, or nil.
func (e *Endpoint) target(command bool) *conn {
	var plain, any *conn
	for _, c := range slices.Backward(e.conns) {
		switch {
		case c.stream == nil || c.ending:
		case !c.plain && (!command || c.commands):
			return c
		case c.plain && c.introduced && plain == nil:
			plain = c
		case c.plain && any == nil:
			any = c
		}
	}
	if plain != nil {
		return plain
	}
	return any
}

// held is the bytes of all unfinished lines.
func (e *Endpoint) held() int {
	n := 0
	for _, c := range e.conns {
		n += c.frames.Held()
	}
	return n
}

// markOf returns the mark of an instance, and makes it the one heard last.
func (e *Endpoint) markOf(instance string) *mark {
	i := slices.IndexFunc(e.marks, func(m *mark) bool { return m.instance == instance })
	if i >= 0 {
		m := e.marks[i]
		e.marks = append(slices.Delete(e.marks, i, i+1), m)
		return m
	}
	m := &mark{instance: instance}
	e.marks = append(e.marks, m)
	if len(e.marks) > MaxMarks {
		// One that has a connection, or something in the queue, is in use.
		i := slices.IndexFunc(e.marks, func(m *mark) bool { return m.conn == nil && m.taken == m.settled })
		if i >= 0 && e.marks[i] != m {
			e.marks = slices.Delete(e.marks, i, i+1)
		}
	}
	return m
}
