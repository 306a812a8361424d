package worker

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// batchSize is how much goes out in one write.
const batchSize = 64 << 10

// Dial connects to where a worker with these options would. It is for programs
// that speak the protocol of docs/reference/wire.md themselves.
func Dial(ctx context.Context, o Options) (net.Conn, error) {
	if o.Socket != "" {
		return dialUnix(ctx, o.Socket)
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	return d.DialContext(ctx, "tcp", o.Address)
}

// run keeps the worker connected until it is closed.
func (w *Worker) run(ctx context.Context) {
	defer close(w.done)
	pause := w.timing.first
	for {
		before := w.Counters().Connections
		again := w.connect(ctx)
		if w.over(ctx) {
			return
		}
		if w.Counters().Connections > before {
			pause = w.timing.first
		}
		next := spread(pause)
		w.mu.Lock()
		switch refusal := w.link.refusal; {
		case again:
			next = 0
		case refusal == wire.CodeVersion, refusal == wire.CodeDenied:
			next = w.timing.denied
		}
		w.mu.Unlock()
		if !w.pause(ctx, next) {
			return
		}
		pause = min(2*pause, w.timing.most)
	}
}

// spread is d by a random factor between 0.5 and 1.5.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.5 + rand.Float64())) //nolint:gosec // chance that spreads load is no secret
}

// pause waits, and returns false when the worker is over before.
func (w *Worker) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-ctx.Done():
			return false
		case <-w.wake:
			if w.over(ctx) {
				return false
			}
		}
	}
}

// over says that nothing is left to do: the worker is being closed, and nothing
// waits to be sent.
func (w *Worker) over(ctx context.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return ctx.Err() != nil || w.leaving && w.flushed(w.box.last)
}

// connect makes one connection and serves it to its end. It returns true when
// the next one is to be made at once.
func (w *Worker) connect(ctx context.Context) (again bool) {
	conn, err := Dial(ctx, w.o)
	if err != nil {
		w.o.Logger.Debug("Cannot connect to Perdure", "error", err)
		return false
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a read or write that waits
	defer stop()
	read := make(chan struct{})
	welcomed := make(chan struct{})
	go func() { //nolint:contextcheck // commands have a context of their own, which Close cancels
		defer close(read)
		w.read(conn, welcomed)
	}()
	again, err = w.serve(ctx, conn, welcomed, read)
	closeErr := conn.Close()
	<-read
	w.mu.Lock()
	stood := w.link.welcomed
	w.link.welcomed = false
	w.mu.Unlock()
	if err == nil && closeErr != nil && ctx.Err() == nil {
		err = closeErr
	}
	if stood && err != nil {
		w.o.Logger.Info("Lost the connection to Perdure", "error", err)
	}
	return again
}

// errHungUp means that Perdure ended the connection.
var errHungUp = errors.New("Perdure hung up")

// serve says hello and then writes what there is to write, until the
// connection or the worker ends.
func (w *Worker) serve(ctx context.Context, conn net.Conn, welcomed, read chan struct{}) (again bool, err error) {
	if err := w.hello(conn); err != nil {
		return false, err
	}
	patience := time.NewTimer(w.timing.welcome)
	defer patience.Stop()
	select {
	case <-welcomed:
	case <-read:
		return false, errHungUp
	case <-patience.C:
		return false, errors.New("there is no welcome")
	case <-ctx.Done():
		return false, nil
	}
	beats, stats, stop := w.tickers()
	defer stop()
	var buf []byte
	for {
		batch, what := w.next(buf[:0])
		buf = batch
		if len(batch) > 0 {
			if _, err := conn.Write(batch); err != nil {
				return false, err
			}
			continue
		}
		switch what {
		case doEnd:
			return false, w.bye(ctx, conn, read)
		case doAgain:
			return true, nil
		}
		select {
		case <-w.wake:
		case <-beats:
			w.mu.Lock()
			w.beat(time.Now())
			w.mu.Unlock()
		case <-stats:
			w.ownStats()
		case <-read:
			return false, errHungUp
		case <-ctx.Done():
			return false, nil
		}
	}
}

// What the writer does when there is nothing to write.
const (
	doWait = iota
	doEnd
	doAgain
)

// next appends what is to be written now to buf: the latest of each slot first,
// so that no heartbeat waits behind a long outbox.
func (w *Worker) next(buf []byte) (batch []byte, what int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.link.told && w.calls.any() {
		return buf, doAgain // commands were set up after hello
	}
	for i := range w.latest {
		if s := &w.latest[i]; s.pending {
			buf = append(buf, s.line...)
			s.pending = false
		}
	}
	if buf = w.box.batch(buf, batchSize); len(buf) > 0 {
		return buf, doWait
	}
	w.tell() // the slots are sent
	if w.leaving && w.flushed(w.box.last) {
		return buf, doEnd
	}
	return buf, doWait
}

func (w *Worker) hello(conn net.Conn) error {
	g := wire.Greeting{Version: wire.Version, Instance: w.instance, SDK: sdk()}
	if w.o.Socket == "" {
		g.Token = w.o.Token
	}
	w.mu.Lock()
	w.link.refusal = ""
	if w.link.told = w.calls.any(); w.link.told {
		g.Capabilities = []string{"commands"}
	}
	w.mu.Unlock()
	line, err := wire.AppendHello(nil, g)
	if err != nil {
		return err
	}
	_, err = conn.Write(line)
	return err
}

// bye ends the connection in order: Perdure has handled all that came before
// when it hangs up.
func (w *Worker) bye(ctx context.Context, conn net.Conn, read chan struct{}) error {
	line, err := wire.AppendSentBy(nil, wire.Disconnecting, wire.Sent{Timestamp: time.Now().UnixMilli()})
	if err != nil {
		return err
	}
	if _, err := conn.Write(line); err != nil {
		return err
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	patience := time.NewTimer(w.timing.bye)
	defer patience.Stop()
	select {
	case <-read:
	case <-patience.C:
	case <-ctx.Done():
	}
	return nil
}

// read takes what Perdure sends until the connection ends, which it tells by
// returning.
func (w *Worker) read(conn net.Conn, welcomed chan struct{}) {
	var framer wire.Framer
	buf := make([]byte, 16<<10)
	take := func(l wire.Line) error {
		if l.Over > 0 {
			return nil
		}
		r, err := wire.DecodeReceived(l.Text)
		if err != nil {
			w.o.Logger.Debug("Ignored a line of Perdure", "error", err)
			return nil
		}
		if w.take(r) {
			close(welcomed)
		}
		return nil
	}
	for {
		n, err := conn.Read(buf)
		_ = framer.Feed(buf[:n], take) // take gives up nothing
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.o.Logger.Debug("Cannot read from Perdure", "error", err)
			}
			return
		}
	}
}

