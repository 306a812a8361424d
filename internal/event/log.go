package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
)

// The bounds of one transaction and of one event.
const (
	maxTransaction = 4096 // events
	maxData        = 1 << 20
	trimBatch      = 2000
	queueLength    = 256
)

// errClosed is what a call on a closed log gets.
var errClosed = api.Errorf(api.CodeUnavailable, "cannot use the event log: it is closed")

// Log is the event log over a Store. Its methods may be called by many
// goroutines at once.
type Log struct {
	store  Store
	ring   ring
	queue  chan *request
	closed chan struct{} // closed by Close: no new work, followers end
	ended  chan struct{} // closed by the writer when it has ended
	once   sync.Once
	err    error // of Close
}

// request is one call that the writer carries out.
type request struct {
	batch *Batch // nil: a trim
	trim  func() error
	done  chan error // capacity 1, so that the writer never waits
}

// Open starts a log over a store, which belongs to the log from then on. When
// Open fails the store stays the caller's.
func Open(ctx context.Context, s Store) (*Log, error) {
	first, last, err := s.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	l := &Log{
		store:  s,
		queue:  make(chan *request, queueLength),
		closed: make(chan struct{}),
		ended:  make(chan struct{}),
	}
	l.ring.first, l.ring.last = first, last
	go l.write() //nolint:contextcheck // it outlives Open: what was handed in is written, and Close waits for it
	return l, nil
}

// Close writes what was handed in, ends all followers and closes the store.
func (l *Log) Close() error {
	l.once.Do(func() {
		close(l.closed)
		<-l.ended
		l.err = l.store.Close()
	})
	return l.err
}

// Append appends events of the server's own, all of them or none, and returns
// the Seq of the last one when they are committed. A zero Time becomes now. An
// event with a bad type, or with data that is not JSON or above 1 MiB, is
// CodeInvalid. When ctx ends first they may be committed nevertheless. After an
// error of the store the caller may simply try again.
func (l *Log) Append(ctx context.Context, events ...api.Event) (uint64, error) {
	for i := range events {
		if err := check(&events[i]); err != nil {
			return 0, err
		}
	}
	if len(events) == 0 {
		_, last := l.ring.bounds()
		return last, nil
	}
	b := &Batch{Events: slices.Clone(events)}
	stamp(b.Events)
	if err := l.submit(ctx, &request{batch: b}); err != nil {
		return 0, err
	}
	return b.Events[len(b.Events)-1].Seq, nil
}

// AppendFrom appends events that come from a source, together with the cursor
// that says how far in the source they reach, in one transaction. A cursor that
// is not above the stored one means that they are known: nothing happens, so
// that a source may be replayed at will. Without events only the cursor moves.
// A malformed event is repaired, not refused, because a refusal would hold up
// its source for ever: its type becomes "event.malformed", and data that is not
// JSON becomes a JSON text.
func (l *Log) AppendFrom(ctx context.Context, source string, cursor uint64, events []api.Event) error {
	if source == "" {
		return api.Errorf(api.CodeInvalid, "cannot append events without the name of their source")
	}
	b := &Batch{Source: source, Cursor: cursor, Events: slices.Clone(events)}
	for i := range b.Events {
		repair(&b.Events[i])
	}
	stamp(b.Events)
	return l.submit(ctx, &request{batch: b})
}

// Cursor returns how far a source has been appended, 0 when never.
func (l *Log) Cursor(ctx context.Context, source string) (uint64, error) {
	return l.store.Cursor(ctx, source)
}

// Bounds returns the places of the oldest event that is kept and the newest
// one, both 0 when there was never one. It costs no reading.
func (l *Log) Bounds() (first, last uint64) { return l.ring.bounds() }

// Retain removes what is over the age or the count, oldest first and in small
// transactions between which others write. A bound of 0 is no bound. The newest
// event always stays. It returns how many went.
func (l *Log) Retain(ctx context.Context, r api.Retention, now time.Time) (int, error) {
	var before time.Time
	if r.MaxAge > 0 {
		before = now.Add(-r.MaxAge.D())
	}
	total := 0
	for {
		removed := 0
		trim := func() error {
			var seq uint64
			if _, last := l.ring.bounds(); r.MaxCount > 0 && last > uint64(r.MaxCount) {
				seq = last - uint64(r.MaxCount)
			}
			n, first, err := l.store.Trim(ctx, seq, before, trimBatch)
			if err != nil {
				return err
			}
			l.ring.trimmed(first)
			removed = n
			return nil
		}
		if err := l.submit(ctx, &request{trim: trim}); err != nil {
			return total, err
		}
		total += removed
		if removed < trimBatch {
			return total, nil
		}
	}
}

