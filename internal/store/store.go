// Package store is the seam between what Perdure keeps and the database that
// keeps it: one interface, one kind of transaction, two dialects. The packages
// below it implement it; storetest.Run is its contract as a test.
//
// A state change, the events that tell of it and the work that follows from it
// are one transaction: change rows with Exec, tell with Emit, and whoever waits
// for work is woken by a hook that runs after the commit.
package store

import (
	"context"
	"errors"

	"github.com/perdure/perdure/api"
)

// ErrNoRows is what Scan of a Row returns when there is none.
var ErrNoRows = errors.New("there is no such row")

// Store is a database.
type Store interface {
	// Update runs fn in a transaction that may write, and commits it when fn
	// returns nil. Many calls at once are welcome; SQLite commits them
	// together, each behind a savepoint of its own, so that one that fails
	// leaves nothing and does not fail the others. fn must be quick, must not
	// call Update, and may be run again when the database asks for that: what it
	// sets outside it sets anew each time. When ctx ends before fn was begun
	// nothing happens. Update never returns while fn runs. With a database over
	// the network, a commit whose answer is lost is an error, and may have happened.
	Update(ctx context.Context, fn func(Tx) error) error
	// View runs fn over one consistent snapshot. It never waits for a writer.
	View(ctx context.Context, fn func(Reader) error) error
	// Dialect says in which SQL statements are to be written.
	Dialect() Dialect
	// Wake tells the other nodes, if any, that there is something to do under a
	// topic. It returns at once, may be lost, and many calls become one.
	Wake(topic string)
	// OnWake registers f to be called when another node says Wake with the
	// topic, and when word of it may have been lost. f must not block. It is
	// called before any use of the store.
	OnWake(topic string, f func())
}

// Reader reads. Parameters are written $1, $2 and so on. A Reader and what it
// returns are valid until the function that it was handed to returns, in that
// function's goroutine only.
type Reader interface {
	Row(ctx context.Context, query string, args ...any) Row
	Rows(ctx context.Context, query string, args ...any) (Rows, error)
}

// Tx is a transaction that writes.
type Tx interface {
	Reader
	// Exec runs one statement and returns how many rows it changed.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	// Many runs one statement once for each list of arguments, in one trip, and
	// returns how many rows each run changed.
	Many(ctx context.Context, query string, args [][]any) ([]int64, error)
	// Emit appends events in this transaction. They get their Seq at its end.
	Emit(events ...api.Event)
	// Then has f called after the commit, before Update returns, and never when
	// there is none. f must not block.
	Then(f func())
}

// Row is the result of a query for one row.
type Row interface {
	// Scan reads the row, or returns ErrNoRows.
	Scan(dest ...any) error
}

// Rows is the result of a query. Whoever gets it closes it.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Dialect is a kind of SQL. Statements are written so that both understand
// them; what differs is asked here.
type Dialect int

// The dialects.
const (
	SQLite Dialect = iota
	Postgres
)

// SkipLocked ends a SELECT that takes rows which no other node is taking.
// SQLite needs nothing: there is one writer.
func (d Dialect) SkipLocked() string {
	if d == Postgres {
		return ` FOR UPDATE SKIP LOCKED`
	}
	return ``
}

// ForUpdate ends a SELECT whose rows are changed afterwards, so that no other
// node changes them in between.
func (d Dialect) ForUpdate() string {
	if d == Postgres {
		return ` FOR UPDATE`
	}
	return ``
}
