package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/sockpath"
)

// ServeOptions are the settings of Serve; the zero value is the default.
type ServeOptions struct {
	// Log gets what happens to connections. Default: nothing is logged.
	Log *slog.Logger
	// MaxConns bounds the connections; further ones wait to be accepted.
	// Default 64.
	MaxConns int
	// MaxInFlight bounds the requests of one connection that are worked on at
	// the same time; further ones wait to be read. Default 64.
	MaxInFlight int
}

// The times that bound a connection.
const (
	// helloTimeout is the time for the first line.
	helloTimeout = 5 * time.Second
	// partingTime is what answers under way have to be written when Serve ends.
	partingTime = time.Second
)

// maxHello is the longest first line in bytes.
const maxHello = 4096

// Serve answers on l for sup until ctx ends, and then returns nil once every
// connection is closed and every request has returned; requests under way have
// their context ended, and their answers are still sent. It closes l. Peers that
// belong neither to this user nor to root are turned away.
func Serve(ctx context.Context, l net.Listener, sup Supervisor, o ServeOptions) error {
	if o.Log == nil {
		o.Log = discard()
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 64
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 64
	}
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // Accept then returns
	slots := make(chan struct{}, o.MaxConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := accept(ctx, l, o.Log)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		conns.Go(func() {
			defer func() { <-slots }()
			c := &serverConn{conn: conn, sup: sup, opts: o, cancels: map[uint64]context.CancelFunc{}}
			if err := c.serve(ctx); err != nil {
				o.Log.Warn("a control connection ended", "error", err)
			}
		})
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// accept waits out a shortage of descriptors, which passes.
func accept(ctx context.Context, l net.Listener, log *slog.Logger) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		log.Warn("cannot accept a control connection", "error", err)
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// serverConn is one connection. Its reader starts a goroutine for each request
// and waits for all of them before it returns.
type serverConn struct {
	conn net.Conn
	sup  Supervisor
	opts ServeOptions

	writing sync.Mutex // held for one whole line

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc // by the number of the request
}

func (c *serverConn) serve(ctx context.Context) error {
	defer func() { _ = c.conn.Close() }()
	if err := sockpath.CheckPeer(c.conn); err != nil {
		denied := api.Errorf(api.CodeDenied, "cannot use the control socket: %v", err)
		// Its first line is taken before the answer: a socket that is closed with
		// bytes unread loses what was sent to the other end.
		_ = c.conn.SetReadDeadline(time.Now().Add(partingTime))
		_, _ = newLineReader(c.conn, maxHello).next()
		c.refuse(denied)
		return denied
	}
	return c.serveRequests(ctx)
}

// serveRequests answers a peer that may ask.
func (c *serverConn) serveRequests(ctx context.Context) error {
	defer func() { _ = c.conn.Close() }()
	connCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = c.conn.SetReadDeadline(time.Now().Add(helloTimeout)) // a failure shows at the read
	// The end of Serve stops reading; answers under way get their time.
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		_ = c.conn.SetWriteDeadline(time.Now().Add(partingTime))
	})
	defer stop()
	lines := newLineReader(c.conn, MaxLine)
	if err := c.greet(ctx, lines); err != nil {
		return err
	}
	var requests sync.WaitGroup
	defer requests.Wait()
	defer cancel() // before the wait: whoever asked is gone
	slots := make(chan struct{}, c.opts.MaxInFlight)
	for {
		var req request
		if err := c.read(lines, &req); err != nil {
			return c.ending(ctx, err)
		}
		switch req.Method {
		case methodCancel:
			c.cancel(req.ID)
		case methodFollow:
			return c.ending(ctx, c.follow(connCtx, cancel, lines, req))
		case methodHold:
			return c.ending(ctx, c.hold(connCtx, cancel, lines, req))
		default:
			slots <- struct{}{}
			reqCtx := c.register(connCtx, req.ID)
			requests.Go(func() {
				defer func() { <-slots }()
				defer c.cancel(req.ID)
				fault.Here("control.request.before")
				done := c.dispatch(reqCtx, req)
				fault.Here("control.request.done")
				c.answer(req.ID, done)
			})
		}
	}
}

func (c *serverConn) greet(ctx context.Context, lines *lineReader) error {
	lines.limit = maxHello
	var h hello
	if err := c.read(lines, &h); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // somebody looked whether anyone answers
		}
		return c.ending(ctx, err)
	}
	lines.limit = MaxLine
	if err := checkVersion(h.Version); err != nil {
		c.refuse(err)
		return err
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	if ctx.Err() != nil {
		return ctx.Err() // its deadline may just have been overwritten
	}
	return c.write(hello{Version: Version})
}