// submit hands a request to the writer and waits for its end.
func (l *Log) submit(ctx context.Context, r *request) error {
	r.done = make(chan error, 1)
	select {
	case <-l.closed:
		return errClosed
	default:
	}
	select {
	case l.queue <- r:
	case <-l.closed:
		return errClosed
	case <-ctx.Done():
		return ended(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ended(ctx)
	case <-l.ended:
		// The writer may have answered in the same moment.
		select {
		case err := <-r.done:
			return err
		default:
			return errClosed
		}
	}
}

func ended(ctx context.Context) error {
	code := api.CodeUnavailable
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = api.CodeTimeout
	}
	return errors.Join(api.Errorf(code, "cannot wait for the event log any longer"), ctx.Err())
}

// write is the writer goroutine. Everything that waits in the queue becomes one
// transaction, so a transaction's cost is shared exactly when there is load.
func (l *Log) write() {
	defer close(l.ended)
	var group []*request
	for {
		select {
		case r := <-l.queue:
			group = l.gather(append(group[:0], r))
			l.carryOut(group)
			clear(group)
		case <-l.closed:
			for {
				select {
				case r := <-l.queue:
					l.carryOut([]*request{r})
				default:
					return
				}
			}
		}
	}
}

// gather adds what already waits, up to the bound of a transaction. A trim ends
// the group.
func (l *Log) gather(group []*request) []*request {
	events := 0
	if group[0].batch != nil {
		events = len(group[0].batch.Events)
	}
	yielded := false
	for group[len(group)-1].batch != nil && events < maxTransaction {
		select {
		case r := <-l.queue:
			group = append(group, r)
			if r.batch != nil {
				events += len(r.batch.Events)
			}
		default:
			if yielded {
				return group
			}
			// The callers of the last transaction are runnable and about to
			// come again: without this each group would hold the fastest few.
			yielded = true
			runtime.Gosched()
		}
	}
	return group
}

// carryOut commits the batches of a group, then does the trim at its end.
func (l *Log) carryOut(group []*request) {
	batches := make([]*Batch, 0, len(group))
	for _, r := range group {
		if r.batch != nil {
			batches = append(batches, r.batch)
		}
	}
	if len(batches) > 0 {
		// A caller that gave up does not undo the others' transaction.
		err := l.store.Commit(context.Background(), batches)
		if err == nil {
			l.ring.publish(batches)
		}
		for _, r := range group[:len(batches)] {
			r.done <- err
		}
	}
	for _, r := range group[len(batches):] {
		r.done <- r.trim()
	}
}

func stamp(events []api.Event) {
	now := time.Time{}
	for i := range events {
		if events[i].Time.IsZero() {
			if now.IsZero() {
				now = time.Now().UTC()
			}
			events[i].Time = now
		}
	}
}

func validType(t string) bool {
	return t != "" && len(t) <= 128 && strings.IndexFunc(t, func(r rune) bool { return !typeRune(r) }) < 0
}

func check(e *api.Event) error {
	switch {
	case !validType(e.Type):
		return api.Errorf(api.CodeInvalid, "cannot append an event of type %.140q: a type is words of letters, digits, '_' and '-' joined by dots, at most 128 bytes", e.Type)
	case len(e.Data) > maxData:
		return api.Errorf(api.CodeInvalid, "cannot append event %s: its data have %d bytes, more than 1 MiB", e.Type, len(e.Data))
	case len(e.Data) > 0 && !json.Valid(e.Data):
		return api.Errorf(api.CodeInvalid, "cannot append event %s: its data are not JSON", e.Type)
	}
	return nil
}

// repair makes any event one that check accepts.
func repair(e *api.Event) {
	if !validType(e.Type) {
		e.Type = "event.malformed"
	}
	if len(e.Data) > maxData || len(e.Data) > 0 && !json.Valid(e.Data) {
		// Escaping makes at most six bytes of one; the rest is cut off.
		text := bytes.ToValidUTF8(e.Data[:min(len(e.Data), maxData/8)], []byte("\uFFFD"))
		data, err := json.Marshal(string(text))
		if err != nil {
			data = []byte(`"unreadable"`)
		}
		e.Data = data
	}
}
