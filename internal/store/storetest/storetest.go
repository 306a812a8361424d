// Package storetest is the contract of store.Store and of event.Store as a test.
// Every store runs it.
package storetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store"
)

// Store is what a database of Perdure's does.
type Store interface {
	store.Store
	event.Store
}

// Run tests a store. open returns a new, empty store each time; Run closes it.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Store)
	}{
		{"empty", testEmpty},
		{"sequence has no gap", testSequence},
		{"all fields come back", testRoundTrip},
		{"a known cursor is skipped", testCursor},
		{"a failed commit leaves nothing", testCancelled},
		{"select", testSelect},
		{"types", testTypes},
		{"trim", testTrim},
		{"update", testUpdate},
		{"a failed update leaves nothing", testUpdateFails},
		{"many", testMany},
		{"view is a snapshot", testSnapshot},
		{"the sink hears everything in order", testSink},
		{"update waits for its function", testEnds},
		{"hooks run after the commit only", testHooks},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			c.test(t, s)
		})
	}
}

// Base is the time of the first event that Make makes; each later one is a
// second younger.
func Base() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC) }

// Make returns n events of three types and two names in turn.
func Make(n int) []api.Event {
	types := []string{"process.started", "process.exited", "server.reloaded"}
	out := make([]api.Event, n)
	for i := range out {
		out[i] = api.Event{Type: types[i%3], Time: Base().Add(time.Duration(i) * time.Second)}
		if i%3 != 2 {
			out[i].Name = []string{"web", "db"}[i/3%2]
		}
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, s Store, events []api.Event) {
	t.Helper()
	must(t, s.Commit(t.Context(), &event.Batch{Events: events}))
}

// seq returns the Seq of each event that is kept, in order: on SQLite they are 1,
// 2, 3, on PostgreSQL they grow with gaps. It waits until all of n are settled,
// which another transaction of the same server may hold up for a moment.
func seq(t *testing.T, s Store, n int) []uint64 {
	t.Helper()
	for {
		_, last, err := s.Bounds(t.Context())
		must(t, err)
		all, err := s.Select(t.Context(), event.Selection{Through: last, Limit: 10000})
		must(t, err)
		if len(all) >= n {
			out := make([]uint64, len(all))
			for i, e := range all {
				out[i] = e.Seq
			}
			return out
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the test has ended")
		}
	}
}

// places turns Seqs into places, from 1.
func places(all []uint64, events []api.Event) []uint64 {
	out := []uint64{}
	for _, e := range events {
		i, _ := slices.BinarySearch(all, e.Seq)
		out = append(out, uint64(i+1))
	}
	return out
}

func testEmpty(t *testing.T, s Store) {
	first, last, err := s.Bounds(t.Context())
	must(t, err)
	if first != 0 || last != 0 {
		t.Errorf("Bounds = %d, %d, want 0, 0", first, last)
	}
	types, err := s.Types(t.Context())
	must(t, err)
	if len(types) != 0 {
		t.Errorf("Types = %q, want none", types)
	}
	n, _, err := s.Trim(t.Context(), 10, time.Now(), 10)
	if n != 0 || err != nil {
		t.Errorf("Trim = %d, %v, want 0, nil", n, err)
	}
	cursor, err := s.Cursor(t.Context(), "nobody")
	if cursor != 0 || err != nil {
		t.Errorf("Cursor = %d, %v, want 0, nil", cursor, err)
	}
}

func testSequence(t *testing.T, s Store) {
	var want []uint64
	for _, n := range []int{1, 0, 3, 100, 17, 1, 33} {
		b := &event.Batch{Events: Make(n)}
		must(t, s.Commit(t.Context(), b))
		for _, e := range b.Events {
			if len(want) > 0 && e.Seq <= want[len(want)-1] || s.Dialect() == store.SQLite && e.Seq != uint64(len(want)+1) {
				t.Fatalf("Seq %d follows on %d others, the last of them %v", e.Seq, len(want), want[max(0, len(want)-1):])
			}
			want = append(want, e.Seq)
		}
	}
	got := seq(t, s, len(want))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	first, last, err := s.Bounds(t.Context())
	must(t, err)
	if first > want[0] || first == 0 || last != want[len(want)-1] {
		t.Errorf("Bounds = %d, %d, want all of %d to %d", first, last, want[0], want[len(want)-1])
	}
}

func testRoundTrip(t *testing.T, s Store) {
	want := []api.Event{
		{Type: "process.exited", Time: Base(), ProcessID: "proc_1_ab", Name: "web", Generation: 7, Data: []byte(`{"code":137,"text":"é\n"}`)},
		{Type: "server.started", Time: Base().Add(-time.Hour)},
	}
	b := &event.Batch{Events: want}
	must(t, s.Commit(t.Context(), b))
	got, err := s.Select(t.Context(), event.Selection{Through: seq(t, s, 2)[1], Limit: 10})
	must(t, err)
	if diff := cmp.Diff(b.Events, got); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
}

func testCursor(t *testing.T, s Store) {
	from := func(source string, cursor uint64, n int) *event.Batch {
		return &event.Batch{Source: source, Cursor: cursor, Events: Make(n)}
	}
	for i, c := range []struct {
		batches []*event.Batch
		skipped []bool
		last    int
	}{
		{[]*event.Batch{from("a", 5, 2)}, []bool{false}, 2},
		{[]*event.Batch{from("a", 5, 2)}, []bool{true}, 2},
		{[]*event.Batch{from("a", 4, 2), from("a", 6, 1), from("a", 6, 1)}, []bool{true, false, true}, 3},
		{[]*event.Batch{from("b", 1, 1), {Events: Make(1)}}, []bool{false, false}, 5},
		{[]*event.Batch{from("a", 9, 0)}, []bool{false}, 5},
	} {
		for j, b := range c.batches {
			must(t, s.Commit(t.Context(), b))
			if b.Skipped != c.skipped[j] {
				t.Errorf("commit %d: batch %d skipped = %v, want %v", i, j, b.Skipped, c.skipped[j])
			}
		}
		if got := len(seq(t, s, c.last)); got != c.last {
			t.Fatalf("commit %d: %d events, want %d", i, got, c.last)
		}
	}
	for source, want := range map[string]uint64{"a": 9, "b": 1, "c": 0} {
		got, err := s.Cursor(t.Context(), source)
		must(t, err)
		if got != want {
			t.Errorf("Cursor(%s) = %d, want %d", source, got, want)
		}
	}
}

func testCancelled(t *testing.T, s Store) {
	commit(t, s, Make(3))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Commit(ctx, &event.Batch{Source: "a", Cursor: 1, Events: Make(2)}); err == nil {
		t.Error("Commit with an ended context succeeded")
	}
	cursor, err := s.Cursor(t.Context(), "a")
	must(t, err)
	if cursor != 0 {
		t.Errorf("the cursor moved to %d", cursor)
	}
	b := &event.Batch{Events: Make(1)}
	must(t, s.Commit(t.Context(), b))
	if all := seq(t, s, 4); len(all) != 4 || b.Events[0].Seq != all[3] {
		t.Errorf("after a failure there are the events %d, want four", all)
	}
}

func testSelect(t *testing.T, s Store) {
	commit(t, s, Make(12))
	all := seq(t, s, 12)
	at := func(place uint64) uint64 {
		if place == 0 {
			return 0
		}
		return all[place-1]
	}
	for _, c := range []struct {
		name string
		sel  event.Selection
		want []uint64
	}{
		{"after", event.Selection{After: 9, Through: 12, Limit: 9}, []uint64{10, 11, 12}},
		{"through", event.Selection{Through: 2, Limit: 9}, []uint64{1, 2}},
		{"limit", event.Selection{After: 2, Through: 12, Limit: 2}, []uint64{3, 4}},
		{"newest", event.Selection{Through: 12, Limit: 3, Newest: true}, []uint64{10, 11, 12}},
		{"name", event.Selection{Through: 12, Limit: 9, Name: "db"}, []uint64{4, 5, 10, 11}},
		{"one type", event.Selection{Through: 12, Limit: 9, Types: []string{"server.reloaded"}}, []uint64{3, 6, 9, 12}},
		{"two types", event.Selection{Through: 12, Limit: 3, Types: []string{"server.reloaded", "process.started"}}, []uint64{1, 3, 4}},
		{"two types, newest", event.Selection{Through: 12, Limit: 3, Types: []string{"server.reloaded", "process.started"}, Newest: true}, []uint64{9, 10, 12}},
		{"name and types", event.Selection{Through: 12, Limit: 9, Name: "web", Types: []string{"process.exited", "x"}}, []uint64{2, 8}},
		{"since", event.Selection{Through: 12, Limit: 9, Since: Base().Add(9 * time.Second)}, []uint64{10, 11, 12}},
		{"all at once", event.Selection{After: 1, Through: 8, Limit: 9, Since: Base().Add(2 * time.Second), Name: "web", Types: []string{"process.started"}}, []uint64{7}},
		{"nothing", event.Selection{After: 12, Through: 12, Limit: 9}, []uint64{}},
	} {
		c.sel.After, c.sel.Through = at(c.sel.After), at(c.sel.Through)
		got, err := s.Select(t.Context(), c.sel)
		must(t, err)
		if diff := cmp.Diff(c.want, places(all, got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func testTypes(t *testing.T, s Store) {
	var events []api.Event
	var want []string
	for i := range 40 {
		typ := fmt.Sprintf("t.%02d", i)
		want = append(want, typ)
		events = append(events, api.Event{Type: typ}, api.Event{Type: typ})
	}
	commit(t, s, events)
	got, err := s.Types(t.Context())
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Types (-want +got):\n%s", diff)
	}
}

func testTrim(t *testing.T, s Store) {
	commit(t, s, Make(20))
	all := seq(t, s, 20)
	for i, c := range []struct {
		keep    int
		before  time.Time
		limit   int
		removed int
		first   int
	}{
		{0, time.Time{}, 10, 0, 1},
		{17, time.Time{}, 10, 3, 4},
		{11, time.Time{}, 2, 2, 6},
		{0, Base().Add(7 * time.Second), 10, 2, 8},
		{11, Base().Add(12 * time.Second), 10, 5, 13},
		{1, time.Time{}, 100, 7, 20},
		{1, Base().Add(time.Hour), 100, 0, 20},
	} {
		n, first, err := s.Trim(t.Context(), c.keep, c.before, c.limit)
		must(t, err)
		got, _, err := s.Bounds(t.Context())
		must(t, err)
		if n != c.removed || first != got {
			t.Errorf("trim %d = %d removed, first %d; want %d, and %d as Bounds says", i, n, first, c.removed, got)
		}
		if c.first > 1 && (got <= all[c.first-2] || got > all[c.first-1]) {
			t.Errorf("trim %d: all is kept from %d on, want %d", i, got, all[c.first-1])
		}
		left := seq(t, s, 21-c.first)
		if diff := cmp.Diff(all[c.first-1:], left); diff != "" {
			t.Errorf("trim %d: kept (-want +got):\n%s", i, diff)
		}
	}
	b := &event.Batch{Events: Make(1)}
	must(t, s.Commit(t.Context(), b))
	if b.Events[0].Seq <= all[19] {
		t.Errorf("Seq after everything was trimmed = %d, want more than %d", b.Events[0].Seq, all[19])
	}
}
