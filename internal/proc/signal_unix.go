//go:build unix

package proc

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const hasRealtime = runtime.GOOS == "linux"

// fixedSignalName is empty for realtime signals and for what is no signal.
func fixedSignalName(n int) string { return unix.SignalName(syscall.Signal(n)) }
