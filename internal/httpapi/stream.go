package httpapi

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"time"
)

// The bounds of what a stream holds between the backend and the connection.
const (
	streamQueue  = 64
	streamBuffer = 32 << 10
	// lastItems is how long a stream goes on when the server ends, so that the
	// last lines of a process are not cut off.
	lastItems = 150 * time.Millisecond
)

// item is one step of a stream.
type item[T any] struct {
	value T
	err   error
}

// stream writes the items of a sequence to a connection. It flushes when no
// item is ready, so that a batch costs one write and a lone item does not wait.
type stream[T any] struct {
	w http.ResponseWriter
	// begin sends the header; it is called once, before the first byte.
	begin func()
	// encode appends one item to the buffer; stop ends the stream after it.
	encode func(buf []byte, it item[T]) (out []byte, stop bool)
	// idle, when set, is appended when nothing came for the time of every.
	idle  []byte
	every time.Duration
}

// run returns when the sequence, the request or the server's streams end. The
// goroutine that reads the sequence has ended then: the sequence is made with a
// context that ends with the stream, else it would hold up the server's end.
func (st *stream[T]) run(ctx context.Context, seq func(context.Context) iter.Seq2[T, error]) {
	ctx, cancel := context.WithCancel(ctx)
	items := make(chan item[T], streamQueue)
	go func() {
		defer close(items)
		for v, err := range seq(ctx) {
			select {
			case items <- item[T]{v, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range items { // until the goroutine has ended
		}
	}()
	st.pump(ctx, items)
}

// pump moves items to the connection until an end.
func (st *stream[T]) pump(ctx context.Context, items <-chan item[T]) {
	tick := time.NewTicker(st.every)
	defer tick.Stop()
	closing := streamsClosed(ctx)
	var over <-chan time.Time // the server ends: what is at hand goes out first
	var buf []byte
	for {
		var err error
		select {
		case it, ok := <-items:
			if !ok {
				return
			}
			stop := false
			if buf, stop = st.fill(buf[:0], it, items); stop {
				_ = st.send(buf) // it ends anyway
				return
			}
			err = st.send(buf)
			st.rearm(tick)
			if cap(buf) > 4*streamBuffer {
				buf = nil
			}
		case <-tick.C:
			err = st.send(st.idle)
			st.rearm(tick)
		case <-ctx.Done():
			return
		case <-closing:
			last := time.NewTimer(lastItems)
			defer last.Stop()
			closing, over = nil, last.C
		case <-over:
			return
		}
		if err != nil {
			return // the reader is gone or dead
		}
	}
}

// rearm starts the time anew; without something to say when idle it is over
// once the header is sent.
func (st *stream[T]) rearm(tick *time.Ticker) {
	if st.idle == nil {
		tick.Stop()
		return
	}
	tick.Reset(st.every)
}

// fill encodes an item and those that are ready behind it.
func (st *stream[T]) fill(buf []byte, it item[T], items <-chan item[T]) ([]byte, bool) {
	for {
		var stop bool
		if buf, stop = st.encode(buf, it); stop || len(buf) >= streamBuffer {
			return buf, stop
		}
		select {
		case next, ok := <-items:
			if !ok {
				return buf, true
			}
			it = next
		default:
			return buf, false
		}
	}
}

// send writes and flushes. The write deadline is set by the writer itself.
func (st *stream[T]) send(data []byte) error {
	if st.begin != nil {
		st.begin()
		st.begin = nil
	}
	if len(data) > 0 {
		if _, err := st.w.Write(data); err != nil {
			return err
		}
	}
	err := http.NewResponseController(st.w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
