package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
)

// Selection is what the routes of events have in common.
type Selection struct {
	Pattern string `query:"pattern" doc:"Types to select: * stands for any text, several are joined by commas"`
	Name    string `query:"name" doc:"Select one process"`
	After   uint64 `query:"after" doc:"Select events with a greater seq"`
	Since   string `query:"since" doc:"Select events at or after a time (RFC 3339), or of the last span (10m)"`
	Last    int    `query:"last" minimum:"0" maximum:"1000" doc:"Select the last n in place of the first"`
}

func (in *Selection) query(now time.Time) (api.EventQuery, error) {
	q := api.EventQuery{Pattern: in.Pattern, Name: in.Name, After: in.After, Last: in.Last}
	if _, err := event.Compile(in.Pattern); err != nil {
		return q, err
	}
	since, err := parseSince(in.Since, now)
	q.Since = since
	return q, err
}

// parseSince reads a time or a span before now; empty is nil.
func parseSince(text string, now time.Time) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		t := now.Add(-d)
		return &t, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		e := api.Errorf(api.CodeInvalid, "cannot read %q as a time (write it like 2026-01-31T12:00:00Z, or 10m for ten minutes ago)", text)
		e.Field = "since"
		return nil, e
	}
	return &t, nil
}

type eventsInput struct {
	Selection
	Limit int `query:"limit" minimum:"0" maximum:"1000" doc:"Most events of the page; default 100"`
}

func (s *server) events(ctx context.Context, in *eventsInput) (*answer[api.EventPage], error) {
	q, err := in.query(time.Now())
	if err != nil {
		return nil, err
	}
	q.Limit = in.Limit
	page, err := s.backend.Events(ctx, q)
	if page.Events == nil {
		page.Events = []api.Event{}
	}
	return answerWith(page, err)
}

type streamInput struct {
	Selection
	LastEventID string `header:"Last-Event-ID" doc:"Continue after this seq; it stands above after, since and last"`
}

func (s *server) eventStream(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
	q, err := in.query(time.Now())
	if err != nil {
		return nil, err
	}
	if in.LastEventID != "" {
		seq, err := strconv.ParseUint(in.LastEventID, 10, 64)
		if err != nil {
			e := api.Errorf(api.CodeInvalid, "cannot continue after %q: Last-Event-ID is the seq of an event", in.LastEventID)
			e.Field = "Last-Event-ID"
			return nil, e
		}
		q.After, q.Since, q.Last = seq, nil, 0
	}
	// The last events are read here and not by FollowEvents, so that the reader
	// gets a place to continue from even when there are none yet.
	var page api.EventPage
	if q.Last > 0 {
		if page, err = s.backend.Events(ctx, q); err != nil {
			return nil, err
		}
		q.After, q.Since, q.Last = page.LastSeq, nil, 0
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the request's own
		r, w := humago.Unwrap(hc)
		s.streamEvents(r.Context(), w, page, q)
	}}, nil
}

// streamEvents sends the head, the events that were read ahead and then what
// follows.
func (s *server) streamEvents(ctx context.Context, w http.ResponseWriter, page api.EventPage, q api.EventQuery) {
	st := &stream[api.Event]{
		w: w, encode: appendEvent,
		idle: []byte(": heartbeat\n\n"), every: s.opts.Heartbeat,
		begin: func() {
			h := w.Header()
			h.Set("Content-Type", "text/event-stream")
			h.Set("Cache-Control", "no-store")
			h.Set("X-Accel-Buffering", "no") // a proxy shall not hold it back
		},
	}
	head := []byte("retry: 3000\n\n")
	for _, e := range page.Events {
		head, _ = appendEvent(head, item[api.Event]{value: e})
	}
	if q.After > 0 {
		head = append(strconv.AppendUint(append(head, "id: "...), q.After, 10), "\n\n"...)
	}
	if st.send(head) == nil {
		st.run(ctx, func(ctx context.Context) iter.Seq2[api.Event, error] { return s.backend.FollowEvents(ctx, q) })
	}
}

// appendEvent writes one event as a server-sent event. Neither the type nor the
// data can hold the end of a line: JSON escapes it, and a type with one is cut.
func appendEvent(buf []byte, it item[api.Event]) ([]byte, bool) {
	var trimmed *event.TrimmedError
	switch {
	case errors.As(it.err, &trimmed):
		return appendMessage(buf, "stream.trimmed", trimmed), false
	case it.err != nil:
		return appendMessage(buf, "stream.error", publicError(it.err)), true
	}
	e := &it.value
	data, err := json.Marshal(e)
	if err != nil {
		// Only data that are no JSON can do this; the rest is worth telling.
		e.Data = nil
		return appendEvent(buf, it)
	}
	buf = strconv.AppendUint(append(buf, "id: "...), e.Seq, 10)
	typ, _, _ := strings.Cut(strings.ReplaceAll(e.Type, "\r", "\n"), "\n")
	buf = append(append(buf, "\nevent: "...), typ...)
	buf = append(append(buf, "\ndata: "...), data...)
	return append(buf, "\n\n"...), false
}

// appendMessage writes a message of the stream's own, which has no id.
func appendMessage(buf []byte, typ string, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		data = []byte("{}")
	}
	buf = append(append(buf, "event: "...), typ...)
	buf = append(append(buf, "\ndata: "...), data...)
	return append(buf, "\n\n"...)
}
