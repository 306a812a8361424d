package event_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store/sqlite"
	"pgregory.net/rapid"
)

func openLog(t testing.TB, path string) *event.Log {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := event.Open(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

func newLog(t testing.TB) *event.Log { return openLog(t, filepath.Join(t.TempDir(), "p.db")) }

func add(t testing.TB, l *event.Log, types ...string) uint64 {
	t.Helper()
	var events []api.Event
	for _, typ := range types {
		events = append(events, api.Event{Type: typ, Name: "web"})
	}
	seq, err := l.Append(context.Background(), events...)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{"", []string{"a", "a.b"}, nil},
		{"*", []string{"a", "a.b"}, nil},
		{"process.*", []string{"process.exited", "process.web.exited", "process."}, []string{"process", "xprocess.a"}},
		{"process.*.exited", []string{"process.a.exited", "process.a.b.exited"}, []string{"process.exited", "process.a.exited.x"}},
		{"a,b.*", []string{"a", "b.c"}, []string{"a.c", "b"}},
		{"a*a", []string{"aa", "aba"}, []string{"a", "ab"}},
		{"*.x.*.x", []string{"a.x.b.x", "a.x.x.x"}, []string{"a.x"}},
	} {
		p, err := event.Compile(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		for _, typ := range c.yes {
			if !p.Match(typ) {
				t.Errorf("%q does not match %q", c.pattern, typ)
			}
		}
		for _, typ := range c.not {
			if p.Match(typ) {
				t.Errorf("%q matches %q", c.pattern, typ)
			}
		}
	}
	for _, bad := range []string{",", "a,", "a b", "a\nb", "[a-z]", "é", strings.Repeat("a", 5000)} {
		if _, err := event.Compile(bad); api.CodeOf(err) != api.CodeInvalid || err == nil {
			t.Errorf("%.20q: %v, want invalid", bad, err)
		}
	}
}

// TestPatternsAgainstModel compares with a matcher that tries everything.
func TestPatternsAgainstModel(t *testing.T) {
	t.Parallel()
	var model func(p, s string) bool
	model = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return model(p[1:], s) || s != "" && model(p, s[1:])
		}
		return s != "" && s[0] == p[0] && model(p[1:], s[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab.*]{1,8}`).Draw(t, "pattern")
		typ := rapid.StringMatching(`[ab.]{0,10}`).Draw(t, "type")
		p, err := event.Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.Match(typ), model(pattern, typ); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, typ, got, want)
		}
	})
}

func TestMalformedEvents(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	bad := []api.Event{{Type: ""}, {Type: "a b"}, {Type: "a\nb"}, {Type: "a", Data: []byte("{")}, {Type: "a", Data: make([]byte, 2<<20)}}
	for _, e := range bad {
		if _, err := l.Append(t.Context(), api.Event{Type: "fine"}, e); err == nil || api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%.20q: %v, want invalid", e.Type, err)
		}
	}
	if _, last := l.Bounds(); last != 0 {
		t.Errorf("%d events were appended", last)
	}
	if err := l.AppendFrom(t.Context(), "journal", 1, bad); err != nil {
		t.Fatal(err)
	}
	page, err := l.Query(t.Context(), api.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range page.Events {
		types = append(types, e.Type)
	}
	if diff := cmp.Diff([]string{"event.malformed", "event.malformed", "event.malformed", "a", "a"}, types); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
	if got := string(page.Events[3].Data); got != `"{"` {
		t.Errorf("data = %s", got)
	}
}

func TestReplayDoublesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	for range 3 { // each time from the start, over a new log
		l := openLog(t, path)
		for cursor := uint64(1); cursor <= 20; cursor++ {
			if err := l.AppendFrom(t.Context(), "journal", cursor, []api.Event{{Type: "a"}, {Type: "b"}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, last := l.Bounds(); last != 40 {
			t.Errorf("newest = %d, want 40", last)
		}
		if cursor, err := l.Cursor(t.Context(), "journal"); cursor != 20 || err != nil {
			t.Errorf("cursor = %d, %v", cursor, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	var types []string
	for i := range 200 {
		types = append(types, fmt.Sprintf("t.%02d.%s", i%50, []string{"x", "y"}[i%2]))
	}
	add(t, l, types...)
	for _, c := range []struct {
		q     api.EventQuery
		n     int
		first uint64
		more  bool
	}{
		{api.EventQuery{}, 100, 1, true},
		{api.EventQuery{After: 100}, 100, 101, false},
		{api.EventQuery{Last: 3}, 3, 198, false},
		{api.EventQuery{Pattern: "t.07.y"}, 4, 8, false},
		{api.EventQuery{Pattern: "t.0*.x", Limit: 7}, 7, 1, true},
		{api.EventQuery{Pattern: "*.x,*.00.*", Limit: 90}, 90, 1, true}, // too many types for the index: a scan
		{api.EventQuery{Pattern: "t.*.x", Last: 99}, 99, 3, false},      // the same, from the end
		{api.EventQuery{Pattern: "none.*"}, 0, 0, false},
		{api.EventQuery{Name: "db"}, 0, 0, false},
	} {
		page, err := l.Query(t.Context(), c.q)
		if err != nil {
			t.Errorf("%+v: %v", c.q, err)
			continue
		}
		if len(page.Events) != c.n || page.More != c.more || page.FirstSeq != 1 || page.LastSeq != 200 ||
			c.n > 0 && page.Events[0].Seq != c.first {
			t.Errorf("%+v: %d events from %+v, more %v", c.q, len(page.Events), page.Events[:min(1, len(page.Events))], page.More)
		}
	}
	for _, q := range []api.EventQuery{{Limit: 1001}, {Limit: -1}, {Last: 1001}, {Pattern: ","}} {
		if _, err := l.Query(t.Context(), q); err == nil || api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%+v: %v, want invalid", q, err)
		}
	}
}

// TestFollowersSeeEverything has producers and followers that start at any time
// and consume at any pace; some are so slow that they read from the store.
func TestFollowersSeeEverything(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	const producers, each, burst = 8, 20, 40 // 6400 events, thrice the ring
	const total = producers * each * burst
	gate := make(chan struct{})
	var consumers, writers sync.WaitGroup
	for i := range 10 {
		consumers.Go(func() {
			want := uint64(1)
			for e, err := range l.Follow(t.Context(), api.EventQuery{}) {
				if err != nil || e.Seq != want {
					t.Errorf("event %d, %v; want %d", e.Seq, err, want)
					return
				}
				if i%2 == 0 && want == 5 {
					<-gate // behind until all is written
				}
				if want++; want > total {
					return
				}
			}
		})
	}
	for range producers {
		writers.Go(func() {
			types := make([]string, burst)
			for i := range types {
				types[i] = "a.b"
			}
			for range each {
				add(t, l, types...)
			}
		})
	}
	writers.Wait()
	close(gate)
	consumers.Wait()
}

func TestFollowFilters(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	add(t, l, "a.1", "b.1", "a.2", "b.2", "a.3")
	var got []uint64
	for e, err := range l.Follow(t.Context(), api.EventQuery{Pattern: "a.*", Last: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.Seq); len(got) == 2 {
			add(t, l, "b.3", "a.4", "c", "a.9") // a type that did not exist before
		}
		if e.Type == "a.9" {
			break
		}
	}
	if diff := cmp.Diff([]uint64{3, 5, 7, 9}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestFollowTellsOfTrimming(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	types := make([]string, 3000)
	for i := range types {
		types[i] = "a"
	}
	add(t, l, types...)
	n, err := l.Retain(t.Context(), api.Retention{MaxCount: 100}, time.Now())
	if n != 2900 || err != nil {
		t.Fatalf("Retain = %d, %v; want 2900", n, err)
	}
	for _, c := range []struct {
		after uint64
		told  bool
		first uint64
	}{{5, true, 2901}, {0, false, 2901}, {2900, false, 2901}, {2950, false, 2951}} {
		told := false
		for e, err := range l.Follow(t.Context(), api.EventQuery{After: c.after}) {
			var trimmed *event.TrimmedError
			if errors.As(err, &trimmed) {
				told = true
				continue
			}
			if err != nil || e.Seq != c.first || told != c.told {
				t.Errorf("after %d: event %d, %v, told %v; want %d, %v", c.after, e.Seq, err, told, c.first, c.told)
			}
			break
		}
	}
}

func TestRetainByAge(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	now := time.Now()
	var events []api.Event
	for i := range 5000 {
		events = append(events, api.Event{Type: "a", Time: now.Add(time.Duration(i-5000) * time.Second)})
	}
	if _, err := l.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	n, err := l.Retain(t.Context(), api.Retention{MaxAge: api.Duration(1000 * time.Second)}, now)
	if first, last := l.Bounds(); n != 4000 || err != nil || first != 4001 || last != 5000 {
		t.Errorf("%d removed, %v, %d to %d; want 4000, 4001 to 5000", n, err, first, last)
	}
}

func TestCloseEndsFollowersAndRefuses(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	add(t, l, "a")
	for _, err := range l.Follow(t.Context(), api.EventQuery{}) {
		if err != nil {
			t.Error(err)
		}
		go func() { _ = l.Close() }() // the cleanup waits for it and reports
	}
	if _, err := l.Append(t.Context(), api.Event{Type: "a"}); err == nil || api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("Append after Close: %v, want unavailable", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, producers := range []int{1, 64} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			l := newLog(b)
			e := api.Event{Type: "process.exited", Name: "web", ProcessID: "proc_1", Generation: 3, Data: []byte(`{"code":1,"text":"` + strings.Repeat("x", 100) + `"}`)}
			b.ReportAllocs()
			b.SetParallelism((producers + 1) / 2) // times GOMAXPROCS
			if producers == 1 {
				for b.Loop() {
					if _, err := l.Append(b.Context(), e); err != nil {
						b.Fatal(err)
					}
				}
			} else {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := l.Append(context.Background(), e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkFanOut(b *testing.B) {
	for _, followers := range []int{1, 20} {
		b.Run(fmt.Sprintf("followers=%d", followers), func(b *testing.B) {
			l := newLog(b)
			n := uint64(b.N)
			var wg sync.WaitGroup
			for range followers {
				wg.Go(func() {
					for e, err := range l.Follow(context.Background(), api.EventQuery{}) {
						if err != nil {
							b.Error(err)
							return
						}
						if e.Seq == n {
							return
						}
					}
				})
			}
			events := make([]api.Event, 100)
			for i := range events {
				events[i] = api.Event{Type: "process.exited", Name: "web"}
			}
			for left := b.N; left > 0; left -= 100 {
				if _, err := l.Append(context.Background(), events[:min(left, 100)]...); err != nil {
					b.Fatal(err)
				}
			}
			wg.Wait()
			b.ReportMetric(float64(b.N*followers)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}
