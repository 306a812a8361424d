package supervise

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	g := Guard{Sound: time.Second, First: 100 * time.Millisecond, Max: 300 * time.Millisecond, Deaths: 6, Open: time.Minute}
	var s GuardState
	var got []Verdict
	die := func(served time.Duration) {
		var v Verdict
		s, v = g.Died(s, served)
		got = append(got, v)
	}
	for range 7 {
		die(0)
	}
	die(time.Second) // the try after the breaker was sound
	die(999 * time.Millisecond)
	ms := time.Millisecond
	want := []Verdict{{}, {Wait: 100 * ms}, {Wait: 200 * ms}, {Wait: 300 * ms}, {Wait: 300 * ms},
		{Wait: time.Minute, Open: true}, {Wait: time.Minute, Open: true}, {}, {Wait: 100 * ms}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// However a part dies, the wait is bounded, what was sound comes back at once, and
// the breaker opens exactly after so many deaths in a row.
func TestGuardAlways(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := Guard{Sound: time.Second, First: time.Duration(rapid.Int64Range(1, 1e9).Draw(t, "first")), Deaths: rapid.IntRange(2, 80).Draw(t, "deaths"),
			Max: time.Duration(rapid.Int64Range(1, 1e10).Draw(t, "max")), Open: time.Minute}
		var s GuardState
		row := 0
		for _, served := range rapid.SliceOf(rapid.Int64Range(0, 2e9)).Draw(t, "served") {
			var v Verdict
			s, v = g.Died(s, time.Duration(served))
			if time.Duration(served) >= g.Sound {
				row = 0
			}
			row++
			switch {
			case v.Open != (row >= g.Deaths):
				t.Fatalf("after %d deaths in a row: %+v", row, v)
			case v.Open && v.Wait != g.Open, !v.Open && v.Wait > g.Max, row == 1 && v.Wait != 0, row > 1 && v.Wait <= 0:
				t.Fatalf("after %d deaths in a row: %+v", row, v)
			}
		}
	})
}
