package job

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// The bounds of what a caller may ask for.
const (
	maxArgs     = 1 << 20 // bytes, of arguments and of results
	maxName     = 128
	maxAttempts = 1000
	maxTags     = 32
	maxPriority = 1000
)

// DefaultQueue is the queue of jobs that name none.
const DefaultQueue = "default"

// Scope says how long a unique key keeps others away.
type Scope int

// The scopes.
const (
	// ScopeNone: no key.
	ScopeNone Scope = iota
	// WhilePending: until its first attempt begins.
	WhilePending
	// WhileActive: until the job is final.
	WhileActive
	// WithinPeriod: for a time after it was enqueued.
	WithinPeriod
)

// Unique keeps a second job with the same key away: Enqueue then returns the one
// that is there.
type Unique struct {
	Key   string `json:"key"`
	Scope Scope  `json:"scope"`
	// Period belongs to WithinPeriod.
	Period time.Duration `json:"period,omitempty"`
}

// Spec is a job to be done.
type Spec struct {
	// Name is the name of its handler.
	Name string `json:"name"`
	// Args is handed to the handler, at most 1 MiB.
	Args json.RawMessage `json:"args,omitempty"`
	// Queue defaults to DefaultQueue.
	Queue string `json:"queue,omitempty"`
	// Priority orders the jobs of a queue, -1000 to 1000, higher ones first.
	// Default 0.
	Priority int `json:"priority,omitempty"`
	// At is the time before which it does not start. Default: now.
	At time.Time `json:"at,omitzero"`
	// MaxAttempts defaults to 3.
	MaxAttempts int `json:"max_attempts,omitempty"`
	// Backoff is the wait between attempts.
	Backoff Backoff `json:"backoff,omitzero"`
	// Timeout ends an attempt that takes longer. 0: none.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Deadline is when the job is of no more use. Zero: never.
	Deadline time.Time `json:"deadline,omitzero"`
	// Key groups jobs for a queue's limit per key.
	Key string `json:"key,omitempty"`
	// Unique, when its key is set, makes it the only one.
	Unique Unique `json:"unique,omitzero"`
	// Tags are words to find it by, without commas.
	Tags []string `json:"tags,omitempty"`
	// Meta is kept with the job and handed to the handler.
	Meta map[string]string `json:"meta,omitempty"`
	// Trace is the W3C trace context of whoever enqueued it.
	Trace string `json:"trace,omitempty"`
}

// options is the part of a Spec that only a running attempt needs.
type options struct {
	Backoff Backoff           `json:"backoff,omitzero"`
	Timeout time.Duration     `json:"timeout,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	Trace   string            `json:"trace,omitempty"`
}

func (o options) text() (string, error) {
	if o.Backoff == (Backoff{}) && o.Timeout == 0 && o.Meta == nil && o.Trace == "" {
		return "", nil
	}
	b, err := json.Marshal(o)
	return string(b), err
}

// Job is a job as it is kept.
type Job struct {
	ID int64
	Spec
	Status
	Created time.Time
	// Progress is 0 to 100, as its handler last said, with Message.
	Progress float64
	Message  string
	Result   json.RawMessage
}

// filled returns the spec with its defaults, or what is wrong with it.
func (s Spec) filled(now time.Time) (Spec, error) {
	if s.Queue == "" {
		s.Queue = DefaultQueue
	}
	if s.MaxAttempts == 0 {
		s.MaxAttempts = 3
	}
	if s.At.IsZero() {
		s.At = now
	}
	switch {
	case !validName(s.Name):
		return s, wrong("name", "cannot be %.140q: it is letters, digits, '_', '-' and '.', at most %d of them", s.Name, maxName)
	case !validName(s.Queue):
		return s, wrong("queue", "cannot be %.140q: it is letters, digits, '_', '-' and '.', at most %d of them", s.Queue, maxName)
	case len(s.Args) > maxArgs:
		return s, wrong("args", "cannot have %d bytes, more than 1 MiB: put the data into a file and hand over its path", len(s.Args))
	case len(s.Args) > 0 && !json.Valid(s.Args):
		return s, wrong("args", "cannot be read: they are not JSON")
	case s.Priority < -maxPriority || s.Priority > maxPriority:
		return s, wrong("priority", "cannot be %d: it is -%d to %d", s.Priority, maxPriority, maxPriority)
	case s.MaxAttempts < 1 || s.MaxAttempts > maxAttempts:
		return s, wrong("max_attempts", "cannot be %d: it is 1 to %d", s.MaxAttempts, maxAttempts)
	case s.Timeout < 0:
		return s, wrong("timeout", "cannot be %s: it is above 0, or 0 for none", s.Timeout)
	case !s.Deadline.IsZero() && !s.Deadline.After(s.At):
		return s, wrong("deadline", "cannot be before the job may start (%s)", s.At.Format(time.RFC3339))
	case len(s.Tags) > maxTags:
		return s, wrong("tags", "cannot be %d, more than %d", len(s.Tags), maxTags)
	case (s.Unique.Key == "") != (s.Unique.Scope == ScopeNone):
		return s, wrong("unique", "needs both a key and a scope")
	case s.Unique.Scope == WithinPeriod && s.Unique.Period <= 0:
		return s, wrong("unique.period", "cannot be %s: it is above 0", s.Unique.Period)
	}
	for _, tag := range s.Tags {
		if tag == "" || strings.ContainsAny(tag, ",%") {
			return s, wrong("tags", "cannot contain %q: a tag is not empty and has no comma and no percent sign", tag)
		}
	}
	return s, nil
}

func wrong(field, format string, args ...any) error {
	e := api.Errorf(api.CodeInvalid, format, args...)
	e.Field = field
	return e
}

// validName: what may stand in the type of an event.
func validName(s string) bool {
	return s != "" && len(s) <= maxName && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
	}) < 0
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// event tells of a job. Its data begin with the names of the external job
// protocol, jobId and name.
func (j *Job) event(typ string, now time.Time, more ...any) api.Event {
	b := make([]byte, 0, 96)
	b = append(b, `{"jobId":"`...)
	b = strconv.AppendInt(b, j.ID, 10)
	b = append(b, `","name":"`...)
	b = append(b, j.Name...) // validName: nothing to escape
	b = append(b, '"')
	for i := 0; i+1 < len(more); i += 2 {
		b = append(b, ',', '"')
		b = append(b, more[i].(string)...)
		b = append(b, '"', ':')
		b = appendJSON(b, more[i+1])
	}
	return api.Event{Type: typ, Time: now, Name: j.Name, Data: append(b, '}')}
}

// appendJSON is json.Marshal without its cost for what most events tell.
func appendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case time.Time:
		return append(v.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
	case json.RawMessage:
		if len(v) > 0 {
			return append(b, v...) // an encoder or a check made it
		}
		return append(b, "null"...)
	}
	text, err := json.Marshal(v)
	if err != nil {
		text = []byte("null") // what cannot be told in JSON is in the row
	}
	return append(b, text...)
}
