package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/perdure/perdure/api"
)

// The waits between attempts to reach a server that was lost.
const (
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = 5 * time.Second
)

// TrimmedError says that events which were asked for are not kept any more.
// What follows begins at First.
type TrimmedError struct {
	// First is the place of the oldest event that is kept.
	First uint64 `json:"first"`
}

// Error says it as a sentence.
func (e *TrimmedError) Error() string {
	return fmt.Sprintf("cannot replay all events: those before %d are no longer kept", e.First)
}

// FollowOption changes how FollowEvents goes on.
type FollowOption func(*followOptions)

type followOptions struct{ stopAtLoss bool }

// StopAtLoss makes FollowEvents end with CodeUnavailable when the server is
// lost, in place of connecting again.
func StopAtLoss() FollowOption { return func(o *followOptions) { o.stopAtLoss = true } }

// Events returns one page of events.
func (c *Client) Events(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	var out api.EventPage
	err := c.call(ctx, http.MethodGet, "/v1/events", eventValues(q), nil, &out)
	return out, err
}

// FollowEvents replays the events after q.After (or since q.Since, or the last
// q.Last) and goes on with new ones until ctx ends; q.Limit is not used. When
// the server is lost it connects again, with growing waits of at most 5s, and
// continues after the last event it yielded: none is lost and none comes twice.
// The first connection must succeed, so that a server that does not run is told.
//
// The end of ctx ends it without an error. A *TrimmedError is yielded with a
// zero event when events are no longer kept; the loop may go on then. Any other
// error is the last.
func (c *Client) FollowEvents(ctx context.Context, q api.EventQuery, opts ...FollowOption) iter.Seq2[api.Event, error] {
	var o followOptions
	for _, opt := range opts {
		opt(&o)
	}
	return func(yield func(api.Event, error) bool) {
		f := &follower{client: c, query: q, yield: yield}
		wait := reconnectFirst
		for {
			err := f.connect(ctx)
			switch {
			case f.stopped || ctx.Err() != nil:
				return
			case !f.connected || o.stopAtLoss || api.CodeOf(err) != api.CodeUnavailable:
				yield(api.Event{}, err)
				return
			}
			if f.progress {
				wait = reconnectFirst
			}
			if !pause(ctx, wait/2+rand.N(wait/2+1)) {
				return
			}
			wait = min(2*wait, reconnectMax)
		}
	}
}

// follower is one FollowEvents over all its connections.
type follower struct {
	client    *Client
	query     api.EventQuery
	yield     func(api.Event, error) bool
	lastID    string // what the server said last
	connected bool   // once at least
	progress  bool   // the newest connection was made
	stopped   bool   // the consumer wants no more
}

// connect follows over one connection until it ends, and says why.
func (f *follower) connect(ctx context.Context) error {
	f.progress = false
	header := http.Header{"Accept": {"text/event-stream"}}
	values := eventValues(f.query)
	if f.lastID != "" {
		header.Set("Last-Event-ID", f.lastID)
		for _, k := range []string{"after", "since", "last"} {
			values.Del(k)
		}
	}
	values.Del("limit")
	resp, err := f.client.open(ctx, http.MethodGet, "/v1/events/stream", values, nil, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f.connected, f.progress = true, true
	r := newSSEReader(resp.Body)
	for {
		m, err := r.next()
		if err != nil {
			return f.client.lost(ctx, err)
		}
		if err := f.deliver(m); err != nil || f.stopped {
			return err
		}
	}
}

// deliver hands one message on.
func (f *follower) deliver(m sseMessage) error {
	switch {
	case m.event == "" && len(m.data) == 0:
		// An id alone: where the stream stands.
	case m.event == "stream.trimmed":
		e := new(TrimmedError)
		if err := json.Unmarshal(m.data, e); err != nil {
			return f.garbled(err)
		}
		f.stopped = !f.yield(api.Event{}, e)
	case m.event == "stream.error":
		e := new(api.Error)
		if err := json.Unmarshal(m.data, e); err != nil {
			return f.garbled(err)
		}
		return e
	default:
		var e api.Event
		if err := json.Unmarshal(m.data, &e); err != nil {
			return f.garbled(err)
		}
		f.stopped = !f.yield(e, nil)
	}
	if m.id != "" {
		f.lastID = m.id
	}
	return nil
}

func (f *follower) garbled(err error) error {
	return api.Errorf(api.CodeInternal, "cannot read the event stream of %s: %v", f.client.where, err)
}

// pause waits and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func eventValues(q api.EventQuery) url.Values {
	v := url.Values{}
	setText(v, "pattern", q.Pattern)
	setText(v, "name", q.Name)
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Since != nil {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Last != 0 {
		v.Set("last", strconv.Itoa(q.Last))
	}
	return v
}

func setText(v url.Values, key, text string) {
	if text != "" {
		v.Set(key, text)
	}
}
