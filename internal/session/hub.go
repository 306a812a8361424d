package session

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrClosed is what calls on a closed Hub or Endpoint return.
var ErrClosed = errors.New("the sessions are closed")

// transport moves bytes. All its methods but close are called with the hub
// locked, and it calls the hub's methods of the same names under the same rule.
type transport interface {
	// listen begins to accept for an endpoint.
	listen(e *Endpoint) error
	// accepting stops (off) or goes on to accept.
	accepting(e *Endpoint, on bool)
	// unlisten ends accepting for good. The file stays.
	unlisten(e *Endpoint)
	// close ends everything and returns when nothing of it runs.
	close() error
}

// stream is one open connection. Its methods are called with the hub locked.
type stream interface {
	// write sends as much as goes without waiting. A stream that wants to be
	// asked for more later calls hub.writable.
	write(p []byte) (int, error)
	// watch says whether bytes are to be read, and whether there are some to
	// be written.
	watch(read, write bool)
	// close hangs up. Nothing comes from the stream any more.
	close()
}

// Hub serves the workers of many processes. Its methods may be called from any
// goroutine.
type Hub struct {
	o   Options
	net transport

	mu        sync.Mutex
	now       int64 // the time of this round
	endpoints map[*Endpoint]struct{}
	due       []*Endpoint // may have a batch to hand over
	closed    bool
	calls     sync.WaitGroup // timers and batches under way
}

// Open starts a hub. The caller closes it.
func Open(o Options) (*Hub, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Coalesce <= 0 {
		o.Coalesce = time.Second
	}
	if o.Retry <= 0 {
		o.Retry = time.Second
	}
	h := &Hub{o: o, endpoints: map[*Endpoint]struct{}{}}
	var err error
	if h.net, err = newTransport(h, o.Portable); err != nil {
		return nil, err
	}
	return h, nil
}

// Close hangs up on all workers and returns when nothing runs any more. The
// socket files stay, so that workers find the next hub under the same paths.
func (h *Hub) Close() error {
	h.lock()
	if h.closed {
		h.unlock()
		return nil
	}
	for e := range h.endpoints {
		e.shut(ErrClosed)
	}
	h.closed = true
	h.unlock()
	err := h.net.close()
	h.calls.Wait()
	return err
}

func (h *Hub) lock() {
	h.mu.Lock()
	h.now = h.o.Clock()
}

// unlock hands over what has become due, and unlocks.
func (h *Hub) unlock() {
	if len(h.due) == 0 {
		h.mu.Unlock()
		return
	}
	var out []*Endpoint
	for _, e := range h.due {
		e.queued = false
		if e.nextBatch() {
			out = append(out, e)
			h.calls.Add(1)
		}
	}
	h.due = h.due[:0]
	h.mu.Unlock()
	for _, e := range out {
		e.handler.Take(e.batch, e.taken)
	}
}

// later calls f after d with the hub locked, unless the endpoint is closed by then.
func (h *Hub) later(e *Endpoint, d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		h.lock()
		defer h.unlock()
		if !e.closed {
			f()
		}
	})
}
