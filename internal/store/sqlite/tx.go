package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// rebind writes $1 as ?1: to SQLite "$1" is a name, not a number.
func rebind(query string) string { return strings.ReplaceAll(query, "$", "?") }

// Update runs fn in the writer goroutine.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	return s.submit(ctx, &request{fn: fn})
}

// View runs fn over a snapshot, in the caller's goroutine.
func (s *Store) View(ctx context.Context, fn func(store.Reader) error) error {
	t, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.explain("read the database", err)
	}
	defer t.Rollback() // it only read
	err = fn(snapshot{t})
	if isDriver(err) {
		return s.explain("read the database", err)
	}
	return err
}

// Dialect is SQLite.
func (s *Store) Dialect() store.Dialect { return store.SQLite }

// Wake does nothing: one server owns the file.
func (s *Store) Wake(string) {}

// OnWake does nothing, for the same reason.
func (s *Store) OnWake(string, func()) {}

// tx is a transaction, or the part of one behind a savepoint.
type tx struct {
	reader
	r    *request
	then []func()
}

func (t *tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return t.w.exec(context.WithoutCancel(ctx), query, args...)
}

func (t *tx) Many(ctx context.Context, query string, args [][]any) ([]int64, error) {
	// Without a way to cancel it the driver needs no goroutine per statement.
	ctx = context.WithoutCancel(ctx)
	out := make([]int64, len(args))
	for i, a := range args {
		n, err := t.w.exec(ctx, query, a...)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

func (t *tx) Emit(events ...api.Event) { t.w.told = append(t.w.told, events...) }

func (t *tx) Then(f func()) { t.then = append(t.then, f) }

// reader reads over the writer's connection: it sees what the transaction wrote.
type reader struct{ w *writer }

func (r reader) Row(ctx context.Context, query string, args ...any) store.Row {
	s, err := r.w.prepared(ctx, query)
	if err != nil {
		return row{err: err}
	}
	return row{row: s.QueryRowContext(context.WithoutCancel(ctx), args...)}
}

func (r reader) Rows(ctx context.Context, query string, args ...any) (store.Rows, error) {
	s, err := r.w.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(context.WithoutCancel(ctx), args...)
}

// snapshot reads over a connection of the pool.
type snapshot struct{ tx *sql.Tx }

func (s snapshot) Row(ctx context.Context, query string, args ...any) store.Row {
	return row{row: s.tx.QueryRowContext(ctx, rebind(query), args...)}
}

func (s snapshot) Rows(ctx context.Context, query string, args ...any) (store.Rows, error) {
	return s.tx.QueryContext(ctx, rebind(query), args...)
}

type row struct {
	row *sql.Row
	err error
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	if err := r.row.Scan(dest...); !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return store.ErrNoRows
}
