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
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
)

// chunk is how many events one statement inserts when there are so many.
const chunk = 16

// readers is how many connections read at once at most.
const readers = 3

// Options say how the file is used.
type Options struct {
	// Full makes a commit wait until the disk has it (synchronous FULL), so
	// that it survives a loss of power. Default false: NORMAL.
	Full bool
	// BusyTimeout is how long to wait for a lock that another program holds.
	// Default 5s.
	BusyTimeout time.Duration
}

// Store is an event.Store in a file.
type Store struct {
	path   string
	opts   Options
	writer *writer // nil after an error that a new connection may cure
	read   *sql.DB
}

var _ event.Store = (*Store)(nil)

// writer is the one connection that writes and its statements. The goroutine
// that calls Commit and Trim owns it.
type writer struct {
	db                      *sql.DB
	insert, insertMany      *sql.Stmt
	last, cursor, setCursor *sql.Stmt
}

// Open opens or creates the file at path, with mode 0600, and brings its schema
// up to date. A file of a newer Perdure and a damaged one are CodeFailed; a file
// that cannot be used now is CodeUnavailable.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot find the place of %s: %w", path, err)
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 5 * time.Second
	}
	s := &Store{path: path, opts: o}
	// SQLite gives the -wal and -shm files the mode of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.Errorf(api.CodeUnavailable, "cannot open the event log %s", path), err)
	}
	if err := f.Close(); err != nil {
		return nil, s.explain("open the event log", err)
	}
	if _, err := s.openWriter(ctx); err != nil {
		return nil, s.explain("open the event log", err)
	}
	s.read, err = s.openDB(`query_only(1)`, `cache_size(-1024)`)
	if err != nil {
		return nil, errors.Join(s.explain("open the event log", err), s.writer.close())
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(1)
	return s, nil
}

// openDB returns a pool over the file; it does not connect yet.
func (s *Store) openDB(pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_txlock": {"immediate"}}
	sync := "NORMAL"
	if s.opts.Full {
		sync = "FULL"
	}
	q["_pragma"] = append([]string{
		fmt.Sprintf("busy_timeout(%d)", s.opts.BusyTimeout.Milliseconds()),
		"journal_mode(WAL)", "synchronous(" + sync + ")", "mmap_size(0)",
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
	db, err := s.openDB(`cache_size(-2048)`)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	w := &writer{db: db}
	if err := migrate(ctx, db, s.path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.writer = w
	return w, nil
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

func (w *writer) close() error { return w.db.Close() } // closes the statements too

// Close closes the file.
func (s *Store) Close() error {
	err := s.read.Close()
	if s.writer != nil {
		err = errors.Join(err, s.writer.close())
		s.writer = nil
	}
	return s.explain("close the event log", err)
}

// Check reads the whole file for damage. It takes long for a big file and does
// not disturb others.
func (s *Store) Check(ctx context.Context) error {
	var said string
	if err := s.read.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&said); err != nil {
		return s.explain("check the event log", err)
	}
	if said != "ok" {
		return api.Errorf(api.CodeFailed, "cannot trust the event log %s: it is damaged (%s); stop Perdure, move it aside and start again", s.path, said)
	}
	return nil
}

// MoveAside renames the file and what belongs to it, and returns the new path.
// It is for an operator's command while no Perdure uses the file. A new file is
// made at the next Open; events then count from 1 again.
func MoveAside(path string, now time.Time) (string, error) {
	to := fmt.Sprintf("%s.damaged-%s", path, now.UTC().Format("20060102T150405.000Z"))
	for _, end := range []string{"-wal", "-shm", ""} {
		err := os.Rename(path+end, to+end)
		if err != nil && !(end != "" && errors.Is(err, fs.ErrNotExist)) {
			return "", fmt.Errorf("cannot move %s aside: %w", path+end, err)
		}
	}
	return to, nil
}