// read reads one line into v. A line that is no JSON ends the connection: what
// follows it cannot be trusted.
func (c *serverConn) read(lines *lineReader, v any) error {
	line, err := lines.next()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		bad := api.Errorf(api.CodeInvalid, "cannot read a line of the control protocol: %v", err)
		c.refuse(bad)
		return bad
	}
	return nil
}

// refuse tells the other end why it is cut off, if it still listens.
func (c *serverConn) refuse(err error) {
	_ = c.conn.SetWriteDeadline(time.Now().Add(partingTime))
	_ = c.write(hello{Version: Version, Error: toWire(err)})
}

// ending returns nil for the ways in which a connection ends in peace.
func (c *serverConn) ending(ctx context.Context, err error) error {
	// The other end may die at any instant, and while something is written to it.
	gone := errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	if ctx.Err() != nil || gone || errors.Is(err, net.ErrClosed) {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the other end said nothing")
	}
	return err
}

func (c *serverConn) register(ctx context.Context, id uint64) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.cancels[id]; old != nil {
		old() // a number used twice: the first one's answer is lost anyway
	}
	c.cancels[id] = cancel
	return ctx
}

func (c *serverConn) cancel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.cancels[id]; cancel != nil {
		cancel()
		delete(c.cancels, id)
	}
}

// outcome is what a request came to.
type outcome struct {
	result any
	err    error
}

func (c *serverConn) dispatch(ctx context.Context, req request) outcome {
	switch req.Method {
	case methodInfo:
		info, err := c.sup.Info(ctx)
		return outcome{info, err}
	case methodApply:
		return call(req, func(p ApplyRequest) (any, error) { return c.sup.Apply(ctx, p) })
	case methodCommand:
		return call(req, func(p Command) (any, error) { return c.sup.Command(ctx, p) })
	case methodList:
		records, seq, err := c.sup.List(ctx)
		return outcome{listResult{Records: records, Seq: seq}, err}
	case methodAck:
		return call(req, func(p seqParams) (any, error) { return struct{}{}, c.sup.Ack(ctx, p.Seq) })
	case methodGuard:
		return call(req, func(p ServerCommand) (any, error) { return struct{}{}, c.sup.Guard(ctx, p) })
	case methodUpgrade:
		return call(req, func(p upgradeParams) (any, error) { return struct{}{}, c.sup.Upgrade(ctx, p.Path) })
	case methodShutdown:
		return call(req, func(p shutdownParams) (any, error) {
			return struct{}{}, c.sup.Shutdown(ctx, time.Duration(p.Timeout))
		})
	case methodWorkers, methodSend:
		return c.attend(ctx, req)
	}
	return noSuchMethod(req.Method)
}

func noSuchMethod(method string) outcome {
	return outcome{nil, api.Errorf(api.CodeInvalid, "cannot do %q: the control protocol has no such method", method)}
}

func call[P any](req request, do func(P) (any, error)) outcome {
	var p P
	if err := json.Unmarshal(req.Params, &p); err != nil {
		return outcome{nil, api.Errorf(api.CodeInvalid, "cannot read the parameters of %s: %v", req.Method, err)}
	}
	result, err := do(p)
	return outcome{result, err}
}

// answer sends one answer. If that fails the connection is cut, so that the
// client learns that it will get none.
func (c *serverConn) answer(id uint64, o outcome) {
	resp := response{ID: id}
	if o.err == nil {
		resp.Result, o.err = json.Marshal(o.result)
	}
	if o.err != nil {
		resp.Result, resp.Error = nil, toWire(o.err)
	}
	err := c.write(resp)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.opts.Log.Warn("cannot send an answer", "error", err)
		_ = c.conn.Close()
	}
}

func (c *serverConn) write(v any) error {
	line, err := encodeLine(v)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err = c.conn.Write(line)
	return err
}

// follow turns the connection into a stream of entries. A reader that does not
// keep up is waited for: the write blocks, and nothing more is read of the journal.
func (c *serverConn) follow(ctx context.Context, cancel context.CancelFunc, lines *lineReader, req request) error {
	out := streamWriter{to: c.conn}
	var p seqParams
	if err := json.Unmarshal(req.Params, &p); err != nil {
		return out.send(nil, api.Errorf(api.CodeInvalid, "cannot read the parameters of follow: %v", err))
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer func() { _ = c.conn.Close() }() // ends the watcher
	watching.Go(func() {
		// Nothing more is said by the client, so that any return is the end.
		_, _ = lines.next()
		cancel()
		_ = c.conn.Close()
	})
	for frames, err := range c.sup.Follow(ctx, p.Seq) {
		if err := out.send(frames, err); err != nil {
			return c.ending(ctx, err)
		}
	}
	return nil
}
