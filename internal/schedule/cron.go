package schedule

import (
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// Expr is a cron expression.
type Expr struct {
	// Bit n of a field is set when the value n matches.
	second, minute, hour, day, month, weekday uint64
	anyDay, anyWeekday                        bool // the field began with "*"
	anyHour                                   bool
	every                                     time.Duration // of @every; the fields are not used
}

// field is what may stand in one field.
type field struct {
	name     string
	min, max int
	names    []string // of min and those after it, in three letters
}

// fields are those of an expression with seconds.
func fields() []field {
	return []field{
		{"second", 0, 59, nil},
		{"minute", 0, 59, nil},
		{"hour", 0, 23, nil},
		{"day of the month", 1, 31, nil},
		{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
		{"day of the week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
	}
}

// shorthand is what stands for an expression.
func shorthand(text string) (string, bool) {
	switch text {
	case "@yearly", "@annually":
		return "0 0 1 1 *", true
	case "@monthly":
		return "0 0 1 * *", true
	case "@weekly":
		return "0 0 * * 0", true
	case "@daily", "@midnight":
		return "0 0 * * *", true
	case "@hourly":
		return "0 * * * *", true
	}
	return "", false
}

// Parse reads an expression: minute, hour, day of the month, month and day of the
// week, with seconds before them if there are six fields; each a list of values,
// ranges and steps, "*" for all. Months and days of the week have names, 7 is Sunday
// too. When both days are restricted one of them suffices. @yearly, @monthly,
// @weekly, @daily, @hourly and "@every 90s" stand for what they say.
func Parse(text string) (Expr, error) {
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, "@every "); ok {
		d, err := time.ParseDuration(strings.TrimSpace(rest))
		if err != nil || d < time.Second || d%time.Second != 0 {
			return Expr{}, invalid(text, "@every takes whole seconds, at least one, such as 90s or 2h")
		}
		return Expr{every: d}, nil
	}
	whole := text
	if full, ok := shorthand(text); ok {
		whole = full
	}
	parts := strings.Fields(whole)
	if len(parts) == 5 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 6 {
		return Expr{}, invalid(text, "it has %d fields; five are needed (minute, hour, day of the month, month, day of the week), or six with seconds first", len(parts))
	}
	var e Expr
	for i, to := range []*uint64{&e.second, &e.minute, &e.hour, &e.day, &e.month, &e.weekday} {
		set, err := fields()[i].parse(parts[i])
		if err != "" {
			return Expr{}, invalid(text, "%s", err)
		}
		*to = set
	}
	if e.weekday&(1<<7) != 0 {
		e.weekday = e.weekday&^(1<<7) | 1
	}
	e.anyHour = strings.HasPrefix(parts[2], "*")
	e.anyDay, e.anyWeekday = strings.HasPrefix(parts[3], "*"), strings.HasPrefix(parts[5], "*")
	if e.nextWall(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Expr{}, invalid(text, "there is no such day in any year")
	}
	return e, nil
}

func invalid(text, format string, args ...any) error {
	e := api.Errorf(api.CodeInvalid, "cannot use %.100q: "+format, append([]any{text}, args...)...)
	e.Field = "cron"
	return e
}

// parse reads a list. The text that it returns says what is wrong.
func (f field) parse(text string) (set uint64, wrong string) {
	for part := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(part, "/")
		n := 1
		if stepped {
			var err error
			if n, err = strconv.Atoi(step); err != nil || n < 1 || n > f.max {
				return 0, "the step " + strconv.Quote(step) + " of the " + f.name + " is not 1 to " + strconv.Itoa(f.max)
			}
		}
		low, high := f.min, f.max
		if span == "*" && f.max == 7 {
			high = 6 // Sunday once
		}
		if span != "*" {
			first, last, ranged := strings.Cut(span, "-")
			var ok bool
			if low, ok = f.value(first); !ok {
				return 0, f.outside(first)
			}
			switch {
			case ranged:
				if high, ok = f.value(last); !ok {
					return 0, f.outside(last)
				}
			case !stepped:
				high = low
			}
			if high < low {
				return 0, "the range " + strconv.Quote(span) + " of the " + f.name + " runs backwards"
			}
		}
		for v := low; v <= high; v += n {
			set |= 1 << v
		}
	}
	return set, ""
}

func (f field) outside(text string) string {
	s := strconv.Quote(text) + " is no " + f.name + " (" + strconv.Itoa(f.min) + " to " + strconv.Itoa(f.max)
	if f.names != nil {
		s += ", or a name such as " + f.names[0]
	}
	return s + ")"
}

func (f field) value(text string) (int, bool) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return f.min + i, true
		}
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= f.min && n <= f.max
}

