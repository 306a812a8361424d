package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/sockpath"
)

// Client is a Supervisor at the other end of a socket. Its methods may be
// called from any goroutine, many at a time. A connection that is lost fails the
// calls under way with api.CodeUnavailable; the next call connects again. A call
// that failed so may have been done or not.
type Client struct {
	path string

	dialing sync.Mutex // held while connecting, so that one connects for all

	mu     sync.Mutex
	conn   *clientConn // nil or lost: the next call connects
	closed bool
}

var _ Supervisor = (*Client)(nil)

// Dial connects to the supervisor whose socket is at path. It fails with
// api.CodeUnavailable if nobody answers, api.CodeDenied if somebody else's
// program does, and api.CodeConflict if it speaks another version.
func Dial(ctx context.Context, path string) (*Client, error) {
	c := &Client{path: path}
	if _, err := c.connection(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Closed returns a channel that is closed as soon as the connection that is now
// in use is lost, which tells the death of the supervisor within milliseconds.
// If there is none at the moment, the channel is closed already.
func (c *Client) Closed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return c.conn.dead
}

// Close ends the connection and fails the calls under way. Streams of Follow end
// by their own contexts.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	conn.fail(errClientClosed())
	<-conn.finished
	return nil
}

func errClientClosed() error {
	return api.Errorf(api.CodeUnavailable, "cannot ask the supervisor: the client is closed")
}

// connection returns the live connection and makes one if there is none.
func (c *Client) connection(ctx context.Context) (*clientConn, error) {
	if conn, err := c.current(); conn != nil || err != nil {
		return conn, err
	}
	c.dialing.Lock()
	defer c.dialing.Unlock()
	if conn, err := c.current(); conn != nil || err != nil {
		return conn, err
	}
	raw, lines, err := c.handshake(ctx)
	if err != nil {
		return nil, err
	}
	conn := newClientConn(raw, lines)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.fail(errClientClosed())
		return nil, errClientClosed()
	}
	c.conn = conn
	return conn, nil
}

func (c *Client) current() (*clientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClientClosed()
	}
	if c.conn == nil || c.conn.isDead() {
		return nil, nil
	}
	return c.conn, nil
}

// handshake connects, checks who is there and exchanges the first lines.
func (c *Client) handshake(ctx context.Context) (net.Conn, *lineReader, error) {
	conn, err := sockpath.Dial(ctx, c.path)
	if err != nil {
		return nil, nil, unavailable(ctx, err)
	}
	lines, err := c.greet(ctx, conn)
	if err != nil {
		_ = conn.Close() // the first error is what matters
		return nil, nil, err
	}
	return conn, lines, nil
}

func (c *Client) greet(ctx context.Context, conn net.Conn) (*lineReader, error) {
	if err := sockpath.CheckPeer(conn); err != nil {
		return nil, api.Errorf(api.CodeDenied, "cannot trust the supervisor's socket %s: %v", c.path, err)
	}
	line, err := encodeLine(hello{Version: Version})
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(helloTimeout)) // a failure shows below
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	// A peer that hangs up at once may still have said why, so the answer is
	// read even if the write has failed.
	_, writeErr := conn.Write(line)
	lines := newLineReader(conn, MaxLine)
	line, err = lines.next()
	if err != nil && writeErr != nil {
		err = writeErr
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	var h hello
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, api.Errorf(api.CodeConflict, "cannot understand who answers at %s: %v", c.path, err)
	}
	if h.Error != nil {
		return nil, h.Error.asError()
	}
	if err := checkVersion(h.Version); err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, unavailable(ctx, err)
	}
	return lines, nil
}

// unavailable names the loss of the connection, or the end of the caller's context.
func unavailable(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return contextError(cause)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without the name under which the socket was bound
	}
	return api.Errorf(api.CodeUnavailable, "cannot reach the supervisor: %v", err)
}

func contextError(cause error) error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return api.Errorf(api.CodeTimeout, "the supervisor did not answer in time")
	}
	return api.Errorf(api.CodeUnavailable, "the request to the supervisor was given up: %v", cause)
}

// ask sends a request and waits for its answer.
func ask[R any](ctx context.Context, c *Client, method string, params any) (R, error) {
	var result R
	conn, err := c.connection(ctx)
	if err != nil {
		return result, err
	}
	raw, err := conn.call(ctx, method, params)
	if err != nil {
		return result, err
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return result, api.Errorf(api.CodeInternal, "cannot read the supervisor's answer to %s: %v", method, err)
	}
	return result, nil
}

// Info implements Supervisor.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return ask[Info](ctx, c, methodInfo, nil)
}

// Apply implements Supervisor.
func (c *Client) Apply(ctx context.Context, req ApplyRequest) (ApplyResult, error) {
	return ask[ApplyResult](ctx, c, methodApply, req)
}

// Command implements Supervisor.
func (c *Client) Command(ctx context.Context, cmd Command) (Record, error) {
	return ask[Record](ctx, c, methodCommand, cmd)
}

// List implements Supervisor.
func (c *Client) List(ctx context.Context) ([]Record, uint64, error) {
	r, err := ask[listResult](ctx, c, methodList, nil)
	return r.Records, r.Seq, err
}

// Ack implements Supervisor.
func (c *Client) Ack(ctx context.Context, seq uint64) error {
	_, err := ask[struct{}](ctx, c, methodAck, seqParams{Seq: seq})
	return err
}

// Guard implements Supervisor.
func (c *Client) Guard(ctx context.Context, cmd ServerCommand) error {
	_, err := ask[struct{}](ctx, c, methodGuard, cmd)
	return err
}

// Upgrade implements Supervisor.
func (c *Client) Upgrade(ctx context.Context, path string) error {
	_, err := ask[struct{}](ctx, c, methodUpgrade, upgradeParams{Path: path})
	return err
}

// Shutdown implements Supervisor.
func (c *Client) Shutdown(ctx context.Context, timeout time.Duration) error {
	_, err := ask[struct{}](ctx, c, methodShutdown, shutdownParams{Timeout: api.Duration(timeout)})
	return err
}

// Follow implements Supervisor on a connection of its own. A *journal.GapError
// may be followed by more; any other error is the last thing yielded, with
// api.CodeUnavailable when the supervisor is gone.
func (c *Client) Follow(ctx context.Context, after uint64) iter.Seq2[[]Frame, error] {
	return func(yield func([]Frame, error) bool) {
		err := c.follow(ctx, after, yield)
		if err != nil && ctx.Err() == nil {
			yield(nil, err)
		}
	}
}

// follow returns nil when the caller has stopped.
func (c *Client) follow(ctx context.Context, after uint64, yield func([]Frame, error) bool) error {
	conn, lines, err := c.handshake(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is written that could be lost
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	params, err := json.Marshal(seqParams{Seq: after})
	if err != nil {
		return err
	}
	line, err := encodeLine(request{ID: 1, Method: methodFollow, Params: params})
	if err != nil {
		return err
	}
	if _, err := conn.Write(line); err != nil {
		return unavailable(ctx, err)
	}
	// What the reader of lines has read ahead is the beginning of the stream.
	stream := streamReader{r: bufio.NewReaderSize(lines.r, readAhead)}
	for frames, err := range stream.batches() {
		var known *api.Error
		var gap *journal.GapError
		switch {
		case errors.Is(err, errPiece):
			return api.Errorf(api.CodeInternal, "cannot follow the journal: %v", err)
		case err != nil && !errors.As(err, &known) && !errors.As(err, &gap):
			return unavailable(ctx, err)
		case err != nil && gap == nil:
			return err
		}
		if !yield(frames, err) {
			return nil
		}
	}
	return nil
}
