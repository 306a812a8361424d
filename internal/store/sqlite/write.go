package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store"
)

const (
	columns = `seq, time, type, process_id, name, generation, data`
	width   = 7 // columns
	// chunk is how many events one statement inserts when there are so many.
	chunk = 16
)

// Commit appends a batch. Batches of many callers share a transaction.
func (s *Store) Commit(ctx context.Context, b *event.Batch) error {
	return s.submit(ctx, &request{batch: b})
}

// Notify sets the sink of committed events.
func (s *Store) Notify(sink func([]api.Event)) { s.sink = sink }

// take moves the cursor of a batch and lines its events up. Skipped and Seq
// count only when the transaction is committed.
func (w *writer) take(ctx context.Context, b *event.Batch) error {
	b.Skipped = false
	if b.Source != "" {
		n, err := w.exec(ctx, `INSERT INTO source (name, cursor) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor WHERE excluded.cursor > cursor`, b.Source, int64(b.Cursor))
		if err != nil {
			return err
		}
		if b.Skipped = n == 0; b.Skipped {
			return nil
		}
	}
	for i := range b.Events {
		w.pending = append(w.pending, &b.Events[i])
	}
	return nil
}

// insertPending inserts the events of all requests of the group together.
func (w *writer) insertPending(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	var last uint64
	if err := (reader{w}).Row(ctx, `SELECT coalesce(max(seq), 0) FROM event`).Scan(&last); err != nil {
		return err
	}
	for i, e := range w.pending {
		e.Seq = last + uint64(i) + 1
	}
	rest := w.pending
	for len(rest) >= chunk {
		if err := w.insert(ctx, insertMany, rest[:chunk]); err != nil {
			return err
		}
		rest = rest[chunk:]
	}
	for i := range rest {
		if err := w.insert(ctx, insertOne, rest[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

const insertOne = `INSERT INTO event (` + columns + `) VALUES (?, ?, ?, ?, ?, ?, ?)`

var insertMany = insertOne + strings.Repeat(`, (?, ?, ?, ?, ?, ?, ?)`, chunk-1) //ok: a constant that the language cannot write

func (w *writer) insert(ctx context.Context, query string, events []*api.Event) error {
	w.args = w.args[:0]
	for _, e := range events {
		var data any
		if len(e.Data) > 0 {
			data = []byte(e.Data)
		}
		w.args = append(w.args, int64(e.Seq), e.Time.UnixNano(), e.Type, e.ProcessID, e.Name, int64(e.Generation), data)
	}
	_, err := w.exec(ctx, query, w.args...)
	return err
}

// Trim removes old events in one transaction.
func (s *Store) Trim(ctx context.Context, keep int, before time.Time, limit int) (removed int, first uint64, err error) {
	err = s.Update(ctx, func(t store.Tx) error {
		var err error
		removed, first, err = trim(ctx, t, keep, before, limit)
		return err
	})
	return removed, first, err
}

func trim(ctx context.Context, t store.Tx, keep int, before time.Time, limit int) (int, uint64, error) {
	var first, last uint64
	err := t.Row(ctx, `SELECT coalesce((SELECT min(seq) FROM event), 0), coalesce((SELECT max(seq) FROM event), 0)`).Scan(&first, &last)
	if err != nil || last == 0 {
		return 0, 0, err
	}
	// The first event that stays: over neither bound, or the newest.
	stay := min(first+uint64(limit), last)
	var seq uint64 // up to it they are too many
	if keep > 0 && last > uint64(keep) {
		seq = last - uint64(keep)
	}
	when := int64(-1 << 63)
	if !before.IsZero() {
		when = before.UnixNano()
	}
	var found uint64
	err = t.Row(ctx, `SELECT coalesce((SELECT seq FROM event WHERE seq > $1 AND seq < $2 AND time >= $3 ORDER BY seq LIMIT 1), 0)`,
		int64(seq), int64(stay), when).Scan(&found)
	if err != nil {
		return 0, 0, err
	}
	if found > 0 {
		stay = found
	}
	if stay <= first {
		return 0, first, nil
	}
	_, err = t.Exec(ctx, `DELETE FROM event WHERE seq < $1`, int64(stay))
	return int(stay - first), stay, err
}
