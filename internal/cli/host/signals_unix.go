//go:build unix

package host

import (
	"os"
	"syscall"
)

// UserSignals are the signals that mean something to a program only, so that
// whoever stands before it has to pass them on.
func UserSignals() []os.Signal { return []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2} }

// OperatorSignals mean something to a server without a terminal: SIGHUP and
// SIGUSR2.
func OperatorSignals() []os.Signal { return []os.Signal{syscall.SIGHUP, syscall.SIGUSR2} }

// IsHangup says whether a signal is SIGHUP.
func IsHangup(s os.Signal) bool { return s == syscall.SIGHUP }

// SignalName is the name of a signal, such as "SIGUSR1".
func SignalName(s os.Signal) string {
	switch s {
	case syscall.SIGUSR1:
		return "SIGUSR1"
	case syscall.SIGUSR2:
		return "SIGUSR2"
	default:
		return "SIGHUP"
	}
}
