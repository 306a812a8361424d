package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"slices"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/job"
	"github.com/perdure/perdure/internal/store"
)

// Overlap says what a tick does while the job of an earlier one is not over.
type Overlap string

// The overlaps.
const (
	// QueueOne lets one more job wait, the default.
	QueueOne Overlap = "queue_one"
	// Skip does nothing.
	Skip Overlap = "skip"
	// Restart cancels the earlier job and puts a new one.
	Restart Overlap = "restart"
	// Allow puts a job in any case.
	Allow Overlap = "allow"
)

// CatchUp says what becomes of ticks that passed while no server ran.
type CatchUp string

// The ways to catch up.
const (
	// CatchUpLast puts one job for all of them, the default.
	CatchUpLast CatchUp = "last"
	// CatchUpNone puts none.
	CatchUpNone CatchUp = "none"
	// CatchUpAll puts one for each, up to CatchUpMax of the newest.
	CatchUpAll CatchUp = "all"
)

// late is how old a tick may be and still be on time.
const late = time.Minute

// The bounds of CatchUpMax and of the ticks that are looked at.
const (
	defaultCatchUp = 100
	maxCatchUp     = 1000
)

// Definition is a schedule as it is configured.
type Definition struct {
	Name string `json:"name"`
	// Cron is an expression as Parse takes it.
	Cron string `json:"cron"`
	// Zone is the name of a time zone of the IANA database. Default UTC.
	Zone       string  `json:"zone,omitempty"`
	Overlap    Overlap `json:"overlap,omitempty"`
	CatchUp    CatchUp `json:"catch_up,omitempty"`
	CatchUpMax int     `json:"catch_up_max,omitempty"`
	// Jitter delays each tick by up to that long, always the same for one tick.
	Jitter time.Duration `json:"jitter,omitempty"`
	// Job is what is put. Its At, Key, Unique and Queue are the schedule's where
	// Overlap needs them.
	Job job.Spec `json:"job"`
}

// Schedule is a schedule as it is kept.
type Schedule struct {
	Definition
	// Next is when it fires next; zero: never.
	Next time.Time
	// Last is its last tick.
	Last   time.Time
	Paused bool
	// LastJob is the job of its last tick.
	LastJob int64

	expr Expr
	zone *time.Location
}

// check fills the defaults in, or says what is wrong.
func (d Definition) check() (*Schedule, error) {
	s := &Schedule{Definition: d}
	if s.Overlap == "" {
		s.Overlap = QueueOne
	}
	if s.CatchUp == "" {
		s.CatchUp = CatchUpLast
	}
	if s.CatchUpMax == 0 {
		s.CatchUpMax = defaultCatchUp
	}
	var err error
	if s.expr, err = Parse(d.Cron); err != nil {
		return nil, err
	}
	if s.zone, err = time.LoadLocation(d.Zone); err != nil || d.Zone == "Local" {
		return nil, wrong("zone", "cannot be %q: it is a name such as Europe/Berlin or UTC", d.Zone)
	}
	switch {
	case d.Name == "" || len(d.Name) > 100:
		return nil, wrong("name", "cannot be %.120q: it has 1 to 100 characters", d.Name)
	case !slices.Contains([]Overlap{QueueOne, Skip, Restart, Allow}, s.Overlap):
		return nil, wrong("overlap", "cannot be %q: it is queue_one, skip, restart or allow", d.Overlap)
	case !slices.Contains([]CatchUp{CatchUpLast, CatchUpNone, CatchUpAll}, s.CatchUp):
		return nil, wrong("catch_up", "cannot be %q: it is last, none or all", d.CatchUp)
	case s.CatchUpMax < 1 || s.CatchUpMax > maxCatchUp:
		return nil, wrong("catch_up_max", "cannot be %d: it is 1 to %d", d.CatchUpMax, maxCatchUp)
	case d.Jitter < 0:
		return nil, wrong("jitter", "cannot be %s: it is not below 0", d.Jitter)
	}
	return s, nil
}

func wrong(field, format string, args ...any) error {
	e := api.Errorf(api.CodeInvalid, format, args...)
	e.Field = field
	return e
}

// Coming returns the next n times at which the schedule fires after a moment.
func (s *Schedule) Coming(after time.Time, n int) []time.Time {
	var out []time.Time
	for t := s.expr.Next(after, s.zone); !t.IsZero() && len(out) < n; t = s.expr.Next(t, s.zone) {
		out = append(out, t)
	}
	return out
}

// due decides which ticks are put now, and when the next one is. It is pure.
func (s *Schedule) due(now time.Time) (ticks []time.Time, next time.Time) {
	if s.Next.IsZero() || s.Next.After(now) {
		return nil, s.Next
	}
	most := 1
	if s.CatchUp == CatchUpAll {
		most = s.CatchUpMax
	}
	for next = s.newest(now, most); !next.IsZero() && !next.After(now); next = s.expr.Next(next, s.zone) {
		if ticks = append(ticks, next); len(ticks) > most {
			ticks = ticks[1:]
		}
	}
	if s.CatchUp == CatchUpNone && now.Sub(ticks[len(ticks)-1]) > late {
		return nil, next
	}
	return ticks, next
}

// newest returns a tick from which on there are n others until now, or the first
// that is due. It looks back further and further, so that years of downtime cost no
// more than the ticks that matter.
func (s *Schedule) newest(now time.Time, n int) time.Time {
	for back := late; ; back *= 4 {
		from := now.Add(-back)
		if !from.After(s.Next) || back > 1<<60 {
			return s.Next
		}
		first := s.expr.Next(from, s.zone)
		tick := first
		for i := 1; i < n && !tick.IsZero() && !tick.After(now); i++ {
			tick = s.expr.Next(tick, s.zone)
		}
		if !tick.IsZero() && !tick.After(now) {
			return first
		}
	}
}

// at is when the job of a tick may start.
func (s *Schedule) at(tick time.Time) time.Time {
	if s.Jitter <= 0 {
		return tick
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.Name + tick.UTC().Format(time.RFC3339)))
	return tick.Add(time.Duration(h.Sum64() % uint64(s.Jitter)))
}

const row = `definition, next_at, last_at, last_job, paused`

func scan(r store.Row) (*Schedule, error) {
	var text string
	var next, last, lastJob, paused int64
	if err := r.Scan(&text, &next, &last, &lastJob, &paused); err != nil {
		return nil, err
	}
	var d Definition
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return nil, err
	}
	s, err := d.check()
	if err != nil {
		return nil, err
	}
	s.Next, s.Last, s.LastJob, s.Paused = moment(next), moment(last), lastJob, paused == 1
	return s, nil
}

func moment(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func list(ctx context.Context, r store.Reader, rest string, args ...any) (out []*Schedule, err error) {
	rows, err := r.Rows(ctx, `SELECT `+row+` FROM schedule `+rest, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		s, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func load(ctx context.Context, tx store.Tx, name string) (*Schedule, error) {
	s, err := scan(tx.Row(ctx, `SELECT `+row+` FROM schedule WHERE name = $1`, name))
	if errors.Is(err, store.ErrNoRows) {
		return nil, api.Errorf(api.CodeNotFound, "there is no schedule %q; look with `perdure schedule list`", name)
	}
	return s, err
}
