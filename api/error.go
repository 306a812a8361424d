package api

import (
	"errors"
	"fmt"
)

// Code is the kind of an error. The list is closed; each code has one HTTP
// status and one exit code (docs/reference/errors.md).
type Code string

// The error codes.
const (
	// CodeInvalid means: the request or the file is wrong; Field says where.
	CodeInvalid Code = "invalid"
	// CodeNotFound means: there is no such thing.
	CodeNotFound Code = "not_found"
	// CodeConflict means: the thing's state forbids it, or a later command won.
	CodeConflict Code = "conflict"
	// CodeDenied means: the caller may not do this.
	CodeDenied Code = "denied"
	// CodeTimeout means: it did not come true in time.
	CodeTimeout Code = "timeout"
	// CodeUnavailable means: a part that is needed cannot be reached now.
	CodeUnavailable Code = "unavailable"
	// CodeFailed means: it was tried and failed for good.
	CodeFailed Code = "failed"
	// CodeInternal means: a fault of Perdure's own.
	CodeInternal Code = "internal"
)

// Error is an error with a code. Its text starts with a small letter and says
// what cannot be done and what to do about it.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// Field is the path of the field that is wrong, such as
	// "processes.web.backoff.max".
	Field string `json:"field,omitempty"`
}

// Error returns the message.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Errorf returns an *Error with code and a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first *Error in err's chain, or CodeInternal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
