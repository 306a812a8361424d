package event

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/fault"
)

// The bounds of one event and of one transaction of Retain.
const (
	maxData   = 4 << 20 // a line of a worker is at most 1 MiB, and grows by what is told beside it
	maxType   = 256
	trimBatch = 2000
)

// Log is the event log over a Store. Its methods may be called by many
// goroutines at once.
type Log struct {
	store  Store
	ring   ring
	closed chan struct{} // closed by Close: followers end
	once   sync.Once
	err    error // of Close
}

// Open starts a log over a store, which belongs to the log from then on. When
// Open fails the store stays the caller's.
func Open(ctx context.Context, s Store) (*Log, error) {
	l := &Log{store: s, closed: make(chan struct{})}
	s.Notify(l.ring.publish)
	first, last, err := s.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	l.ring.begin(first, last)
	return l, nil
}

// Close ends all followers, and closes the store, which writes what was handed in.
func (l *Log) Close() error {
	l.once.Do(func() {
		close(l.closed)
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
	if err := l.store.Commit(ctx, b); err != nil {
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
	return l.store.Commit(ctx, b)
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
		fault.Here("event.retain.before")
		n, first, err := l.store.Trim(ctx, int(r.MaxCount), before, trimBatch)
		if err != nil {
			return total, err
		}
		fault.Here("event.retain.after")
		l.ring.trimmed(first)
		total += n
		if n < trimBatch {
			return total, nil
		}
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
	return t != "" && len(t) <= maxType && strings.IndexFunc(t, func(r rune) bool { return !typeRune(r) }) < 0
}

func check(e *api.Event) error {
	switch {
	case !validType(e.Type):
		return api.Errorf(api.CodeInvalid, "cannot append an event of type %.140q: a type is words of letters, digits, '_' and '-' joined by dots, at most 256 bytes", e.Type)
	case len(e.Data) > maxData:
		return api.Errorf(api.CodeInvalid, "cannot append event %s: its data have %d bytes, more than 4 MiB", e.Type, len(e.Data))
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
