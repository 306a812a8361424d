// Package fault has named points at which a test makes the program fail: die,
// get an error or wait. Without the build tag "faults" a point is an empty
// function that the compiler removes.
//
// With the tag, the environment variable PERDURE_FAULT says what fails:
//
//	PERDURE_FAULT="journal.append.before=kill:3,journal.sync=error,control.send=delay:10ms"
//
// "kill:N" ends the process with SIGKILL at the N-th pass, "error:N" returns
// an error from the N-th pass on, "delay:D" waits at every pass. N is 1 when
// it is left out.
package fault

import "errors"

// ErrInjected is what a point with the action "error" returns.
var ErrInjected = errors.New("fault injected by PERDURE_FAULT")
