package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// Log sends a structured line of log through the outbox. data is an object, or
// nil. Levels below Info count as debug, from Warn and from Error on as those.
func (w *Worker) Log(level slog.Level, message string, data any) error {
	return w.log(time.Now(), level, message, data)
}

// log sends a line of log; a zero time is left out.
func (w *Worker) log(at time.Time, level slog.Level, message string, data any) error {
	if !w.addressed() {
		return nil
	}
	text, err := encode(data)
	if err != nil {
		return err
	}
	if len(text) > 0 && text[0] != '{' {
		return errors.New("cannot log: the data must be an object")
	}
	m := wire.Sent{Level: levelName(level), Message: &message, Data: text}
	if !at.IsZero() {
		m.Timestamp = at.UnixMilli()
	}
	_, err = w.keep(wire.Log, m, false)
	return err
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// Handler returns a handler for log/slog that sends each record as Log does. A
// record that the outbox has no room for is counted (Counters.Full) and given
// up: logging never waits. level is the least that is sent; nil means Info.
func (w *Worker) Handler(level slog.Leveler) slog.Handler {
	if level == nil {
		level = slog.LevelInfo
	}
	return &handler{w: w, level: level}
}

// handler keeps the groups that are open and the attributes within each: one
// frame more than there are groups.
type handler struct {
	w      *Worker
	level  slog.Leveler
	frames []frame
}

// frame is what stands in one group.
type frame struct {
	name  string // empty for the outermost
	attrs []slog.Attr
}

// Enabled says whether records of the level are sent.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return h.w.addressed() && l >= h.level.Level()
}

// Handle sends a record.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	inner := make([]slog.Attr, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool { inner = append(inner, a); return true })
	for i := len(h.frames) - 1; i >= 0; i-- {
		f := h.frames[i]
		inner = append(slices.Clone(f.attrs), inner...)
		if f.name != "" {
			inner = []slog.Attr{{Key: f.name, Value: slog.GroupValue(inner...)}}
		}
	}
	data := map[string]any{}
	for _, a := range inner {
		put(data, a)
	}
	if len(data) == 0 {
		return h.w.log(r.Time, r.Level, r.Message, nil)
	}
	return h.w.log(r.Time, r.Level, r.Message, data)
}

// put follows the rules of slog.Handler: empty attributes and groups are left
// out, and groups without a name stand where they are.
func put(to map[string]any, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
	case v.Kind() == slog.KindGroup:
		in := to
		if a.Key != "" {
			in = map[string]any{}
		}
		for _, member := range v.Group() {
			put(in, member)
		}
		if a.Key != "" && len(in) > 0 {
			to[a.Key] = in
		}
	default:
		to[a.Key] = plain(v)
	}
}

// plain is a value as JSON should have it.
func plain(v slog.Value) any {
	switch v.Kind() {
	case slog.KindDuration:
		return v.Duration().String()
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	}
	switch x := v.Any().(type) {
	case error:
		return x.Error()
	default:
		if _, err := encode(x); err != nil {
			return v.String()
		}
		return x
	}
}

// WithAttrs returns a handler whose records have the attributes.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	out := *h
	out.frames = slices.Clone(h.frames)
	if len(out.frames) == 0 {
		out.frames = []frame{{}}
	}
	last := &out.frames[len(out.frames)-1]
	last.attrs = append(slices.Clone(last.attrs), attrs...)
	return &out
}

// WithGroup returns a handler whose later attributes stand in a group.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	out := *h
	out.frames = append(slices.Clone(h.frames), frame{name: name})
	return &out
}
