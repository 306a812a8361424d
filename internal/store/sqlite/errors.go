package sqlite

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/perdure/perdure/api"
	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// explain turns an error of the database into one for people. What passes by
// itself or by an operator's hand is CodeUnavailable; damage is CodeFailed.
func (s *Store) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var known *api.Error
	if errors.As(err, &known) {
		return err
	}
	var e *driver.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%w: %w", api.Errorf(api.CodeUnavailable, "cannot %s %s", doing, s.path), err)
	}
	code, hint := api.CodeUnavailable, ""
	switch e.Code() & 0xff { // the primary code, see sqlite.org/rescode.html
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		code = api.CodeFailed
		hint = "the file is damaged; the next server moves it aside and makes a new one: " +
			"its events, jobs and schedules are lost, no process is touched"
	case lib.SQLITE_FULL:
		hint = "the disk is full; free some space, then it goes on"
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_CANTOPEN, lib.SQLITE_AUTH:
		hint = "the file or its directory cannot be written; look at its permissions and at the file system"
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		hint = "another program holds it locked; close that program"
	case lib.SQLITE_IOERR:
		hint = "the disk reports an error"
		if errors.Is(err, syscall.ENOSPC) {
			hint = "the disk is full; free some space, then it goes on"
		}
	case lib.SQLITE_INTERRUPT:
		hint = "the request was given up"
	default:
		code = api.CodeInternal
		hint = "this should not happen; please report it"
	}
	return fmt.Errorf("%w: %w", api.Errorf(code, "cannot %s %s (%s)", doing, s.path, hint), err)
}

// Cause says in a word why the file could not be written: "full", "read_only",
// "damaged" or "error".
func Cause(err error) string {
	var e *driver.Error
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "full"
	case errors.Is(err, syscall.EROFS):
		return "read_only"
	case Damaged(err):
		return "damaged"
	case !errors.As(err, &e):
		return "error"
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL:
		return "full"
	case lib.SQLITE_READONLY:
		return "read_only"
	}
	return "error"
}

// stale says whether the connection itself may be what is wrong, so that a new
// one is worth a try.
func stale(err error) bool {
	var e *driver.Error
	if !errors.As(err, &e) {
		return true
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_FULL, lib.SQLITE_CONSTRAINT, lib.SQLITE_INTERRUPT:
		return false
	}
	return true
}

func isDriver(err error) bool {
	var e *driver.Error
	return errors.As(err, &e)
}
