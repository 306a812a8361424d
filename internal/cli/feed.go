package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

// feedRoom is how many items wait for the terminal at most. When it is full the
// sources wait, and behind them the server: a flood grows no memory.
const feedRoom = 256

// feed prints what several sources bring, from one goroutine, and flushes
// whenever nothing more is at hand.
type feed struct {
	items chan item
	done  chan struct{}
	once  sync.Once
	err   error // of the output; read it after done
	put   func(item)
	flush func() error
}

// item is one thing to print; exactly one field is set. Status may be empty,
// which removes the status line.
type item struct {
	line   *api.LogLine
	event  *api.Event
	note   string
	status *string
	// printed, when set, is closed when all before it is on the terminal.
	printed chan struct{}
}

// newFeed starts a feed that prints by put and flush. The caller calls close.
func newFeed(put func(item), flush func() error) *feed {
	f := &feed{items: make(chan item, feedRoom), done: make(chan struct{}), put: put, flush: flush}
	go f.run()
	return f
}

// lineFeed starts a feed that writes to lines, or JSON lines with --json.
func (a *app) lineFeed(lines *render.Lines) *feed {
	if a.flags.json {
		return newFeed(jsonSink(a.out))
	}
	return newFeed(func(it item) { putLines(lines, it) }, lines.Flush)
}

func putLines(lines *render.Lines, it item) {
	switch {
	case it.line != nil:
		lines.Line(*it.line)
	case it.event != nil:
		lines.Event(*it.event)
	case it.status != nil:
		lines.Status(*it.status)
	default:
		lines.Note(it.note)
	}
}

// jsonSink prints lines and events as JSON, one a line.
func jsonSink(w io.Writer) (put func(item), flush func() error) {
	var failed error
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(it item) {
		switch {
		case failed != nil:
		case it.line != nil:
			failed = enc.Encode(it.line)
		case it.event != nil:
			failed = enc.Encode(it.event)
		}
	}, func() error { return failed }
}

// run prints until items is closed. When the output has failed it goes on
// taking, so that no source waits forever.
func (f *feed) run() {
	defer close(f.done)
	for it := range f.items {
		if f.err != nil {
			continue
		}
		marks := f.one(it, nil)
		for more := true; more; {
			select {
			case next, open := <-f.items:
				if !open {
					more = false
					break
				}
				marks = f.one(next, marks)
			default:
				more = false
			}
		}
		f.err = f.flush()
		for _, m := range marks {
			close(m)
		}
	}
}

// one prints an item, or keeps its mark.
func (f *feed) one(it item, marks []chan struct{}) []chan struct{} {
	if it.printed != nil {
		return append(marks, it.printed)
	}
	f.put(it)
	return marks
}

// send hands an item over; it waits while the output is busy.
func (f *feed) send(ctx context.Context, it item) bool {
	select {
	case f.items <- it: // what has room is never dropped, even when ctx has ended
		return true
	default:
	}
	select {
	case f.items <- it:
		return true
	case <-ctx.Done():
		return false
	}
}

// try hands an item over if there is room: for what is soon out of date.
func (f *feed) try(it item) {
	select {
	case f.items <- it:
	default:
	}
}

// close waits until all is printed. Nobody may send any more. An output that
// was closed by its reader (`| head`) is no error.
func (f *feed) close() error {
	f.once.Do(func() { close(f.items) })
	<-f.done
	if errors.Is(f.err, io.ErrClosedPipe) || isBrokenPipe(f.err) {
		return nil
	}
	return f.err
}

// pump brings log lines into a feed until they end.
func (a *app) pump(ctx context.Context, f *feed, lines iter.Seq2[api.LogLine, error]) error {
	for line, err := range lines {
		if err != nil {
			return err
		}
		if !f.send(ctx, item{line: &line}) {
			return ctx.Err()
		}
	}
	return nil
}