// years bounds the search for the next time: 29 February may be 8 years away, and
// a weekday on it 40.
const years = 41

// nextWall returns the next time above t that matches, as if no clock were ever
// changed; t is in UTC and stands for the wall clock. Zero means never.
func (e Expr) nextWall(t time.Time) time.Time {
	t = t.Truncate(time.Second).Add(time.Second)
	last := t.Year() + years
	for t.Year() <= last {
		year, month, day := t.Date()
		switch {
		case e.month&(1<<month) == 0:
			t = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
		case !e.onDay(t):
			t = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
		default:
			if at, ok := e.onClock(t); ok {
				return at
			}
			t = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
		}
	}
	return time.Time{}
}

func (e Expr) onDay(t time.Time) bool {
	day, weekday := e.day&(1<<t.Day()) != 0, e.weekday&(1<<t.Weekday()) != 0
	if e.anyDay || e.anyWeekday {
		return day && weekday
	}
	return day || weekday
}

// onClock returns the first matching time of t's day that is not before t.
func (e Expr) onClock(t time.Time) (time.Time, bool) {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	h := from(e.hour, hour)
	if h > hour {
		minute, second = 0, 0
	}
	for ; h < 24; h, minute, second = from(e.hour, h+1), 0, 0 {
		m := from(e.minute, minute)
		if m > minute {
			second = 0
		}
		for ; m < 60; m, second = from(e.minute, m+1), 0 {
			if s := from(e.second, second); s < 60 {
				return time.Date(year, month, day, h, m, s, 0, time.UTC), true
			}
		}
	}
	return time.Time{}, false
}

// from returns the lowest value of a set that is at least v, or 64.
func from(set uint64, v int) int {
	if v >= 64 {
		return 64
	}
	return bits.TrailingZeros64(set >> v << v)
}

// Next returns the next time after a moment at which the expression fires in a zone,
// by the rules of the package's comment. Zero means never.
func (e Expr) Next(after time.Time, zone *time.Location) time.Time {
	after = after.In(zone)
	switch {
	case e.every > 0:
		return after.Truncate(time.Second).Add(e.every)
	case e.anyHour:
		return e.nextPassing(after)
	}
	for wall := e.nextWall(wallOf(after)); !wall.IsZero(); wall = e.nextWall(wall) {
		if t := firstShown(wall, zone); t.After(after) {
			return t
		}
	}
	return time.Time{}
}

// wallOf is what the clock shows at t, as a time in UTC.
func wallOf(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// firstShown is the first moment at which the clock shows a time, or for one that it
// skips the moment of the change.
func firstShown(wall time.Time, zone *time.Location) time.Time {
	const far = 26 * time.Hour // beyond any offset
	_, before := wall.Add(-far).In(zone).Zone()
	_, after := wall.Add(far).In(zone).Zone()
	for _, offset := range []int{max(before, after), min(before, after)} { // the higher offset comes first
		t := wall.Add(-time.Duration(offset) * time.Second).In(zone)
		if _, is := t.Zone(); is == offset {
			return t
		}
	}
	start, _ := wall.Add(-time.Duration(before) * time.Second).In(zone).ZoneBounds()
	return start.In(zone)
}

// nextPassing goes by the time that passes, from one change of the clock to the next.
func (e Expr) nextPassing(after time.Time) time.Time {
	for range 4 * years {
		wall := e.nextWall(wallOf(after))
		if wall.IsZero() {
			return wall
		}
		t := after.Add(wall.Sub(wallOf(after)))
		_, end := after.ZoneBounds()
		if end.IsZero() || t.Before(end) {
			return t
		}
		// What the clock shows just before the change, by the rules after it.
		end = end.In(after.Location())
		if wall := e.nextWall(wallOf(end).Add(-time.Second)); wall.Equal(wallOf(end)) {
			return end
		}
		after = end
	}
	return time.Time{}
}
