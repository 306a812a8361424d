package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// again says whether a transaction is to be tried again as it is: serialization
// failures and deadlocks (PostgreSQL's appendix A, class 40).
func again(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && strings.HasPrefix(e.Code, "40")
}

// explain turns an error of the database into one for people; any other error of a
// caller's function stays as it is.
func (s *Store) explain(doing string, err error) error {
	var known *api.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, store.ErrNoRows) {
		return err
	}
	var e *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &connect), pgconn.Timeout(err), pgconn.SafeToRetry(err):
		return s.wrap(api.CodeUnavailable, doing, "it cannot be reached; is the server running, and may this user connect?", err)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.Join(api.Errorf(api.CodeTimeout, "cannot wait for the database any longer"), err)
	case errors.Is(err, context.Canceled):
		return errors.Join(api.Errorf(api.CodeUnavailable, "cannot wait for the database any longer"), err)
	default:
		return err
	}
	switch e.Code[:2] { // classes of appendix A of its manual
	case "08", "57", "25":
		return s.wrap(api.CodeUnavailable, doing, "the server ended the connection", err)
	case "28":
		return s.wrap(api.CodeUnavailable, doing, "the user or the password is not accepted", err)
	case "3D":
		return s.wrap(api.CodeUnavailable, doing, "there is no such database; make it with createdb", err)
	case "42":
		if e.Code == "42501" {
			return s.wrap(api.CodeUnavailable, doing, "the user may not do this; give it the right to make a schema, or make the schema for it", err)
		}
	case "53":
		return s.wrap(api.CodeUnavailable, doing, "the server is out of disk, memory or connections", err)
	case "40":
		return s.wrap(api.CodeUnavailable, doing, "others were in the way again and again", err)
	}
	return s.wrap(api.CodeInternal, doing, "this should not happen; please report it", err)
}

func (s *Store) wrap(code api.Code, doing, hint string, err error) error {
	return fmt.Errorf("%w: %w", api.Errorf(code, "cannot %s %s (%s)", doing, s.where, hint), err)
}
