package worker

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// maxSocketPath is the longest path that fits sockaddr_un.sun_path with its
	// terminating zero (unix(7)).
	maxSocketPath = 107
	// oPath is O_PATH (open(2)), which package syscall does not have: it needs no
	// right to read the folder.
	oPath = 0x200000
)

// dialUnix connects to a Unix socket. A path that is too long for the kernel is
// reached through a descriptor of its folder.
func dialUnix(ctx context.Context, path string) (conn net.Conn, err error) {
	var d net.Dialer
	if len(path) <= maxSocketPath {
		return d.DialContext(ctx, "unix", path)
	}
	fd, err := syscall.Open(filepath.Dir(path), oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	conn, err = d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)))
	if closeErr := syscall.Close(fd); err == nil && closeErr != nil {
		_ = conn.Close() // the other error is the one that counts
		return nil, closeErr
	}
	return conn, err
}
