package event

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/perdure/perdure/api"
)

// The bounds of a page, and how many types are asked for one by one.
const (
	defaultLimit = 100
	maxLimit     = 1000
	maxTypes     = 24
	followBatch  = 256
)

// TrimmedError says that retention removed events that were asked for. A
// follower that goes on continues at First.
type TrimmedError struct {
	// First is the place of the oldest event that is kept.
	First uint64 `json:"first"`
}

// Error says it as a sentence.
func (e *TrimmedError) Error() string {
	return fmt.Sprintf("cannot replay all events: those before %d are no longer kept", e.First)
}

// filter is a query made ready.
type filter struct {
	pattern *Pattern
	name    string
	since   time.Time
}

func newFilter(q api.EventQuery) (filter, error) {
	p, err := Compile(q.Pattern)
	if err != nil {
		return filter{}, err
	}
	f := filter{pattern: p, name: q.Name}
	if q.Since != nil {
		f.since = *q.Since
	}
	return f, nil
}

func (f *filter) match(e *api.Event) bool {
	return (f.name == "" || f.name == e.Name) && !e.Time.Before(f.since) && f.pattern.Match(e.Type)
}

// Query returns one page of events. A limit or last out of 0 to 1000, or a bad
// pattern, is CodeInvalid. With Last the page is the newest events and More is
// false.
func (l *Log) Query(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	f, err := newFilter(q)
	if err != nil {
		return api.EventPage{}, err
	}
	limit, err := pageLimit(q)
	if err != nil {
		return api.EventPage{}, err
	}
	first, last := l.ring.bounds()
	page := api.EventPage{Events: []api.Event{}, FirstSeq: first, LastSeq: last}
	s := Selection{After: q.After, Through: last, Limit: limit + 1}
	if q.Last > 0 {
		s.Limit, s.Newest = limit, true
	}
	events, err := l.find(ctx, &f, s)
	if err != nil {
		return api.EventPage{}, err
	}
	if len(events) > limit {
		events, page.More = events[:limit], true
	}
	page.Events = append(page.Events, events...)
	return page, nil
}

func pageLimit(q api.EventQuery) (int, error) {
	for _, v := range []struct {
		field string
		n     int
	}{{"limit", q.Limit}, {"last", q.Last}} {
		if v.n < 0 || v.n > maxLimit {
			e := api.Errorf(api.CodeInvalid, "cannot return %d events at once: %s is 1 to %d (ask for the next page with after)", v.n, v.field, maxLimit)
			e.Field = v.field
			return 0, e
		}
	}
	switch {
	case q.Last > 0:
		return q.Last, nil
	case q.Limit > 0:
		return q.Limit, nil
	}
	return defaultLimit, nil
}

// find selects by the filter. The pattern is matched against the types that
// exist, which are few: then the store's index on the type does the rest.
// s.Through must have been committed before, else an event of a new type could
// be missed.
func (l *Log) find(ctx context.Context, f *filter, s Selection) ([]api.Event, error) {
	s.Since, s.Name = f.since, f.name
	if s.Through <= s.After {
		return nil, nil
	}
	if f.pattern.All() {
		return l.store.Select(ctx, s)
	}
	types, err := l.store.Types(ctx)
	if err != nil {
		return nil, err
	}
	all := len(types)
	match := types[:0]
	for _, t := range types {
		if f.pattern.Match(t) {
			match = append(match, t)
		}
	}
	switch {
	case len(match) == 0:
		return nil, nil
	case len(match) == all:
		return l.store.Select(ctx, s)
	case len(match) <= maxTypes:
		s.Types = match
		return l.store.Select(ctx, s)
	}
	return l.scan(ctx, f, s)
}

// scan reads page after page and matches in Go: for patterns that match very
// many types and yet not all.
func (l *Log) scan(ctx context.Context, f *filter, s Selection) ([]api.Event, error) {
	var out []api.Event
	want := s.Limit
	s.Limit = maxLimit
	for len(out) < want {
		events, err := l.store.Select(ctx, s)
		if err != nil {
			return nil, err
		}
		if s.Newest {
			for i := len(events) - 1; i >= 0 && len(out) < want; i-- {
				if f.match(&events[i]) {
					out = append(out, events[i])
				}
			}
		} else {
			for i := 0; i < len(events) && len(out) < want; i++ {
				if f.match(&events[i]) {
					out = append(out, events[i])
				}
			}
		}
		if len(events) < s.Limit {
			break
		}
		if s.Newest {
			s.Through = events[0].Seq - 1
		} else {
			s.After = events[len(events)-1].Seq
		}
	}
	if s.Newest {
		slices.Reverse(out)
	}
	return out, nil
}

