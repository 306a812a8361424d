package store

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/perdure/perdure/api"
)

// Step is one step of the schema. A step that was released never changes.
type Step struct {
	Version    int
	Name, Text string
}

// Steps reads the steps of a dialect from migrations/NNNN_name.sql; their
// numbers are 1, 2, 3 and so on.
func Steps(files fs.FS) ([]Step, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var out []Step
	for i, file := range names { // Glob sorts
		name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, api.Errorf(api.CodeInternal, "cannot use migration %s: its number is not %d", file, i+1)
		}
		text, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, err
		}
		out = append(out, Step{Version: version, Name: name, Text: string(text)})
	}
	return out, nil
}

// Pending returns the steps that a database with the schema have lacks. A newer
// schema than this program knows is CodeFailed, and nothing is touched.
func Pending(steps []Step, have int, where string) ([]Step, error) {
	if have > len(steps) {
		return nil, api.Errorf(api.CodeFailed, "cannot use %s: a newer Perdure wrote it (its schema is %d, this one knows %d); run the newer one", where, have, len(steps))
	}
	return steps[max(have, 0):], nil
}

// StepError says which step of the schema failed.
func StepError(s Step, err error) error { return fmt.Errorf("migration %s: %w", s.Name, err) }
