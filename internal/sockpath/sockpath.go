// Package sockpath listens and dials on Unix sockets whose paths may be longer
// than the system's bound, and tells who is at the other end.
package sockpath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
)

// ErrInUse is wrapped by the error of Listen when somebody answers at the path.
var ErrInUse = errors.New("another program answers there")

// listener removes its socket file when it is closed, unless a successor has
// put its own there.
type listener struct {
	*net.UnixListener
	path string
	file os.FileInfo
	kept atomic.Bool // Close leaves the file: the listener has been handed over
	once sync.Once
	err  error
}

// Listen makes a Unix stream socket at path, of any length on Linux, that only
// this user may connect to (mode 0600). A file left by a dead listener is
// replaced; a live one is refused with ErrInUse. Closing the listener removes
// the file.
func Listen(path string) (net.Listener, error) {
	if conn, err := Dial(context.Background(), path); err == nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, errors.Join(ErrInUse, conn.Close()))
	}
	if runtime.GOOS == "windows" {
		return listenInPlace(path)
	}
	// Bound under a name of its own and moved into place, so that nobody ever
	// sees the socket with the mode of the umask, nor the path without one.
	temp := filepath.Join(filepath.Dir(path), ".s"+strconv.Itoa(os.Getpid()))
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	ul, err := bind(temp)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	ul.SetUnlinkOnClose(false)
	l := &listener{UnixListener: ul, path: path}
	if err = os.Chmod(temp, 0o600); err == nil {
		if l.file, err = os.Lstat(temp); err == nil {
			err = os.Rename(temp, path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, errors.Join(err, ul.Close(), os.Remove(temp)))
	}
	return l, nil
}

func listenInPlace(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	l, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return l, nil
}

func bind(path string) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := withShortPath(path, func(short string) error {
		var err error
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	return l, err
}

// Addr returns the path as it was given to Listen.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close stops listening and removes the socket file if it is still this one's
// and was not handed over.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.err = l.UnixListener.Close()
		if l.kept.Load() {
			return
		}
		now, err := os.Lstat(l.path)
		if err == nil && os.SameFile(now, l.file) {
			l.err = errors.Join(l.err, os.Remove(l.path))
		}
	})
	return l.err
}

// Inherited makes a listener of a descriptor from Hand. Path is where it listens;
// empty for a listener that is not of a path. It owns the descriptor.
func Inherited(path string, fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), path)
	if f == nil {
		return nil, fmt.Errorf("cannot take over the listener: %d is no descriptor", fd)
	}
	defer func() { _ = f.Close() }() // FileListener has made a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the listener at %s: %w", path, err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok || path == "" {
		return l, nil
	}
	ul.SetUnlinkOnClose(false)
	out := &listener{UnixListener: ul, path: path}
	if out.file, err = os.Lstat(path); err != nil {
		// Its file was removed: nobody can connect any more.
		return nil, fmt.Errorf("cannot take over the listener: %w", errors.Join(err, ul.Close()))
	}
	return out, nil
}

// Dial connects to the Unix stream socket at path, of any length on Linux.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var conn net.Conn
	err := withShortPath(path, func(short string) error {
		var d net.Dialer
		var err error
		conn, err = d.DialContext(ctx, "unix", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", path, err)
	}
	return conn, nil
}

// PeerUID returns the user at the other end of a Unix socket, as the system
// noted it when the two were connected. errors.ErrUnsupported where it does not
// tell (Windows).
func PeerUID(conn net.Conn) (int, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("cannot tell who is at the other end of a %T: it is no Unix socket", conn)
	}
	uid, err := peerUID(uc)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return 0, fmt.Errorf("cannot tell who is at the other end of the socket: %w", err)
	}
	return uid, err
}

// CheckPeer returns nil if the other end of a Unix socket is this user's or
// root's. Where the system does not tell (Windows), it returns nil: there the
// access to the folder alone protects the socket.
func CheckPeer(conn net.Conn) error {
	uid, err := PeerUID(conn)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	return allowed(uid, os.Geteuid())
}

func allowed(peer, own int) error {
	if peer == own || peer == 0 {
		return nil
	}
	return fmt.Errorf("the other end of the socket belongs to user %d, not to user %d or root", peer, own)
}