// Follow yields the events after q.After (or since q.Since, or the last q.Last)
// and goes on with new ones until ctx ends or the log is closed; that end is no
// error. q.Limit is not used. Nothing is lost, doubled or out of order, however
// slow the consumer is, and no consumer slows an appender.
//
// When q.After is above 0 and events after it are no longer kept, or the
// consumer is so slow that they go away meanwhile, a *TrimmedError is yielded
// with a zero event; a consumer that goes on gets the rest. Any other error is
// the last.
func (l *Log) Follow(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		f, err := newFilter(q)
		if err != nil {
			yield(api.Event{}, err)
			return
		}
		fl := &follower{log: l, filter: f, yield: yield, at: q.After, strict: q.After > 0}
		if q.Last > 0 {
			page, err := l.Query(ctx, q)
			if err != nil {
				fl.fail(ctx, err)
				return
			}
			fl.at, fl.strict = page.LastSeq, true
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
		}
		fl.run(ctx)
	}
}

// follower is one Follow.
type follower struct {
	log    *Log
	filter filter
	yield  func(api.Event, error) bool
	at     uint64 // everything up to it was seen
	strict bool   // tell when events after at are gone
	buf    []api.Event
}

func (f *follower) run(ctx context.Context) {
	for {
		wake := f.log.ring.waitAfter(f.at)
		if wake != nil {
			f.buf = nil // an idle follower holds nothing
			select {
			case <-wake:
			case <-ctx.Done():
				return
			case <-f.log.closed:
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-f.log.closed:
			return
		default:
		}
		if !f.advance(ctx) {
			return
		}
	}
}

// advance yields one batch and says whether to go on.
func (f *follower) advance(ctx context.Context) bool {
	if f.buf == nil {
		f.buf = make([]api.Event, 0, followBatch)
	}
	events, ok := f.log.ring.read(f.at, f.buf[:0])
	if !ok {
		return f.catchUp(ctx)
	}
	f.buf, f.strict = events, true
	for i := range events {
		f.at = events[i].Seq
		if f.filter.match(&events[i]) && !f.yield(events[i], nil) {
			return false
		}
	}
	return true
}

// catchUp yields one batch from the store.
func (f *follower) catchUp(ctx context.Context) bool {
	_, last := f.log.ring.bounds()
	events, err := f.log.find(ctx, &f.filter, Selection{After: f.at, Through: last, Limit: followBatch})
	if err != nil {
		f.fail(ctx, err)
		return false
	}
	// Asked after the events were read, so what was gone by then shows here.
	first, _, err := f.log.store.Bounds(ctx)
	if err != nil {
		f.fail(ctx, err)
		return false
	}
	if f.at+1 < first && !f.skip(first, events) {
		return false
	}
	f.strict = true
	for i := range events {
		f.at = events[i].Seq
		if !f.yield(events[i], nil) {
			return false
		}
	}
	if len(events) < followBatch {
		f.at = max(f.at, last)
	}
	return true
}

// skip tells of events that are gone, unless all of them were read before they
// went, and says whether to go on.
func (f *follower) skip(first uint64, events []api.Event) bool {
	if !f.strict {
		return true
	}
	if f.filter.pattern.All() && f.filter.name == "" && f.filter.since.IsZero() &&
		len(events) > 0 && events[0].Seq == f.at+1 {
		return true
	}
	return f.yield(api.Event{}, &TrimmedError{First: first})
}

// fail yields an error unless it only says that ctx or the log has ended.
func (f *follower) fail(ctx context.Context, err error) {
	select {
	case <-f.log.closed:
		return
	default:
	}
	if ctx.Err() == nil {
		f.yield(api.Event{}, err)
	}
}
