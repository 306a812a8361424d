package event

import (
	"context"
	"time"

	"github.com/perdure/perdure/api"
)

// Store keeps events and the cursors of their sources. Its methods may be called
// by many goroutines at once. storetest.Run is the contract as a test.
type Store interface {
	// Notify has every event that is committed from now on handed to sink, also
	// those that come with other changes of the database and, where nodes share
	// it, those of the others: in the order of Seq, each once, by one goroutine
	// at a time. It is called once, before any use. sink must not block.
	Notify(sink func([]api.Event))
	// Commit appends a batch in one transaction, which many callers may share:
	// all of it or nothing. It gives each event its Seq, above all that were
	// ever committed. A batch with a Source whose Cursor is not above the stored
	// one is left out and marked Skipped; otherwise its cursor is stored with
	// its events.
	Commit(ctx context.Context, b *Batch) error
	// Cursor returns the stored cursor of a source, 0 when there is none.
	Cursor(ctx context.Context, source string) (uint64, error)
	// Bounds returns the place from which on all events are kept, and that of the
	// newest one up to which none will be added any more; both are 0 when there
	// was never one.
	Bounds(ctx context.Context) (first, last uint64, err error)
	// Types returns the types of all events that are kept, sorted. It is cheap:
	// its cost depends on the number of types, not of events.
	Types(ctx context.Context) ([]string, error)
	// Select returns events in the order of Seq.
	Select(ctx context.Context, s Selection) ([]api.Event, error)
	// Trim removes at most limit of the oldest events: those of which keep or more
	// newer ones are kept (0: none for that reason), and those that are older than
	// before and have no younger one ahead of them. The newest event is always
	// kept. It returns how many went and what Bounds calls first from then on.
	Trim(ctx context.Context, keep int, before time.Time, limit int) (removed int, first uint64, err error)
	// Close closes the store.
	Close() error
}

// Batch is a set of events that are appended together.
type Batch struct {
	// Source and Cursor say where the events come from; Source is empty for
	// the server's own.
	Source string
	Cursor uint64
	// Events get their Seq from Commit.
	Events []api.Event
	// Skipped is set by Commit when the cursor shows that the batch is known.
	Skipped bool
}

// Selection says which events Select returns.
type Selection struct {
	// After and Through bound the Seq: After < Seq <= Through.
	After, Through uint64
	// Since selects events at or after a time; zero means all.
	Since time.Time
	// Name selects one process; empty means all.
	Name string
	// Types selects exact types; empty means all.
	Types []string
	// Limit is the most that is returned, at least 1.
	Limit int
	// Newest selects the newest ones in place of the oldest.
	Newest bool
}
