package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store"
)

// readers is how many connections read at once at most.
const readers = 3

// Options say how the file is used. The pragmas are those of
// sqlite.org/pragma.html.
type Options struct {
	// Synchronous is what the store begins with (SetSynchronous): NORMAL (the default: what is committed survives the death
	// of every process, a loss of power may take the last transactions), FULL
	// (each commit waits for the disk), EXTRA or OFF.
	Synchronous string
	// JournalMode is WAL (the default), or, where shared memory is not to be
	// had, TRUNCATE, DELETE or PERSIST; readers then wait for the writer.
	JournalMode string
	// BusyTimeout is how long to wait for a lock that another program holds.
	// Default 5s.
	BusyTimeout time.Duration
}

func (o Options) filled() (Options, error) {
	o.Synchronous, o.JournalMode = strings.ToUpper(o.Synchronous), strings.ToUpper(o.JournalMode)
	if o.Synchronous == "" {
		o.Synchronous = "NORMAL"
	}
	if o.JournalMode == "" {
		o.JournalMode = "WAL"
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 5 * time.Second
	}
	for _, v := range []struct {
		field, value string
		allowed      []string
	}{
		{"synchronous", o.Synchronous, []string{"NORMAL", "FULL", "EXTRA", "OFF"}},
		{"journal_mode", o.JournalMode, []string{"WAL", "TRUNCATE", "DELETE", "PERSIST"}},
	} {
		if !slices.Contains(v.allowed, v.value) {
			e := api.Errorf(api.CodeInvalid, "cannot be %q; it is one of %s", v.value, strings.Join(v.allowed, ", "))
			e.Field = v.field
			return o, e
		}
	}
	return o, nil
}

// Store is a store.Store and an event.Store in a file.
type Store struct {
	path   string
	opts   Options
	mode   atomic.Pointer[string] // synchronous, as it shall be
	writer *writer                // nil after an error that a new connection may cure; the writer goroutine owns it
	read   *sql.DB
	sink   func([]api.Event)

	queue  chan *request
	closed chan struct{} // closed by Close: no new work
	ended  chan struct{} // closed by the writer goroutine when it has ended
	once   sync.Once
	err    error // of Close
}

var (
	_ event.Store = (*Store)(nil)
	_ store.Store = (*Store)(nil)
)

// Open opens or creates the file at path, with mode 0600, and brings its schema
// up to date. A file of a newer Perdure and a damaged one are CodeFailed; a file
// that cannot be used now is CodeUnavailable.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot find the place of %s: %w", path, err)
	}
	if o, err = o.filled(); err != nil {
		return nil, err
	}
	s := &Store{path: path, opts: o, queue: make(chan *request, queueLength), closed: make(chan struct{}), ended: make(chan struct{})}
	s.mode.Store(&o.Synchronous)
	// SQLite gives the -wal and -shm files the mode of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.Errorf(api.CodeUnavailable, "cannot open the database %s", path), err)
	}
	if err := f.Close(); err != nil {
		return nil, s.explain("open the database", err)
	}
	if _, err := s.openWriter(ctx); err != nil {
		return nil, s.explain("open the database", err)
	}
	s.read, err = s.openDB(nil, `query_only(1)`, `cache_size(-1024)`)
	if err != nil {
		return nil, errors.Join(s.explain("open the database", err), s.writer.close())
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(1)
	go s.write() //nolint:contextcheck // it outlives Open: what was handed in is written, and Close waits for it
	return s, nil
}

// openDB returns a pool over the file; it does not connect yet.
func (s *Store) openDB(q url.Values, pragmas ...string) (*sql.DB, error) {
	if q == nil {
		q = url.Values{}
	}
	q["_pragma"] = append([]string{
		fmt.Sprintf("busy_timeout(%d)", s.opts.BusyTimeout.Milliseconds()),
		"journal_mode(" + s.opts.JournalMode + ")", "synchronous(" + s.opts.Synchronous + ")", "mmap_size(0)",
		"journal_size_limit(8388608)", "temp_store(MEMORY)",
	}, pragmas...)
	u := url.URL{Path: filepath.ToSlash(s.path)}
	return sql.Open("sqlite", "file:"+u.EscapedPath()+"?"+q.Encode())
}

// openWriter returns the writer and makes one when there is none.
func (s *Store) openWriter(ctx context.Context) (*writer, error) {
	if s.writer != nil {
		return s.writer, nil
	}
	db, err := s.openDB(url.Values{"_txlock": {"immediate"}}, `cache_size(-8192)`)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db, s.path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.writer = &writer{db: db, conn: conn, mode: s.opts.Synchronous, stmts: map[string]*sql.Stmt{}}
	return s.writer, nil
}

// SetSynchronous changes Options.Synchronous for the transactions to come. A word
// that is none of its values is passed over.
func (s *Store) SetSynchronous(mode string) {
	if o, err := (Options{Synchronous: mode}).filled(); err == nil {
		s.mode.Store(&o.Synchronous)
	}
}

// dropWriter gives the writer up after an error, if a new one may do better.
func (s *Store) dropWriter(err error) error {
	if !stale(err) || s.writer == nil {
		return nil
	}
	w := s.writer
	s.writer = nil
	return w.close()
}

// Close writes what was handed in and closes the file.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.closed)
		<-s.ended
		err := s.read.Close()
		if s.writer != nil {
			err = errors.Join(err, s.writer.close())
			s.writer = nil
		}
		s.err = s.explain("close the database", err)
	})
	return s.err
}

// Flush returns when all that was committed before is on the disk, so that a loss
// of power takes none of it. It does nothing where each commit waits for that, and
// where Synchronous is OFF. In WAL mode all that is not in the file itself, which
// SQLite flushes, is in the one beside it.
func (s *Store) Flush() error {
	if *s.mode.Load() != "NORMAL" {
		return nil
	}
	f, err := os.OpenFile(s.path+"-wal", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(s.path, os.O_RDWR, 0)
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	return s.explain("flush the database", err)
}

// Check reads the whole file for damage. It takes long for a big file and does
// not disturb others.
func (s *Store) Check(ctx context.Context) error {
	var said string
	if err := s.read.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&said); err != nil {
		return s.explain("check the database", err)
	}
	if said != "ok" {
		return api.Errorf(api.CodeFailed, "cannot trust the database %s: it is damaged (%s); stop Perdure, move it aside and start again", s.path, said)
	}
	return nil
}

// Backup writes a consistent copy of the file to path while others read and
// write. path must not exist; when Backup fails nothing is left there.
func (s *Store) Backup(ctx context.Context, path string) error {
	// SQLite takes an empty file for a new database, so that this fixes the
	// mode and refuses what exists.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("%w: %w", api.Errorf(api.CodeInvalid, "cannot write a backup to %s", path), err)
	}
	db, err := s.openDB(nil)
	if err == nil {
		_, err = db.ExecContext(ctx, `VACUUM INTO ?`, path)
		err = errors.Join(err, db.Close())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(s.explain("back up the database", err), os.Remove(path))
	}
	return nil
}
