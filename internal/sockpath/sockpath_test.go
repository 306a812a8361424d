package sockpath

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo checks that a connection can be made both ways and returns both ends.
func connect(t *testing.T, l net.Listener, path string) (client, server net.Conn) {
	t.Helper()
	client, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func TestPathsOfAnyLength(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "s.sock")}
	if runtime.GOOS == "linux" {
		long := filepath.Join(dir, strings.Repeat("d", 200), strings.Repeat("e", 200))
		if err := os.MkdirAll(long, 0o700); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(long, "supervisor.sock"))
	}
	for _, path := range paths {
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 || l.Addr().String() != path {
			t.Errorf("%s: %v %v", l.Addr(), info, err)
		}
		client, server := connect(t, l, path)
		for _, c := range []net.Conn{client, server} {
			if err := CheckPeer(c); err != nil {
				t.Error(err)
			}
		}
		if _, err := Listen(path); !errors.Is(err, ErrInUse) {
			t.Errorf("a second Listen: %v", err)
		}
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is still there: %v", err)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 1 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
}

func TestStaleFileIsReplacedAndSuccessorIsKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // as if somebody had cleaned up
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	connect(t, second, path)
}

func TestErrorsNameThePath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none", "s.sock")
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("listen: %v", err)
	}
	if _, err := Dial(context.Background(), path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("dial: %v", err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("n", 200))
	if _, err := Listen(long); err != nil && runtime.GOOS != "linux" && !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("a name that is too long: %v", err)
	}
}

func TestWhoIsAllowed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		peer, own int
		ok        bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		if err := allowed(c.peer, c.own); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	a, b := net.Pipe()
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	if CheckPeer(a) == nil {
		t.Error("a pipe passes for a socket of this user")
	}
}
