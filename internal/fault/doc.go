// Package fault has named points at which a test makes the program fail: die,
// get an error or wait. Without the build tag "faults" a point is an empty
// function that the compiler removes.
//
// There is a point on either side of everything that is made durable and of
// every effect that follows from it; points.go lists them. With the tag, the
// environment variable PERDURE_FAULT says what fails:
//
//	PERDURE_FAULT="journal.append.before=kill:3,journal.sync=error,control.send=delay:10ms"
//
// "kill:N" ends the process with SIGKILL at the N-th pass, "error:N" returns
// an error from the N-th pass on, "delay:D" waits at every pass, "count" does
// nothing. N is 1 when it is left out. The name "*" stands for all points.
//
// Passes are counted in each process by itself. PERDURE_FAULT_DIR names a
// directory where they are counted over all processes, in a file for each point
// that has one byte for each pass: then a kill comes once, whoever comes there,
// and a test can see which points were passed.
//
// There a test also says what happens to a program that runs already: a file
// POINT.kill has the next process that passes the point killed, once. It removes
// the file, and leaves its pid in POINT.killed.
//
// PERDURE_FAULT_BOOT stands for the name of another boot of the machine.
package fault

import "errors"

// ErrInjected is what a point with the action "error" returns.
var ErrInjected = errors.New("fault injected by PERDURE_FAULT")
