package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one step of the schema. A step that was released never changes.
type migration struct {
	version int
	name    string
	text    string
}

// migrations returns the steps in order; their versions are 1, 2, 3 and so on.
func migrations() ([]migration, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var out []migration
	for i, file := range names { // Glob sorts
		name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, api.Errorf(api.CodeInternal, "cannot use migration %s: its number is not %d", file, i+1)
		}
		text, err := migrationFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		out = append(out, migration{version: version, name: name, text: string(text)})
	}
	return out, nil
}

// migrate brings the schema up to date, each step in its own transaction with
// its line in the ledger.
func migrate(ctx context.Context, db *sql.DB, path string) error {
	steps, err := migrations()
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
	if have > len(steps) {
		return api.Errorf(api.CodeFailed, "cannot use %s: a newer Perdure wrote it (its schema is %d, this one knows %d); run the newer one", path, have, len(steps))
	}
	for _, step := range steps[have:] {
		if err := apply(ctx, db, step); err != nil {
			return fmt.Errorf("migration %s: %w", step.name, err)
		}
	}
	return nil
}

func apply(ctx context.Context, db *sql.DB, step migration) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, step.text); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO schema_ledger (version, name, applied_at) VALUES (?, ?, ?)`,
		step.version, step.name, time.Now().Unix())
	if err != nil {
		return err
	}
	return tx.Commit()
}
