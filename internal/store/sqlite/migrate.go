package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"time"

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
	return tx.Commit()
}
