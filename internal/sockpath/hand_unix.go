//go:build unix

package sockpath

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Hand returns a descriptor of a listener, close-on-exec, for a program that this
// process becomes (execve(2)) and that calls Inherited. Whoever connects
// meanwhile waits until that one accepts. From now on closing a listener of a path
// leaves its file. The caller closes the descriptor if it is not handed over
// after all.
func Hand(l net.Listener) (int, error) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("cannot hand a %T over", l)
	}
	raw, err := c.SyscallConn()
	fd := -1
	if err == nil {
		// Not by File and Fd, which would make the listener itself blocking.
		var dup error
		err = raw.Control(func(own uintptr) { fd, dup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3) })
		if err == nil {
			err = dup
		}
	}
	if err != nil {
		return -1, fmt.Errorf("cannot hand the listener at %s over: %w", l.Addr(), err)
	}
	if l, ok := l.(*listener); ok {
		l.kept.Store(true)
	}
	return fd, nil
}

// CloseHand closes a descriptor of Hand.
func CloseHand(fd int) { unix.Close(fd) }
