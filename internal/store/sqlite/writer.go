package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/store"
)

// The bounds of one group, which becomes one transaction, and of what waits.
const (
	maxGroup       = 1024 // requests
	maxGroupEvents = 4096
	queueLength    = 256
)

// errClosed is what a call on a closed store gets.
var errClosed = api.Errorf(api.CodeUnavailable, "cannot use the database: it is closed")

// request is one call that the writer carries out: a batch of events, which is
// most of the load and needs no savepoint, or a function.
type request struct {
	batch *event.Batch
	fn    func(store.Tx) error
	then  []func()
	err   error       // of fn alone; the others' work stands
	done  chan error  // capacity 1, so that the writer never waits
	taken atomic.Bool // by the writer, which carries it out, or by its caller, who gave it up
}

// writer is the one connection that writes and its prepared statements. The
// writer goroutine owns it.
type writer struct {
	db      *sql.DB
	conn    *sql.Conn
	mode    string // of synchronous
	stmts   map[string]*sql.Stmt
	pending []*api.Event // of the open transaction, inserted at its end
	told    []api.Event  // what tx.Emit was given; pending points into it
	args    []any
}

// prepared returns the statement for a query; it is prepared once. Queries are
// texts of this program, so there are few.
func (w *writer) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := w.stmts[query]; ok {
		return s, nil
	}
	s, err := w.conn.PrepareContext(ctx, rebind(query))
	if err != nil {
		return nil, err
	}
	w.stmts[query] = s
	return s, nil
}

func (w *writer) exec(ctx context.Context, query string, args ...any) (int64, error) {
	s, err := w.prepared(ctx, query)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// close closes the statements first: with one open SQLite would leave the
// connection half closed, and the last one would not empty the -wal file.
func (w *writer) close() error {
	var errs []error
	for _, s := range w.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close(), w.db.Close())...)
}

// submit hands a request to the writer and waits for its end. A caller whose
// context ends gives up what was not begun; for what was begun it waits, so that the
// request's function never runs beside what comes after it.
func (s *Store) submit(ctx context.Context, r *request) error {
	r.done = make(chan error, 1)
	if ctx.Err() != nil {
		return ended(ctx)
	}
	select {
	case <-s.closed:
		return errClosed
	default:
	}
	select {
	case s.queue <- r:
	case <-s.closed:
		return errClosed
	case <-ctx.Done():
		return ended(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ended(ctx)
		}
		return <-r.done
	case <-s.ended:
		// The writer may have answered in the same moment.
		select {
		case err := <-r.done:
			return err
		default:
			return errClosed
		}
	}
}

func ended(ctx context.Context) error {
	code := api.CodeUnavailable
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = api.CodeTimeout
	}
	return errors.Join(api.Errorf(code, "cannot wait for the database any longer"), ctx.Err())
}

// write is the writer goroutine. Everything that waits in the queue becomes one
// transaction, so a transaction's cost is shared exactly when there is load.
func (s *Store) write() {
	defer close(s.ended)
	var group []*request
	for {
		select {
		case r := <-s.queue:
			group = s.gather(append(group[:0], r))
			s.carryOut(context.Background(), group)
			clear(group)
		case <-s.closed:
			for {
				select {
				case r := <-s.queue:
					s.carryOut(context.Background(), []*request{r})
				default:
					return
				}
			}
		}
	}
}

// gather adds what already waits, up to the bounds of a group.
func (s *Store) gather(group []*request) []*request {
	events := group[0].events()
	yielded := false
	for len(group) < maxGroup && events < maxGroupEvents {
		select {
		case r := <-s.queue:
			group = append(group, r)
			events += r.events()
		default:
			if yielded {
				return group
			}
			// The callers of the last transaction are runnable and about to
			// come again: without this each group would hold the fastest few.
			yielded = true
			runtime.Gosched()
		}
	}
	return group
}

func (r *request) events() int {
	if r.batch == nil {
		return 0
	}
	return len(r.batch.Events)
}

// carryOut runs a group and answers each of its requests. A caller's end does not
// undo the others' transaction, hence ctx is no caller's.
func (s *Store) carryOut(ctx context.Context, group []*request) {
	group = slices.DeleteFunc(group, func(r *request) bool { return !r.taken.CompareAndSwap(false, true) })
	if len(group) == 0 {
		return
	}
	w, err := s.openWriter(ctx)
	if err == nil {
		err = w.follow(ctx, *s.mode.Load())
	}
	if err == nil {
		err = w.run(ctx, group)
	}
	if err != nil {
		err = errors.Join(s.explain("write to the database", err), s.dropWriter(err))
		for _, r := range group {
			r.done <- err
		}
		return
	}
	s.publish(w.pending)
	for _, r := range group {
		if r.err == nil {
			for _, f := range r.then {
				f()
			}
			r.done <- nil
			continue
		}
		if isDriver(r.err) {
			r.err = errors.Join(s.explain("write to the database", r.err), s.dropWriter(r.err))
		}
		r.done <- r.err
	}
}

// follow takes a changed synchronous over. SQLite does not do so within a
// transaction.
func (w *writer) follow(ctx context.Context, mode string) error {
	if w.mode == mode {
		return nil
	}
	if _, err := w.conn.ExecContext(ctx, "PRAGMA synchronous="+mode); err != nil {
		return err
	}
	w.mode = mode
	return nil
}

// publish tells the sink of committed events, in order.
func (s *Store) publish(events []*api.Event) {
	if s.sink == nil || len(events) == 0 {
		return
	}
	out := make([]api.Event, len(events))
	for i, e := range events {
		out[i] = *e
	}
	s.sink(out)
}

// run carries a group out in one transaction. An error means that nothing of
// the group is there.
func (w *writer) run(ctx context.Context, group []*request) (err error) {
	clear(w.pending)
	clear(w.told)
	w.pending, w.told = w.pending[:0], w.told[:0]
	if _, err := w.exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// When SQLite has rolled back by itself this fails, and that is well.
			_, _ = w.conn.ExecContext(ctx, `ROLLBACK`)
		}
	}()
	for _, r := range group {
		if r.batch != nil {
			err = w.take(ctx, r.batch)
		} else {
			err = w.call(ctx, r, len(group) > 1)
		}
		if err != nil {
			return err
		}
	}
	if len(group) == 1 && group[0].err != nil {
		_, err := w.exec(ctx, `ROLLBACK`)
		return err
	}
	if err := w.insertPending(ctx); err != nil {
		return err
	}
	fault.Here("sqlite.commit.before")
	_, err = w.exec(ctx, `COMMIT`)
	fault.Here("sqlite.commit.after")
	return err
}

// call runs the function of a request. Its error is the request's; what is
// returned fails the group.
func (w *writer) call(ctx context.Context, r *request, savepoint bool) error {
	if savepoint {
		if _, err := w.exec(ctx, `SAVEPOINT request`); err != nil {
			return err
		}
	}
	events := len(w.told)
	t := &tx{reader: reader{w: w}, r: r}
	r.err, r.then = r.fn(t), t.then
	if r.err != nil {
		w.told = w.told[:events]
		if savepoint {
			if _, err := w.exec(ctx, `ROLLBACK TO request`); err != nil {
				return errors.Join(r.err, err)
			}
		}
	} else {
		for i := events; i < len(w.told); i++ {
			w.pending = append(w.pending, &w.told[i])
		}
	}
	if savepoint {
		_, err := w.exec(ctx, `RELEASE request`)
		return err
	}
	return nil
}
