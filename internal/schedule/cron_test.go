package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/perdure/perdure/api"
	"pgregory.net/rapid"
)

func mustParse(t testing.TB, text string) Expr {
	t.Helper()
	e, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestO5CronAsItIsWritten has what the reference got wrong among the rest: ranges
// with steps, 7 for Sunday, names, both days restricted.
func TestO5CronAsItIsWritten(t *testing.T) {
	t.Parallel()
	after := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a Thursday
	for text, want := range map[string]string{
		"* * * * *":           "2026-01-01 00:01:00",
		"* * * * * *":         "2026-01-01 00:00:01",
		"*/7 * * * * *":       "2026-01-01 00:00:07",
		"1-10/3 * * * *":      "2026-01-01 00:01:00",
		"50/5 * * * *":        "2026-01-01 00:50:00",
		"30 2 * * *":          "2026-01-01 02:30:00",
		"0 0 1 * 1":           "2026-01-05 00:00:00", // the first or a Monday
		"0 0 */2 * 1":         "2026-01-05 00:00:00", // a step of "*" is no restriction: both
		"0 0 * * 7":           "2026-01-04 00:00:00",
		"0 0 * * sun":         "2026-01-04 00:00:00",
		"0 0 * * 5-7":         "2026-01-02 00:00:00",
		"0 12 * FEB,mar Tue":  "2026-02-03 12:00:00",
		"0 0 29 2 *":          "2028-02-29 00:00:00",
		"59 59 23 31 12 *":    "2026-12-31 23:59:59",
		"@yearly":             "2027-01-01 00:00:00",
		"@weekly":             "2026-01-04 00:00:00",
		"@hourly":             "2026-01-01 01:00:00",
		"@every 90s":          "2026-01-01 00:01:30",
		"0 22-23,4-6/2 * * *": "2026-01-01 04:00:00",
	} {
		if got := mustParse(t, text).Next(after, time.UTC).Format(time.DateTime); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	// A range with a step ends at its end.
	var minutes []int
	at := after
	for e := mustParse(t, "1-10/3 * * * *"); len(minutes) < 5; minutes = append(minutes, at.Minute()) {
		at = e.Next(at, time.UTC)
	}
	if diff := cmp.Diff([]int{1, 4, 7, 10, 1}, minutes); diff != "" {
		t.Errorf("1-10/3 (-want +got):\n%s", diff)
	}
}

func TestBadExpressionsAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"61 * * * *": `"61" is no minute (0 to 59)`, "* * * *": "it has 4 fields", "": "it has 0 fields", "* 24 * * *": `no hour (0 to 23)`,
		"* * 0 * *": "no day of the month", "* * * 13 *": "no month (1 to 12, or a name such as jan)", "* * * * 8": "no day of the week",
		"5-1 * * * *": "runs backwards", "*/0 * * * *": "the step", "*/x * * * *": "the step", "0 0 30 2 *": "no such day", "a * * * *": `"a" is no minute`,
		"@every 1ms": "whole seconds", "@every": "it has 1 fields", "@often": "it has 1 fields", "1,,2 * * * *": `"" is no minute`, "-1 * * * *": "no minute",
	} {
		_, err := Parse(text)
		if err == nil || api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// oracle computes the ticks of an expression by looking at each minute of a span.
func oracle(e Expr, z *time.Location, from, to time.Time) []time.Time {
	matches := func(wall time.Time) bool { return e.nextWall(wall.Add(-time.Second)).Equal(wall) }
	var out []time.Time
	shown := map[time.Time]bool{}
	last := wallOf(from.Add(-time.Minute).In(z))
	for t := from; t.Before(to); t = t.Add(time.Minute) {
		wall := wallOf(t.In(z))
		if e.anyHour {
			if matches(wall) {
				out = append(out, t)
			}
			continue
		}
		fires := false
		for w := last.Add(time.Minute); !w.After(wall); w = w.Add(time.Minute) { // more than one after a gap
			if !shown[w] && matches(w) {
				fires = true
			}
			shown[w] = true
		}
		if fires {
			out = append(out, t)
		}
		last = wall
		shown[wall] = true
	}
	return out
}

// TestDaylightSaving2026 plays schedules over every change of the clock of 2026 in
// five zones, among them one of half an hour, against a count minute by minute.
func TestDaylightSaving2026(t *testing.T) {
	t.Parallel()
	changes := map[string]int{"Europe/Berlin": 2, "America/New_York": 2, "Australia/Lord_Howe": 2, "Pacific/Chatham": 2, "Africa/Casablanca": 2}
	expressions := []string{"* * * * *", "*/15 * * * *", "0 */2 * * *", "0 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 0-4 * * *", "45 1 * * *",
		"0 3 * * *", "5 2,3 * * 0", "@daily", "20 1-2 29 3 *", "*/10 2 * * *", "15 2 * * *", "50 3 * * *"}
	for name, want := range changes {
		z := zone(t, name)
		found := 0
		for t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, z); ; found++ {
			_, at := t0.ZoneBounds()
			if at.IsZero() || at.In(z).Year() > 2026 {
				break
			}
			from, to := at.Add(-36*time.Hour), at.Add(36*time.Hour)
			for _, text := range expressions {
				e := mustParse(t, text)
				var got []time.Time
				for x := e.Next(from.Add(-time.Second), z); x.Before(to); x = e.Next(x, z) {
					got = append(got, x.UTC())
				}
				want := oracle(e, z, from.UTC(), to.UTC())
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s in %s around %s (-want +got):\n%s", text, name, at.In(z), diff)
				}
			}
			t0 = at.In(z)
		}
		if found != want {
			t.Errorf("%s changes its clock %d times in 2026, want %d", name, found, want)
		}
	}
}

