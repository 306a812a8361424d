package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store"
)

// Options say which database, and how it is used.
type Options struct {
	// URL is a connection URL or string as libpq takes it.
	URL string
	// Schema holds all tables; it is made if need be. Default "perdure".
	Schema string
	// MaxConns bounds the pool. Default 10. Two more connections listen and
	// follow the events.
	MaxConns int
	// IdleInTransaction ends a transaction of ours that does nothing for so long,
	// because its process is frozen: its locks would hold up the others. Default 5s.
	IdleInTransaction time.Duration
	// Poll is how often to look for events that no wake-up told of. Default 500ms.
	Poll time.Duration
}

// Store is a store.Store and an event.Store in a schema.
type Store struct {
	o      Options
	where  string // for messages, without a password
	pool   *pgxpool.Pool
	base   int64 // added to the number of a transaction
	cancel context.CancelFunc
	ctx    context.Context //nolint:containedctx // of the goroutines, ended by Close
	work   sync.WaitGroup
	once   sync.Once

	mu     sync.Mutex
	onWake map[string][]func()
	topics map[string]bool // to be told to the others

	tell chan struct{} // capacity 1: topics is not empty
	look chan struct{} // capacity 1: there may be new events
}

var (
	_ event.Store = (*Store)(nil)
	_ store.Store = (*Store)(nil)
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// Open connects and brings the schema up to date. A schema of a newer Perdure is
// CodeFailed; a database that cannot be reached is CodeUnavailable.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Schema == "" {
		o.Schema = "perdure"
	}
	if !schemaName.MatchString(o.Schema) {
		e := api.Errorf(api.CodeInvalid, "cannot be %q: it is small letters, digits and '_', at most 63", o.Schema)
		e.Field = "database.schema"
		return nil, e
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 10
	}
	if o.IdleInTransaction <= 0 {
		o.IdleInTransaction = 5 * time.Second
	}
	if o.Poll <= 0 {
		o.Poll = 500 * time.Millisecond
	}
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		e := api.Errorf(api.CodeInvalid, "cannot be read as a connection URL of PostgreSQL (postgres://user@host/database)")
		e.Field = "database"
		return nil, e // the text may hold a password: it is not repeated
	}
	config.MaxConns = int32(min(o.MaxConns, 1000))
	config.ConnConfig.RuntimeParams["search_path"] = o.Schema
	config.ConnConfig.RuntimeParams["application_name"] = "perdure"
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint(o.IdleInTransaction.Milliseconds())
	s := &Store{o: o, onWake: map[string][]func(){}, topics: map[string]bool{}, tell: make(chan struct{}, 1), look: make(chan struct{}, 1)}
	u := url.URL{Host: config.ConnConfig.Host, Path: "/" + config.ConnConfig.Database}
	s.where = fmt.Sprintf("the database %s%s (schema %s)", u.Host, u.Path, o.Schema)
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, s.explain("open", err)
	}
	if err := s.migrate(ctx); err != nil {
		s.pool.Close()
		return nil, s.explain("open", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.work.Go(s.listen)
	s.work.Go(s.notify)
	return s, nil
}

// schemaLock is the advisory lock under which the schema is changed.
const schemaLock = 0x70657264757265 // "perdure"

// migrate brings the schema up to date, and moves the numbers of transactions when
// the database was restored to a server that counts from lower ones.
func (s *Store) migrate(ctx context.Context) error {
	steps, err := store.Steps(migrationFiles)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(schemaLock)); err != nil {
			return err
		}
		have := 0
		var exists bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, s.o.Schema+".schema_ledger").Scan(&exists); err != nil {
			return err
		}
		if !exists {
			_, err := tx.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS `+pgx.Identifier{s.o.Schema}.Sanitize())
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `CREATE TABLE schema_ledger (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)`); err != nil {
				return err
			}
		}
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM schema_ledger`).Scan(&have); err != nil {
			return err
		}
		pending, err := store.Pending(steps, have, s.where)
		if err != nil {
			return err
		}
		for _, step := range pending {
			if _, err := tx.Exec(ctx, step.Text); err != nil {
				return store.StepError(step, err)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO schema_ledger (version, name, applied_at) VALUES ($1, $2, $3)`, step.Version, step.Name, time.Now().Unix()); err != nil {
				return err
			}
		}
		return tx.QueryRow(ctx, `UPDATE counter SET next = greatest(next,
			(SELECT coalesce(max(seq), 0) >> 16 FROM event) - pg_snapshot_xmin(pg_current_snapshot())::text::bigint + 1)
			WHERE name = 'event_base' RETURNING next`).Scan(&s.base)
	})
}

// Close ends what listens and follows, and the connections.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.cancel()
		s.work.Wait()
		s.pool.Close()
	})
	return nil
}

// Check reads all of our tables once.
func (s *Store) Check(ctx context.Context) error {
	for _, table := range []string{"event", "source", "counter", "job", "job_attempt", "job_log", "queue", "node", "schedule"} {
		if _, err := s.pool.Exec(ctx, `SELECT count(t) FROM `+pgx.Identifier{table}.Sanitize()+` t`); err != nil {
			return s.explain("check", err)
		}
	}
	return nil
}

// Dialect is Postgres.
func (s *Store) Dialect() store.Dialect { return store.Postgres }

// Update runs fn in a transaction of its own.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	_, err := s.update(ctx, fn)
	return err
}

// retries is how often a transaction is tried that another one stood in the way of.
const retries = 4

// update returns the Seq of the last event of the transaction.
func (s *Store) update(ctx context.Context, fn func(store.Tx) error) (last uint64, err error) {
	for range retries {
		var t *tx
		err = pgx.BeginFunc(ctx, s.pool, func(pt pgx.Tx) error {
			t = &tx{reader: reader{pt}}
			if err := fn(t); err != nil {
				return err
			}
			last, err = s.insertEvents(ctx, pt, t.events)
			return err
		})
		if err == nil {
			if len(t.events) > 0 {
				s.Wake(eventTopic)
				s.lookNow()
			}
			for _, f := range t.then {
				f()
			}
			return last, nil
		}
		if !again(err) {
			break
		}
	}
	return 0, s.explain("write to", err)
}

// View runs fn over a snapshot.
func (s *Store) View(ctx context.Context, fn func(store.Reader) error) error {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(pt pgx.Tx) error {
		return fn(reader{pt})
	})
	return s.explain("read", err)
}

type tx struct {
	reader
	events []api.Event
	then   []func()
}

func (t *tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := t.pt.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (t *tx) Many(ctx context.Context, query string, args [][]any) ([]int64, error) {
	if len(args) == 0 {
		return nil, nil
	}
	var b pgx.Batch
	for _, a := range args {
		b.Queue(query, a...)
	}
	results := t.pt.SendBatch(ctx, &b)
	out := make([]int64, len(args))
	for i := range out {
		tag, err := results.Exec()
		if err != nil {
			return nil, errors.Join(err, results.Close())
		}
		out[i] = tag.RowsAffected()
	}
	return out, results.Close()
}

func (t *tx) Emit(events ...api.Event) { t.events = append(t.events, events...) }

func (t *tx) Then(f func()) { t.then = append(t.then, f) }

type reader struct{ pt pgx.Tx }

func (r reader) Row(ctx context.Context, query string, args ...any) store.Row {
	return row{r.pt.QueryRow(ctx, query, args...)}
}

func (r reader) Rows(ctx context.Context, query string, args ...any) (store.Rows, error) {
	found, err := r.pt.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return rows{found}, nil
}

type row struct{ row pgx.Row }

func (r row) Scan(dest ...any) error {
	if err := r.row.Scan(dest...); !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return store.ErrNoRows
}

type rows struct{ pgx.Rows }

func (r rows) Close() error {
	r.Rows.Close()
	return nil // Err has told it
}
