package session

import (
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func notifyWorld(t *testing.T, path string) (*world, *net.UnixConn) {
	t.Helper()
	dir := t.TempDir()
	if path == "" {
		path = filepath.Join(dir, "n.sock")
	}
	w := open(t, Options{}, Spec{Path: filepath.Join(dir, "w.sock"), Notify: path, Newline: filepath.Join(dir, "ready")}, newRecorder())
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return w, conn.(*net.UnixConn)
}

func TestNotify(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "@perdure-test-" + rand.Text()} {
		w, conn := notifyWorld(t, path)
		for _, c := range []struct{ send, typ, data string }{
			{"READY=1", "process.worker_ready", `{"by":"sd_notify"}`},
			{"RELOADING=1\nMONOTONIC_USEC=5", "process.worker_reloading", `{"by":"sd_notify"}`},
			{"STATUS=a = b\nSTOPPING=1\n", "process.status", `{"status":"a = b"}`},
			{"", "process.worker_stopping", `{"by":"sd_notify"}`},
			{"WATCHDOG=trigger", "process.worker_unhealthy", `{"message":"it asked for its watchdog","by":"sd_notify"}`},
			{"WATCHDOG_USEC=2500000", "process.worker_watchdog", `{"timeout_ms":2500,"by":"sd_notify"}`},
			{"EXTEND_TIMEOUT_USEC=1000000", "process.worker_extend", `{"timeout_ms":1000,"by":"sd_notify"}`},
			{"EXTEND_TIMEOUT_USEC=18446744073709551615", "process.event_invalid", ""},
			{"MAINPID=1\nERRNO=2", "process.worker_main_pid", `{"pid":1}`},
			{"", "process.worker_errno", `{"errno":2}`},
			{"ERRNO=two", "process.event_invalid", `{"reason":"notify","error":"ERRNO must be a number","raw":"ERRNO=two"}`},
			{"WATCHDOG=yes", "process.event_invalid", ""},
			{"nonsense", "process.event_invalid", ""},
			{"FDSTORE=1\nFDNAME=x", "process.worker_fdstore_ignored", ""},
			{"FDSTORE=1\nX_OWN=1\nREADY=0\nREADY=1", "process.worker_ready", ""},
		} {
			if c.send != "" {
				if _, err := conn.Write([]byte(c.send)); err != nil {
					t.Fatal(err)
				}
			}
			if data := w.h.want(t, c.typ); c.data != "" && data != c.data {
				t.Errorf("%q: %s, want %s", c.send, data, c.data)
			}
		}
		w.h.mu.Lock()
		for _, r := range w.h.taken {
			if r.Generation != 1 {
				t.Errorf("%s is of generation %d", r.Type, r.Generation)
			}
		}
		w.h.mu.Unlock()
		if w.e.LastBeat() != 0 {
			t.Error("a heartbeat before one was sent")
		}
		if _, err := conn.Write([]byte("WATCHDOG=1")); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return w.e.LastBeat() != 0 })
	}
}

// TestNotifyBarrier: a descriptor that comes with BARRIER=1 is closed when what
// came before has been taken; sd_notify_barrier(3) waits for that.
func TestNotifyBarrier(t *testing.T) {
	t.Parallel()
	w, conn := notifyWorld(t, "")
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := conn.Write([]byte("STATUS=before")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.WriteMsgUnix([]byte("BARRIER=1"), unix.UnixRights(int(wr.Fd())), nil); err != nil && !errors.Is(err, net.ErrWriteToConnected) {
		t.Fatal(err)
	}
	if err := wr.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d %v", n, err)
	}
	w.h.want(t, "process.status")
}

// TestNotifyForeign: the kernel's word on the sender decides, whatever the
// message says.
func TestNotifyForeign(t *testing.T) {
	t.Parallel()
	h := newRecorder()
	h.owns = func(int) bool { return false }
	path := filepath.Join(t.TempDir(), "n.sock")
	open(t, Options{}, Spec{Path: path + ".w", Notify: path}, h)
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("READY=1\nMAINPID=1")); err != nil {
		t.Fatal(err)
	}
	if data := h.want(t, "process.worker_rejected"); !strings.Contains(data, "does not belong") {
		t.Error(data)
	}
}

func TestNotifyTooLong(t *testing.T) {
	t.Parallel()
	w, conn := notifyWorld(t, "")
	if _, err := conn.Write([]byte("STATUS=" + strings.Repeat("x", maxNotify))); err != nil {
		t.Fatal(err)
	}
	w.h.want(t, "process.event_invalid")
}

// TestNewline: s6's way to say ready, from a program that opened the FIFO
// before the hub that reads it was there.
func TestNewline(t *testing.T) {
	t.Parallel()
	w, _ := notifyWorld(t, "")
	f, err := ReadyEnd(w.e.spec.Newline)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.close(t)
	if _, err := f.WriteString("almost "); err != nil {
		t.Fatal(err)
	}
	next := open(t, Options{}, w.e.spec, newRecorder())
	if _, err := f.WriteString("ready\n"); err != nil {
		t.Fatal(err)
	}
	if data := next.h.want(t, "process.worker_ready"); data != `{"by":"newline"}` {
		t.Error(data)
	}
}
