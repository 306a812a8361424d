package control

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/fault"
)

// clientConn is one connection for requests. One goroutine reads it, from
// newClientConn until the connection is lost.
type clientConn struct {
	conn     net.Conn
	writing  chan struct{} // capacity 1: held for one whole line
	dead     chan struct{} // closed when the connection is lost
	finished chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	cause   error // why it is dead
	lastID  uint64
	pending map[uint64]chan response // capacity 1 each
}

func newClientConn(conn net.Conn, lines *lineReader) *clientConn {
	c := &clientConn{
		conn: conn, writing: make(chan struct{}, 1), dead: make(chan struct{}),
		finished: make(chan struct{}), pending: map[uint64]chan response{},
	}
	go c.readLoop(lines) // ends with the connection, which fail closes
	return c
}

func (c *clientConn) readLoop(lines *lineReader) {
	defer close(c.finished)
	for {
		line, err := lines.next()
		if err != nil {
			c.fail(api.Errorf(api.CodeUnavailable, "the connection to the supervisor is lost: %v", err))
			return
		}
		var r response
		if err := json.Unmarshal(line, &r); err != nil {
			c.fail(api.Errorf(api.CodeUnavailable, "the connection to the supervisor is lost: cannot read its answer: %v", err))
			return
		}
		if r.ID == 0 && r.Error != nil {
			c.fail(r.Error.asError()) // the supervisor says why it hangs up
			return
		}
		c.mu.Lock()
		reply := c.pending[r.ID]
		delete(c.pending, r.ID)
		c.mu.Unlock()
		if reply != nil {
			reply <- r
		}
	}
}

// fail marks the connection as lost; the first cause stays.
func (c *clientConn) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return
	}
	c.cause = cause
	_ = c.conn.Close() // it is lost anyway
	close(c.dead)
}

func (c *clientConn) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// call sends a request and returns the result of its answer.
func (c *clientConn) call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "cannot send the parameters of %s: %v", method, err)
	}
	reply := make(chan response, 1)
	c.mu.Lock()
	c.lastID++
	id := c.lastID
	c.pending[id] = reply
	c.mu.Unlock()
	defer c.forget(id)
	line, err := encodeLine(request{ID: id, Method: method, Params: raw})
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "%v", err)
	}
	if err := c.send(ctx, line); err != nil {
		return nil, err
	}
	fault.Here("control.call.sent")
	select {
	case r := <-reply:
		return r.outcome()
	case <-ctx.Done():
		c.sendCancel(ctx, id)
		return nil, contextError(ctx.Err())
	case <-c.dead:
		// The answer may have been the last that came.
		select {
		case r := <-reply:
			return r.outcome()
		default:
			return nil, c.lost()
		}
	}
}

func (r response) outcome() (json.RawMessage, error) {
	if r.Error != nil {
		return nil, r.Error.asError()
	}
	return r.Result, nil
}

func (c *clientConn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

func (c *clientConn) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// send writes one line. When ctx ends within a line, the rest can never follow,
// so the connection is given up.
func (c *clientConn) send(ctx context.Context, line []byte) error {
	select {
	case c.writing <- struct{}{}:
	case <-ctx.Done():
		return contextError(ctx.Err())
	case <-c.dead:
		return c.lost()
	}
	defer func() { <-c.writing }()
	if ctx.Err() != nil {
		return contextError(ctx.Err())
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	n, err := c.conn.Write(line)
	if !stop() {
		<-interrupted
		_ = c.conn.SetWriteDeadline(time.Time{})
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && n == 0 {
		return contextError(ctx.Err())
	}
	cause := unavailable(ctx, err)
	c.fail(api.Errorf(api.CodeUnavailable, "the connection to the supervisor is lost: %v", err))
	return cause
}

// cancelTime bounds the courtesy of sendCancel.
const cancelTime = 100 * time.Millisecond

// sendCancel tells the supervisor that nobody waits for the answer any more. It
// is a courtesy: without it the request just runs to its end. The caller's ctx
// has ended, so it has a time of its own.
func (c *clientConn) sendCancel(ctx context.Context, id uint64) {
	line, err := encodeLine(request{ID: id, Method: methodCancel})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer cancel()
	_ = c.send(ctx, line)
}
