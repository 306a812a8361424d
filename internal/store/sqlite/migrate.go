package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrate brings the schema up to date, each step in its own transaction with
// its line in the ledger.
func migrate(ctx context.Context, db *sql.DB, path string) error {
	steps, err := store.Steps(migrationFiles)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_ledger (
		version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT`)
	if err != nil {
		return err
	}
	var have int
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_ledger`).Scan(&have); err != nil {
		return err
	}
	pending, err := store.Pending(steps, have, path)
	if err != nil {
		return err
	}
	for _, step := range pending {
		if err := apply(ctx, db, step); err != nil {
			return store.StepError(step, err)
		}
	}
	return nil
}

// Check returns an error if the file at path is of a newer Perdure. It changes
// nothing, so that it may be asked while another program uses the file. A file
// that is not there is well.
func Check(ctx context.Context, path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	opts, err := Options{}.filled()
	if err != nil {
		return err
	}
	s := &Store{path: path, opts: opts}
	db, err := s.openDB(nil, `query_only(1)`)
	if err != nil {
		return s.explain("open the database", err)
	}
	defer func() { _ = db.Close() }() // it was only read
	var tables, have int
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name = 'schema_ledger'`).Scan(&tables)
	if err == nil && tables > 0 {
		err = db.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_ledger`).Scan(&have)
	}
	if err != nil {
		return s.explain("read the database", err)
	}
	steps, err := store.Steps(migrationFiles)
	if err != nil {
		return err
	}
	_, err = store.Pending(steps, have, path)
	return err
}

func apply(ctx context.Context, db *sql.DB, step store.Step) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, step.Text); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO schema_ledger (version, name, applied_at) VALUES (?, ?, ?)`,
		step.Version, step.Name, time.Now().Unix())
	if err != nil {
		return err
	}
	fault.Here("sqlite.migrate.before_commit")
	err = tx.Commit()
	fault.Here("sqlite.migrate.after_commit")
	return err
}
