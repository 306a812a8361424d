package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// damagedMark is the end of the name of an empty file that says: this database is
// damaged, whatever it looks like when it is opened.
const damagedMark = ".damaged"

// errMarked is what a database with that mark is opened with, errEmpty one that was
// emptied: SQLite takes it for a new one.
var (
	errMarked = api.Errorf(api.CodeFailed, "it was found damaged while it was in use")
	errEmpty  = api.Errorf(api.CodeFailed, "the file is empty")
)

// seqJump keeps the numbers of events that are lost apart from those to come.
const seqJump = 1 << 20

// Damaged says whether an error means that the file itself is damaged.
func Damaged(err error) bool {
	var e *driver.Error
	if !errors.As(err, &e) {
		return errors.Is(err, errMarked) || errors.Is(err, errEmpty)
	}
	code := e.Code() & 0xff // the primary code, see sqlite.org/rescode.html
	return code == lib.SQLITE_CORRUPT || code == lib.SQLITE_NOTADB
}

// MarkDamaged has the next OpenSound take the database at path for damaged.
func MarkDamaged(path string) error { return os.WriteFile(path+damagedMark, nil, 0o600) }

// OpenSound is Open, but for a damaged file: that is moved aside, and there is a
// new one, whose first event is what tell makes of the place of the old one and
// of what is wrong with it. The numbers of events go on above all that were told.
// A file of a newer Perdure is refused and left as it is.
func OpenSound(ctx context.Context, path string, o Options, now time.Time, tell func(old string, why error) api.Event) (*Store, error) {
	s, why := openWhole(ctx, path, o)
	if !Damaged(why) {
		return s, why
	}
	last := lastOf(ctx, path, o)
	old, err := MoveAside(path, now)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = lastAside(path) // one that was killed has moved it
	}
	if err != nil {
		return nil, errors.Join(why, err)
	}
	if err := os.Remove(path + damagedMark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove the mark of a damaged database: %w", err)
	}
	if s, err = Open(ctx, path, o); err != nil {
		return nil, err
	}
	// Where the last number cannot be read, a time is above it.
	after := uint64(now.UnixMilli())
	if last > 0 {
		after = last + seqJump
	}
	e := tell(old, why)
	err = s.Update(ctx, func(t store.Tx) error {
		_, err := t.Exec(ctx, insertOne, int64(after+1), e.Time.UnixNano(), e.Type, e.ProcessID, e.Name, int64(e.Generation), []byte(e.Data))
		return err
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openWhole opens the file and reads what a log begins with.
func openWhole(ctx context.Context, path string, o Options) (*Store, error) {
	if _, err := os.Stat(path + damagedMark); err == nil {
		return nil, errMarked
	}
	if st, err := os.Stat(path); err == nil && st.Size() == 0 {
		return nil, errEmpty
	}
	s, err := Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	if _, _, err = s.Bounds(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// lastOf is the number of the last event in a damaged file, 0 if it cannot be read.
func lastOf(ctx context.Context, path string, o Options) uint64 {
	if st, err := os.Stat(path); err != nil || st.Size() == 0 {
		return 0 // it would be made by looking
	}
	opts, err := o.filled()
	s := &Store{path: path, opts: opts}
	if err == nil {
		s.read, err = s.openDB(nil, `query_only(1)`)
	}
	if err != nil {
		return 0
	}
	defer func() { _ = s.read.Close() }() // it was only read
	_, last, err := s.Bounds(ctx)
	if err != nil {
		return 0
	}
	return last
}

// lastAside is where the last file was moved to, empty if there was none.
func lastAside(path string) (string, error) {
	all, err := filepath.Glob(path + damagedMark + "-*Z")
	if err != nil || len(all) == 0 {
		return "", err
	}
	return slices.Max(all), nil
}

// MoveAside renames the file and what belongs to it, and returns the new path. No
// Perdure may use the file. A new file is made at the next Open.
func MoveAside(path string, now time.Time) (string, error) {
	to := fmt.Sprintf("%s%s-%s", path, damagedMark, now.UTC().Format("20060102T150405.000Z"))
	for _, end := range []string{"-wal", "-shm", ""} {
		err := os.Rename(path+end, to+end)
		if err != nil && !(end != "" && errors.Is(err, fs.ErrNotExist)) {
			return "", fmt.Errorf("cannot move %s aside: %w", path+end, err)
		}
	}
	return to, nil
}
