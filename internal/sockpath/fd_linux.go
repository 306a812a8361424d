package sockpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// backlog is how many connections wait to be accepted.
const backlog = 128

// ListenFD makes a Unix socket at path as Listen does, and returns its
// descriptor, which does not block and is closed on exec. What is at the path
// is replaced: the caller knows that nobody serves it. A datagram socket needs
// no accept. Closing the descriptor leaves the file.
func ListenFD(path string, datagram bool) (int, error) {
	typ := unix.SOCK_STREAM
	if datagram {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot make a socket: %w", err)
	}
	if err := bindFD(fd, path, datagram); err != nil {
		return -1, fmt.Errorf("cannot listen on %s: %w", path, errors.Join(err, unix.Close(fd)))
	}
	return fd, nil
}

func bindFD(fd int, path string, datagram bool) error {
	// The file takes the mode of the descriptor (unix_bind in the kernel's
	// af_unix.c), so nobody ever sees it with another one.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(path), ".s"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(fd))
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err := withShortPath(temp, func(short string) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: short}) })
	if err != nil {
		return err
	}
	if !datagram {
		err = unix.Listen(fd, backlog)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}