// TestDaylightSavingInWords is what the documentation says.
func TestDaylightSavingInWords(t *testing.T) {
	t.Parallel()
	z := zone(t, "Europe/Berlin") // 29 March: 2:00 becomes 3:00; 25 October: 3:00 becomes 2:00
	for _, c := range []struct {
		text, from string
		want       []string
	}{
		{"30 2 * * *", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"0,30 2,3 * * *", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"}},
		{"30 2 * * *", "2026-10-24T12:00:00+02:00", []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"30 * * * *", "2026-10-25T01:45:00+02:00", []string{"2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"}},
		{"30 * * * *", "2026-03-29T01:10:00+01:00", []string{"2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"}},
	} {
		at, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for e := mustParse(t, c.text); len(got) < len(c.want); got = append(got, at.Format(time.RFC3339)) {
			at = e.Next(at, z)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s from %s (-want +got):\n%s", c.text, c.from, diff)
		}
	}
}

// TestNextGrows: whatever is asked, Next is later, whole, and nothing is between.
func TestNextGrows(t *testing.T) {
	t.Parallel()
	zones := []*time.Location{time.UTC, zone(t, "Europe/Berlin"), zone(t, "Australia/Lord_Howe"), zone(t, "America/St_Johns")}
	texts := []string{"*/20 * * * *", "15 2 * * *", "7 1-3 * * 0,1", "0 0 1 */3 *", "*/13 5 2-4 * * 6"}
	rapid.Check(t, func(t *rapid.T) {
		z := rapid.SampledFrom(zones).Draw(t, "zone")
		e, err := Parse(rapid.SampledFrom(texts).Draw(t, "cron"))
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(rapid.Int64Range(1767225600, 1798761600).Draw(t, "at"), 0)
		next := e.Next(at, z)
		if !next.After(at) || next.Nanosecond() != 0 {
			t.Fatalf("after %v comes %v", at, next)
		}
		between := at.Add(time.Duration(rapid.Int64Range(0, int64(next.Sub(at))-1).Draw(t, "between")))
		if again := e.Next(between, z); !again.Equal(next) {
			t.Fatalf("after %v comes %v, after %v comes %v", at, next, between, again)
		}
	})
}

func TestYearOfTicks(t *testing.T) {
	t.Parallel()
	e, z := mustParse(t, "*/5 * * * *"), zone(t, "Europe/Berlin")
	n := 0
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, z)
	for at := time.Date(2025, 12, 31, 23, 59, 59, 0, z); ; n++ {
		if at = e.Next(at, z); !at.Before(end) {
			break
		}
	}
	if want := 365 * 24 * 12; n != want {
		t.Errorf("%d ticks in 2026, want %d", n, want)
	}
}
