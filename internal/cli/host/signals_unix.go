//go:build unix

package host

import (
	"os"
	"syscall"
)

// UserSignals are the signals that mean something to a program only, so that
// whoever stands before it has to pass them on.
func UserSignals() []os.Signal { return []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2} }

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
