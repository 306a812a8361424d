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

// CodeInfo is what a code comes to outside.
type CodeInfo struct {
	Code Code
	// HTTPStatus is the status of the answer that carries it. Where the request
	// itself cannot be read, one of the same class that says more may stand
	// for it (405, 413), and 401 for denied when there is no good token.
	HTTPStatus int
	// ExitCode is what the command line ends with.
	ExitCode int
	// Meaning and Advice are sentences for people.
	Meaning, Advice string
}

// Codes returns the table of all codes, each once. It is the only one: the
// server, the command line and docs/reference/errors.md read it.
func Codes() []CodeInfo {
	return []CodeInfo{
		{CodeInvalid, 400, 2, "The request, the command line or the file is wrong; `field` says where.", "Correct it. Nothing was changed."},
		{CodeDenied, 403, 1, "The caller may not do this.", "Use the socket as the same user, or a good token."},
		{CodeNotFound, 404, 4, "There is no such thing.", "Look for its name with `perdure ps`."},
		{CodeConflict, 409, 6, "Its state forbids it, or a later command won.", "Look at its state; the message says which command helps."},
		{CodeFailed, 422, 1, "It was tried and failed for good.", "Look at `perdure status NAME` and its output."},
		{CodeInternal, 500, 1, "A fault of Perdure's own.", "Please report it, with the message."},
		{CodeUnavailable, 503, 3, "Perdure does not run here, or a part that is needed cannot be reached now.", "Try again, or see `perdure doctor`."},
		{CodeTimeout, 504, 5, "It did not come true in time.", "It may still come true: look again, or wait longer."},
	}
}

// Info returns the row of the table; of a code that is not in it, the row of
// CodeInternal.
func (c Code) Info() CodeInfo {
	var internal CodeInfo
	for _, i := range Codes() {
		if i.Code == c {
			return i
		}
		if i.Code == CodeInternal {
			internal = i
		}
	}
	return internal
}

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
