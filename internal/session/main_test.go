package session

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/internal/sockpath"
	"github.com/perdure/perdure/internal/wire"
)

func TestMain(m *testing.M) {
	if os.Getenv("SESSION_TEST_SENDER") != "" {
		if err := sendHeartbeats(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// told is one report, in the form of a transcript.
type told struct{ typ, data string }

// recorder is a Handler that keeps what it is told.
type recorder struct {
	reports chan told
	owns    func(pid int) bool
	tree    []int
	beats   atomic.Int64

	mu    sync.Mutex
	fail  error // of Take
	hold  chan struct{}
	marks []Mark
	calls sync.WaitGroup
	taken []Report
}

func newRecorder() *recorder {
	return &recorder{reports: make(chan told, 1<<16), owns: func(int) bool { return true }}
}

func (r *recorder) Owns(pid int) bool { return r.owns(pid) }
func (r *recorder) Tree() []int       { return r.tree }
func (r *recorder) Beat()             { r.beats.Add(1) }

func (r *recorder) Welcome() wire.Welcome {
	return wire.Welcome{Server: "perdure/test", ProcessID: "proc_1", Name: "encoder", Generation: 1,
		Stop: &wire.Stop{GraceMs: 10000}, Metadata: []byte(`{"file":"a.mp4"}`)}
}

func (r *recorder) Take(b Batch, done func(error)) {
	r.mu.Lock()
	err, hold := r.fail, r.hold
	if err == nil {
		r.taken = append(r.taken, b.Reports...)
		if b.Marks != nil {
			r.marks = b.Marks
		}
	}
	r.mu.Unlock()
	r.calls.Go(func() {
		if hold != nil {
			<-hold
		}
		if err == nil {
			for _, p := range b.Reports {
				r.reports <- told{p.Type, string(p.Data)}
			}
		}
		done(err)
	})
}

func (r *recorder) set(fail error, hold chan struct{}) {
	r.mu.Lock()
	r.fail, r.hold = fail, hold
	r.mu.Unlock()
}

// next returns the next report.
func (r *recorder) next(t *testing.T) told {
	t.Helper()
	select {
	case x := <-r.reports:
		if !json.Valid([]byte(x.data)) {
			t.Fatalf("%s: its data is no JSON: %s", x.typ, x.data)
		}
		return x
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is reported")
		return told{}
	}
}

// want wants the next report to be of a type and returns its data.
func (r *recorder) want(t *testing.T, typ string) string {
	t.Helper()
	got := r.next(t)
	if got.typ != typ {
		t.Fatalf("reported %s %s, want %s", got.typ, got.data, typ)
	}
	return got.data
}

func clock() int64 { return time.Now().UnixNano() }

// world is a hub with one endpoint.
type world struct {
	hub  *Hub
	e    *Endpoint
	h    *recorder
	path string
}

func open(t *testing.T, o Options, spec Spec, h *recorder) *world {
	t.Helper()
	o.Clock = clock
	hub, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	spec.ProcessID = "proc_1"
	e, err := hub.Listen(spec, h)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{hub: hub, e: e, h: h, path: spec.Path}
	t.Cleanup(func() { w.close(t) })
	return w
}

func (w *world) close(t *testing.T) {
	t.Helper()
	if err := w.hub.Close(); err != nil {
		t.Error(err)
	}
	w.h.calls.Wait()
}

func unixWorld(t *testing.T, o Options) *world {
	t.Helper()
	return open(t, o, Spec{Path: filepath.Join(t.TempDir(), "w.sock")}, newRecorder())
}

// worker is a client's end of a connection.
type worker struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (w *world) connect(t *testing.T) *worker {
	t.Helper()
	var conn net.Conn
	var err error
	if w.path != "" {
		conn, err = sockpath.Dial(t.Context(), w.path)
	} else {
		var d net.Dialer
		conn, err = d.DialContext(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(w.e.Port()))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &worker{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (k *worker) send(lines ...string) {
	k.t.Helper()
	for _, l := range lines {
		if _, err := k.conn.Write([]byte(l + "\n")); err != nil {
			k.t.Fatal(err)
		}
	}
}

func (k *worker) receive() (string, error) {
	if err := k.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	line, err := k.r.ReadString('\n')
	return line, err
}

// want wants the next line to be of a type.
func (k *worker) want(typ string) map[string]any {
	k.t.Helper()
	line, err := k.receive()
	if err != nil {
		k.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil || m["type"] != typ {
		k.t.Fatalf("received %s, want %s", line, typ)
	}
	return m
}

func (k *worker) halfClose() {
	k.t.Helper()
	if err := k.conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		k.t.Fatal(err)
	}
}

func (k *worker) wantClosed() {
	k.t.Helper()
	if line, err := k.receive(); err == nil {
		k.t.Fatalf("received %s, want the end", line)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		k.t.Fatal("the connection is not closed")
	}
}

// transports are the options for each way to serve.
func transports() map[string]Options {
	out := map[string]Options{"portable": {Portable: true}}
	if runtime.GOOS == "linux" {
		out["epoll"] = Options{}
	}
	return out
}

func (w *world) command(ctx context.Context, id, name, data string) (json.RawMessage, error) {
	return w.e.Command(ctx, wire.Command{ID: id, Command: name, Data: json.RawMessage(data), TimeoutMs: 30000})
}

// sendHeartbeats is the program of another process: it connects to each of the
// paths, one a line of its input, until an empty one, then sends as many
// heartbeats over each as the next line says, one a write.
func sendHeartbeats(input io.Reader) error {
	in := bufio.NewScanner(input)
	var conns []net.Conn
	for in.Scan() && in.Text() != "" {
		c, err := sockpath.Dial(context.Background(), in.Text())
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	fmt.Println("connected")
	in.Scan()
	n, err := strconv.Atoi(in.Text())
	if err != nil {
		return err
	}
	line := []byte(`{"type":"heartbeat","processId":"proc_1754000000000_abc1234","timestamp":1754000000003}` + "\n")
	for range n {
		for _, c := range conns {
			if _, err := c.Write(line); err != nil {
				return err
			}
		}
	}
	for _, c := range conns {
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			return err
		}
	}
	for _, c := range conns {
		_, _ = io.Copy(io.Discard, c)
	}
	return nil
}
