//go:build unix

package reexec

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// become lets the descriptors be inherited, and executes.
func become(path string, argv, env []string, fds []int) error {
	defer keep(fds)
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("cannot hand descriptor %d over: %w", fd, err)
		}
	}
	restore := deaf()
	err := syscall.Exec(path, argv, env)
	restore()
	return &os.PathError{Op: "execute", Path: path, Err: err}
}

// keep takes descriptors back from what is started from now on.
func keep(fds []int) {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
}
