package server

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// lastFD is beyond what the test opens by itself, so that the number of a closed
// descriptor is not given anew.
var lastFD atomic.Int64

func dup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 500+int(lastFD.Add(1)))
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}
