package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
)

const columns = `seq, time, type, process_id, name, generation, data`

func (w *writer) prepare(ctx context.Context) error {
	row := `(?, ?, ?, ?, ?, ?, ?)`
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&w.insert, `INSERT INTO event (` + columns + `) VALUES ` + row},
		{&w.insertMany, `INSERT INTO event (` + columns + `) VALUES ` + strings.Repeat(row+`, `, chunk-1) + row},
		{&w.last, `SELECT coalesce(max(seq), 0) FROM event`},
		{&w.cursor, `SELECT coalesce((SELECT cursor FROM source WHERE name = ?), 0)`},
		{&w.setCursor, `INSERT INTO source (name, cursor) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor`},
	} {
		stmt, err := w.db.PrepareContext(ctx, p.text)
		if err != nil {
			return err
		}
		*p.to = stmt
	}
	return nil
}

// Commit appends the batches in one transaction.
func (s *Store) Commit(ctx context.Context, batches []*event.Batch) error {
	w, err := s.openWriter(ctx)
	if err == nil {
		err = w.commit(ctx, batches)
	}
	if err != nil {
		return errors.Join(s.explain("write to the event log", err), s.dropWriter(err))
	}
	return nil
}

// commit sets Skipped and Seq as it goes; they count only when it succeeds.
func (w *writer) commit(ctx context.Context, batches []*event.Batch) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	var last uint64
	if err := tx.StmtContext(ctx, w.last).QueryRowContext(ctx).Scan(&last); err != nil {
		return err
	}
	in := inserter{tx: tx, one: tx.StmtContext(ctx, w.insert), many: tx.StmtContext(ctx, w.insertMany)}
	for _, b := range batches {
		b.Skipped = false
		if b.Source != "" {
			if err := w.moveCursor(ctx, tx, b); err != nil {
				return err
			}
		}
		if b.Skipped {
			continue
		}
		for i := range b.Events {
			last++
			b.Events[i].Seq = last
			if err := in.add(ctx, &b.Events[i]); err != nil {
				return err
			}
		}
	}
	if err := in.flush(ctx); err != nil {
		return err
	}
	return tx.Commit()
}

func (w *writer) moveCursor(ctx context.Context, tx *sql.Tx, b *event.Batch) error {
	var have uint64
	if err := tx.StmtContext(ctx, w.cursor).QueryRowContext(ctx, b.Source).Scan(&have); err != nil {
		return err
	}
	if b.Cursor <= have {
		b.Skipped = true
		return nil
	}
	_, err := tx.StmtContext(ctx, w.setCursor).ExecContext(ctx, b.Source, int64(b.Cursor))
	return err
}

// inserter gathers events so that one statement inserts many.
type inserter struct {
	tx        *sql.Tx
	one, many *sql.Stmt
	args      []any
}

const width = 7 // columns

func (in *inserter) add(ctx context.Context, e *api.Event) error {
	var data any
	if len(e.Data) > 0 {
		data = []byte(e.Data)
	}
	in.args = append(in.args, int64(e.Seq), e.Time.UnixNano(), e.Type, e.ProcessID, e.Name, int64(e.Generation), data)
	if len(in.args) < chunk*width {
		return nil
	}
	_, err := in.many.ExecContext(ctx, in.args...)
	in.args = in.args[:0]
	return err
}

func (in *inserter) flush(ctx context.Context) error {
	for i := 0; i < len(in.args); i += width {
		if _, err := in.one.ExecContext(ctx, in.args[i:i+width]...); err != nil {
			return err
		}
	}
	in.args = in.args[:0]
	return nil
}

// Trim removes old events in one transaction.
func (s *Store) Trim(ctx context.Context, seq uint64, before time.Time, limit int) (int, uint64, error) {
	w, err := s.openWriter(ctx)
	var n int
	var first uint64
	if err == nil {
		n, first, err = w.trim(ctx, seq, before, limit)
	}
	if err != nil {
		return 0, 0, errors.Join(s.explain("remove old events from", err), s.dropWriter(err))
	}
	return n, first, nil
}

func (w *writer) trim(ctx context.Context, seq uint64, before time.Time, limit int) (int, uint64, error) {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	defer tx.Rollback() // after Commit it does nothing
	var first, last uint64
	err = tx.QueryRowContext(ctx, `SELECT coalesce((SELECT min(seq) FROM event), 0), coalesce((SELECT max(seq) FROM event), 0)`).Scan(&first, &last)
	if err != nil || last == 0 {
		return 0, 0, err
	}
	// The first event that stays: over neither bound, or the newest.
	stay := min(first+uint64(limit), last)
	when := int64(-1 << 63)
	if !before.IsZero() {
		when = before.UnixNano()
	}
	var found sql.Null[int64]
	err = tx.QueryRowContext(ctx, `SELECT min(seq) FROM (SELECT seq FROM event WHERE seq > ? AND seq < ? AND time >= ? ORDER BY seq LIMIT 1)`,
		int64(seq), int64(stay), when).Scan(&found)
	if err != nil {
		return 0, 0, err
	}
	if found.Valid {
		stay = uint64(found.V)
	}
	if stay <= first {
		return 0, first, nil
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM event WHERE seq < ?`, int64(stay)); err != nil {
		return 0, 0, err
	}
	return int(stay - first), stay, tx.Commit()
}