// take handles one message of Perdure and says whether it is the welcome of
// this connection.
func (w *Worker) take(r wire.Received) (welcome bool) {
	switch r.Type {
	case "welcome":
		return w.welcome(r.Welcome)
	case "ack":
		w.mu.Lock()
		w.box.settle(r.ID)
		w.tell()
		w.mu.Unlock()
		w.nudge() // closing may have waited for this
	case "error":
		w.refused(r.Refusal)
	case "command":
		w.obey(r.Command)
	case "message":
		if f := w.o.OnMessage; f != nil {
			data := append([]byte(nil), r.Data...)
			w.calls.later(func() { f(data) })
		}
	}
	return false
}

func (w *Worker) welcome(m wire.Welcome) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.link.welcomed {
		return false
	}
	if m.MaxLine <= 0 {
		m.MaxLine = wire.MaxLine
	}
	w.link.welcomed, w.link.welcome = true, m
	w.counts.Connections++
	w.told(w.box.restart(m.Last, m.MaxLine))
	for _, s := range []int{slotStatus, slotProgress} {
		// A Perdure that was killed may not have kept the latest one.
		w.latest[s].pending = w.latest[s].line != nil
	}
	w.tell()
	return true
}

func (w *Worker) refused(r wire.Refusal) {
	w.o.Logger.Warn("Perdure refused a message", "code", r.Code, "reason", r.Message, "id", r.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.ID == 0 {
		if !w.link.welcomed {
			w.link.refusal = r.Code
		}
		return
	}
	if err, waited := w.box.refuse(r.ID, string(r.Code), r.Message); err != nil && !waited {
		w.told([]*RefusedError{err})
	}
}

// told tells the program what was refused.
func (w *Worker) told(list []*RefusedError) {
	if f := w.o.OnRefused; f != nil {
		for _, err := range list {
			w.calls.later(func() { f(err) })
		}
	}
}
