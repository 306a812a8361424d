package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store"
)

// put writes into the one table that every store has and whose rows are free:
// the cursors of sources.
func put(ctx context.Context, tx store.Tx, name string, cursor int64) error {
	n, err := tx.Exec(ctx, `INSERT INTO source (name, cursor) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor`, name, cursor)
	if err == nil && n != 1 {
		err = fmt.Errorf("%d rows were changed, want 1", n)
	}
	return err
}

func get(ctx context.Context, r store.Reader, name string) (cursor int64, err error) {
	err = r.Row(ctx, `SELECT cursor FROM source WHERE name = $1`, name).Scan(&cursor)
	return cursor, err
}

func testUpdate(t *testing.T, s Store) {
	ctx := t.Context()
	must(t, s.Update(ctx, func(tx store.Tx) error {
		if err := put(ctx, tx, "a", 7); err != nil {
			return err
		}
		got, err := get(ctx, tx, "a")
		if got != 7 {
			t.Errorf("the transaction itself reads %d, want 7", got)
		}
		return err
	}))
	must(t, s.View(ctx, func(r store.Reader) error {
		got, err := get(ctx, r, "a")
		if got != 7 {
			t.Errorf("View reads %d, want 7", got)
		}
		if _, err := get(ctx, r, "b"); !errors.Is(err, store.ErrNoRows) {
			t.Errorf("a row that is not there: %v, want ErrNoRows", err)
		}
		return err
	}))
}

// testUpdateFails has many callers at once, so that they share transactions:
// those that fail leave nothing, and the others lose nothing.
func testUpdateFails(t *testing.T, s Store) {
	ctx := t.Context()
	wrong := errors.New("wrong")
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			err := s.Update(ctx, func(tx store.Tx) error {
				if err := put(ctx, tx, fmt.Sprint("k", i), 1); err != nil {
					return err
				}
				tx.Emit(api.Event{Type: "t", Time: Base(), Name: fmt.Sprint("k", i)})
				switch i % 3 {
				case 1:
					return wrong
				case 2: // a statement that fails fails the update
					_, err := tx.Exec(ctx, `INSERT INTO source (name, cursor) VALUES ($1, $2)`, fmt.Sprint("k", i), 2)
					return err
				}
				return nil
			})
			if i%3 == 0 && err != nil || i%3 == 1 && !errors.Is(err, wrong) || i%3 == 2 && err == nil {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	must(t, s.View(ctx, func(r store.Reader) error {
		for i := range 60 {
			if _, err := get(ctx, r, fmt.Sprint("k", i)); (err == nil) != (i%3 == 0) {
				t.Errorf("row %d: %v", i, err)
			}
		}
		return nil
	}))
	if n := len(seq(t, s, 20)); n != 20 {
		t.Errorf("%d events, want those of the 20 that succeeded", n)
	}
}

func testMany(t *testing.T, s Store) {
	ctx := t.Context()
	must(t, s.Update(ctx, func(tx store.Tx) error {
		n, err := tx.Many(ctx, `INSERT INTO source (name, cursor) VALUES ($1, $2)`, [][]any{{"a", 1}, {"b", 2}, {"c", 3}})
		if diff := cmp.Diff([]int64{1, 1, 1}, n); diff != "" {
			t.Errorf("inserted (-want +got):\n%s", diff)
		}
		return err
	}))
	must(t, s.Update(ctx, func(tx store.Tx) error {
		n, err := tx.Many(ctx, `UPDATE source SET cursor = cursor + $1 WHERE name = $2`, [][]any{{5, "a"}, {5, "x"}, {5, "c"}})
		if diff := cmp.Diff([]int64{1, 0, 1}, n); diff != "" {
			t.Errorf("updated (-want +got):\n%s", diff)
		}
		return err
	}))
	var got []int64
	must(t, s.View(ctx, func(r store.Reader) error {
		rows, err := r.Rows(ctx, `SELECT cursor FROM source ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				return err
			}
			got = append(got, n)
		}
		return rows.Err()
	}))
	if diff := cmp.Diff([]int64{6, 2, 8}, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func testSnapshot(t *testing.T, s Store) {
	ctx := t.Context()
	set := func(n int64) error {
		return s.Update(ctx, func(tx store.Tx) error { return put(ctx, tx, "a", n) })
	}
	must(t, set(1))
	must(t, s.View(ctx, func(r store.Reader) error {
		before, err := get(ctx, r, "a")
		must(t, err)
		if s.Dialect() == store.Postgres || walks(ctx, t, s) {
			must(t, set(2))
		}
		after, err := get(ctx, r, "a")
		if before != 1 || after != 1 {
			t.Errorf("a view reads %d, then %d; want 1, 1", before, after)
		}
		return err
	}))
}

// walks says whether a writer goes on while somebody reads: in WAL mode.
func walks(ctx context.Context, t *testing.T, s Store) bool {
	var mode string
	must(t, s.View(ctx, func(r store.Reader) error {
		return r.Row(ctx, `PRAGMA journal_mode`).Scan(&mode)
	}))
	return mode == "wal"
}

func testSink(t *testing.T, s Store) {
	const writers, each = 8, 25
	var mu sync.Mutex
	var got []api.Event
	all := make(chan struct{})
	s.Notify(func(events []api.Event) {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, events...); len(got) == 2*writers*each {
			close(all)
		}
	})
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				name := fmt.Sprint(i, ".", j)
				must(t, s.Commit(ctx, &event.Batch{Events: []api.Event{{Type: "commit", Time: Base(), Name: name}}}))
				must(t, s.Update(ctx, func(tx store.Tx) error {
					tx.Emit(api.Event{Type: "update", Time: Base(), Name: name, Data: []byte(`{}`)})
					return nil
				}))
			}
		})
	}
	wg.Wait()
	<-all
	if !slices.IsSortedFunc(got, func(a, b api.Event) int { return int(a.Seq) - int(b.Seq) }) {
		t.Error("the sink was told out of order")
	}
	_, last, err := s.Bounds(ctx)
	must(t, err)
	kept, err := s.Select(ctx, event.Selection{Through: last, Limit: 1000})
	must(t, err)
	if diff := cmp.Diff(kept, got); diff != "" {
		t.Errorf("the sink was told other than is kept (-kept +told):\n%s", diff)
	}
}

func testHooks(t *testing.T, s Store) {
	ctx := t.Context()
	var ran []string
	hook := func(name string, err error) {
		_ = s.Update(ctx, func(tx store.Tx) error {
			tx.Then(func() { ran = append(ran, name) })
			return err
		})
	}
	hook("a", nil)
	hook("b", errors.New("wrong"))
	hook("c", nil)
	if diff := cmp.Diff([]string{"a", "c"}, ran); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
}

// testEnds: whatever ends the context, Update does not return while its function
// runs, and a context that ended before has it not run at all.
func testEnds(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	ran := 0 // shared without a lock: the race detector sees an Update that returns early
	_ = s.Update(ctx, func(tx store.Tx) error {
		cancel()
		_, err := get(ctx, tx, "a")
		for range 1000 {
			ran++
		}
		return err
	})
	if ran != 1000 {
		t.Errorf("Update returned when its function was at %d of 1000", ran)
	}
	if err := s.Update(ctx, func(store.Tx) error { ran = 0; return nil }); err == nil || ran != 1000 {
		t.Errorf("with an ended context: %v, at %d", err, ran)
	}
}
