package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/internal/wire"
)

// each runs a test on each transport.
func each(t *testing.T, f func(t *testing.T, o Options)) {
	for how, o := range transports() {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f(t, o)
		})
	}
}

const helloA = `{"type":"hello","version":1,"instance":"instance-a","capabilities":["commands"]}`

func event(id int) string { return fmt.Sprintf(`{"type":"event","event":"e","id":%d}`, id) }

// Keeps out Q26.
func TestSocketIsPrivateAndPathsMayBeLong(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 150))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "w.sock")
	if runtime.GOOS != "linux" {
		path = filepath.Join(t.TempDir(), "w.sock")
	}
	w := open(t, Options{}, Spec{Path: path}, newRecorder())
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	k := w.connect(t)
	k.send(`{"type":"connected"}`)
	w.h.want(t, "process.worker_connected")
}

// TestP20CloseWithManyConnections: any number of open connections, half-closed
// or not, must not keep a close from returning (P20).
func TestP20CloseWithManyConnections(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := unixWorld(t, o)
		var all []*worker
		for range 10 {
			k := w.connect(t)
			k.send(`{"type":"connected"}`)
			w.h.want(t, "process.worker_connected")
			all = append(all, k)
		}
		w.e.Close()
		w.e.Close()
		for _, k := range all {
			k.wantClosed()
		}
		if err := w.e.Send([]byte("1")); !errors.Is(err, ErrNoWorker) {
			t.Errorf("%v", err)
		}
	})
}

// TestP21NewConnectionIsTheOneThatIsSentTo: the end of an old connection does
// not unseat the new one (P21).
func TestP21NewConnectionIsTheOneThatIsSentTo(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := unixWorld(t, o)
		old := w.connect(t)
		old.send(`{"type":"connected"}`)
		w.h.want(t, "process.worker_connected")
		now := w.connect(t)
		now.send(`{"type":"connected"}`)
		w.h.want(t, "process.worker_connected")
		old.halfClose()
		w.h.want(t, "process.worker_disconnected")
		old.wantClosed()
		if err := w.e.Send([]byte(`{"type":"x"}`)); err != nil {
			t.Fatal(err)
		}
		now.want("x")
	})
}

// TestP23FloodWithoutLineEnd: 100 MB without a line's end cost no memory (P23).
func TestP23FloodWithoutLineEnd(t *testing.T) {
	// Not parallel: it measures the memory of the program.
	w := unixWorld(t, Options{})
	k := w.connect(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range 100 {
		if _, err := k.conn.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	k.send("", `{"type":"heartbeat"}`)
	data := w.h.want(t, "process.event_invalid")
	if !strings.Contains(data, `"too_long"`) || !strings.Contains(data, `"length":104857600`) {
		t.Errorf("%.200s", data)
	}
	eventually(t, func() bool { return w.e.LastBeat() != 0 })
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("100 MB took %d bytes of memory", grown)
	}
}

// TestUnfinishedLinesAreBounded: many connections with half a line each are
// hung up on before they hold more than is allowed, and the others go on.
func TestUnfinishedLinesAreBounded(t *testing.T) {
	t.Parallel()
	w := unixWorld(t, Options{})
	good := w.connect(t)
	good.send(helloA)
	w.h.want(t, "process.worker_connected")
	good.want("welcome")
	half := bytes.Repeat([]byte("y"), 1<<20-1)
	kicked := 0
	for range 10 {
		k := w.connect(t)
		if _, err := k.conn.Write(half); err != nil {
			kicked++
		}
		w.hub.lock()
		if n := w.e.held(); n > MaxHeld {
			t.Errorf("%d bytes are held", n)
		}
		w.hub.unlock()
	}
	eventually(t, func() bool { return w.e.Look().Conns <= 5 })
	good.send(event(1))
	good.want("ack")
}

// TestNothingIsReadThatCannotBeMadeDurable: while the journal does not take
// anything, a worker that sends and sends is not read, and nothing is lost.
func TestNothingIsReadThatCannotBeMadeDurable(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := unixWorld(t, o)
		hold := make(chan struct{})
		w.h.set(nil, hold)
		k := w.connect(t)
		k.send(helloA)
		k.want("welcome")
		const n = 4000
		go func() {
			for i := range n {
				if _, err := fmt.Fprintf(k.conn, "{\"type\":\"event\",\"event\":\"e\",\"data\":{\"n\":%d,\"pad\":\"%0100d\"},\"id\":%d}\n", i, 0, i+1); err != nil {
					return
				}
			}
		}()
		eventually(t, func() bool {
			w.hub.lock()
			defer w.hub.unlock()
			c := w.e.conns[0]
			if c.waiting > MaxWaiting+readSize*2 {
				t.Fatalf("%d bytes wait", c.waiting)
			}
			return !c.reading
		})
		// Another worker of the process is heard all the same.
		other := w.connect(t)
		other.send(`{"type":"heartbeat"}`)
		eventually(t, func() bool { return w.e.LastBeat() != 0 })
		w.h.set(nil, nil)
		close(hold)
		for last := 0.0; last < n; {
			last = k.want("ack")["id"].(float64)
		}
		w.h.want(t, "process.worker_connected")
		for i := range n {
			if data := w.h.want(t, "process.event"); !strings.Contains(data, fmt.Sprintf(`"n":%d,`, i)) {
				t.Fatalf("%d: %s", i, data)
			}
		}
	})
}

// TestStorageFails: what cannot be made durable is tried again and acked only then.
func TestStorageFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		o.Retry = time.Millisecond
		w := unixWorld(t, o)
		k := w.connect(t)
		k.send(helloA)
		k.want("welcome")
		w.h.want(t, "process.worker_connected")
		w.h.set(errors.New("the disk is full"), nil)
		k.send(event(1), event(2), event(2))
		eventually(t, func() bool {
			w.hub.lock()
			defer w.hub.unlock()
			return len(w.e.batch.Reports) > 0
		})
		w.h.set(nil, nil)
		for last := 0.0; last < 2; {
			last = k.want("ack")["id"].(float64)
		}
		w.h.want(t, "process.event")
		w.h.want(t, "process.event")
		k.send(event(3))
		k.want("ack")
		if data := w.h.want(t, "process.event"); !strings.Contains(data, `"id":3`) {
			t.Errorf("%s", data)
		}
	})
}

// TestWorkerThatDoesNotRead is hung up on before its unread lines take memory
// without bound.
func TestWorkerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := unixWorld(t, o)
		k := w.connect(t)
		k.send(`{"type":"connected"}`)
		w.h.want(t, "process.worker_connected")
		value := []byte(`"` + strings.Repeat("v", 10000) + `"`)
		for i := 0; ; i++ {
			if err := w.e.Send(value); errors.Is(err, ErrNoWorker) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if i > 10000 {
				t.Fatal("100 MB wait to be sent")
			}
		}
		if data := w.h.want(t, "process.worker_disconnected"); !strings.Contains(data, "does not read") {
			t.Error(data)
		}
	})
}

// TestConnectionsAreBounded: more than are allowed wait, and come when others end.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := unixWorld(t, o)
		var all []*worker
		for range MaxConns + 5 {
			k := w.connect(t)
			k.send(`{"type":"event","event":"here"}`)
			all = append(all, k)
		}
		for range MaxConns {
			w.h.want(t, "process.event")
		}
		if n := w.e.Look().Conns; n != MaxConns {
			t.Errorf("%d connections", n)
		}
		for _, k := range all[:5] {
			k.halfClose()
		}
		for range 5 {
			w.h.want(t, "process.event")
		}
	})
}

// TestP24ReplayAfterTheHubHasDied: the next hub listens on the same path, knows
// what is settled, and takes what is sent again exactly once (P24, P25).
func TestP24ReplayAfterTheHubHasDied(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := unixWorld(t, o)
		k := w.connect(t)
		k.send(helloA, event(1), event(2))
		k.want("welcome")
		for last := 0.0; last < 2; {
			last = k.want("ack")["id"].(float64)
		}
		w.close(t)
		k.wantClosed()
		w.h.mu.Lock()
		marks := w.h.marks
		w.h.mu.Unlock()
		if diff := cmp.Diff([]Mark{{"instance-a", 2}}, marks); diff != "" {
			t.Fatal(diff)
		}
		next := open(t, o, Spec{Path: w.path, Marks: marks}, newRecorder())
		k = next.connect(t)
		k.send(helloA)
		if last := k.want("welcome")["last"]; last != 2.0 {
			t.Fatalf("last is %v", last)
		}
		k.send(event(2), event(3))
		for last := 0.0; last < 3; {
			last = k.want("ack")["id"].(float64)
		}
		next.h.want(t, "process.worker_connected")
		if data := next.h.want(t, "process.event"); !strings.Contains(data, `"id":3`) {
			t.Errorf("%s", data)
		}
	})
}

func TestMarksAreBounded(t *testing.T) {
	t.Parallel()
	w := unixWorld(t, Options{})
	for i := range MaxMarks * 3 {
		k := w.connect(t)
		k.send(fmt.Sprintf(`{"type":"hello","version":1,"instance":"instance-%03d"}`, i), event(i+1))
		k.want("welcome")
		k.want("ack")
		k.halfClose()
		k.wantClosed()
	}
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	if n := len(w.h.marks); n > MaxMarks || w.h.marks[n-1] != (Mark{"instance-191", 192}) {
		t.Errorf("%d marks, the last is %v", n, w.h.marks[n-1])
	}
}

// TestP19ForeignPeer: who is not of the process's tree cannot speak for it (P19).
func TestP19ForeignPeer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell the pid of a peer")
	}
	h := newRecorder()
	h.owns = func(int) bool { return false }
	w := open(t, Options{Coalesce: 20 * time.Millisecond}, Spec{Path: filepath.Join(t.TempDir(), "w.sock")}, h)
	k := w.connect(t)
	k.wantClosed()
	data := h.want(t, "process.worker_rejected")
	if !strings.Contains(data, fmt.Sprintf(`"pid":%d`, os.Getpid())) {
		t.Error(data)
	}
	// A flood of them is told seldom, with a count.
	for range 20 {
		w.connect(t).wantClosed()
	}
	if data := h.want(t, "process.worker_rejected"); !strings.Contains(data, `"count":`) {
		t.Error(data)
	}
}

// Keeps out Q27.
func TestCommands(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := unixWorld(t, o)
		if _, err := w.command(t.Context(), "c0", "x", "{}"); !errors.Is(err, ErrNoWorker) {
			t.Errorf("without a worker: %v", err)
		}
		k := w.connect(t)
		k.send(helloA)
		k.want("welcome")
		w.h.want(t, "process.worker_connected")
		type result struct {
			data []byte
			err  error
		}
		ask := func(ctx context.Context, id string) <-chan result {
			out := make(chan result, 1)
			go func() {
				data, err := w.command(ctx, id, "x", `{"a":1}`)
				out <- result{data, err}
			}()
			return out
		}
		got := ask(t.Context(), "c1")
		k.want("command")
		k.send(`{"type":"reply","to":"other"}`, `{"type":"reply","to":"c1","data":[1, 2]}`)
		if r := <-got; r.err != nil || string(r.data) != "[1, 2]" {
			t.Errorf("%s %v", r.data, r.err)
		}
		w.h.want(t, "process.reply")
		w.h.want(t, "process.reply")
		got = ask(t.Context(), "c2")
		k.want("command")
		k.send(`{"type":"reply","to":"c2","error":"no"}`)
		var said *RepliedError
		if r := <-got; !errors.As(r.err, &said) || said.Text != "no" {
			t.Errorf("%v", r.err)
		}
		w.h.want(t, "process.reply")
		ctx, cancel := context.WithCancel(t.Context())
		got = ask(ctx, "c3")
		k.want("command")
		cancel()
		if r := <-got; !errors.Is(r.err, context.Canceled) {
			t.Errorf("%v", r.err)
		}
		if _, err := w.e.Command(t.Context(), wire.Command{ID: "c4", Command: "x", TimeoutMs: 1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		k.want("command")
		got = ask(t.Context(), "c5")
		k.want("command")
		k.halfClose()
		if r := <-got; !errors.Is(r.err, ErrOutcomeUnknown) {
			t.Errorf("%v", r.err)
		}
	})
}

func tcpWorld(t *testing.T, o Options, tree ...int) *world {
	t.Helper()
	h := newRecorder()
	h.tree = tree
	return open(t, o, Spec{Token: "secret-token"}, h)
}

func TestTCPNeedsTheToken(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		w := tcpWorld(t, o)
		for _, line := range []string{`{"type":"heartbeat"}`, `nonsense`, helloA,
			`{"type":"hello","version":1,"instance":"instance-a","token":"secret-tokeN"}`} {
			k := w.connect(t)
			k.send(line)
			if code := k.want("error")["code"]; code != "denied" {
				t.Errorf("%s: %v", line, code)
			}
			k.wantClosed()
		}
		w.h.want(t, "process.worker_rejected")
		if w.e.LastBeat() != 0 {
			t.Error("a heartbeat counts without the token")
		}
		k := w.connect(t)
		k.send(`{"type":"hello","version":1,"instance":"instance-a","token":"secret-token"}`, `{"type":"heartbeat"}`)
		k.want("welcome")
		eventually(t, func() bool { return w.e.LastBeat() != 0 })
	})
}

func TestTCPPeerOfTheTreeNeedsNoToken(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell whose a connection is")
	}
	w := tcpWorld(t, Options{}, 1, os.Getpid())
	k := w.connect(t)
	k.send(`{"type":"connected"}`)
	if data := w.h.want(t, "process.worker_connected"); !strings.Contains(data, `"pid":`+strconv.Itoa(os.Getpid())) {
		t.Error(data)
	}
	// The port can be had again at once by the next hub.
	port := w.e.Port()
	w.close(t)
	next := open(t, Options{}, Spec{Port: port, Token: "x"}, newRecorder())
	if next.e.Port() != port {
		t.Errorf("port %d, want %d", next.e.Port(), port)
	}
}

// TestLatestIsWrittenSeldom: of many statuses without an id the first and the
// last are told, and few between.
// Keeps out Q29.
func TestLatestIsWrittenSeldom(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, o Options) {
		o.Coalesce = 50 * time.Millisecond
		w := unixWorld(t, o)
		k := w.connect(t)
		const n = 3000
		for i := range n {
			k.send(fmt.Sprintf(`{"type":"progress","percent":%v}`, float64(i)*100/(n-1)))
		}
		for count := 1; ; count++ {
			if data := w.h.want(t, "process.progress"); data == `{"percent":100}` {
				if count > n/2 {
					t.Errorf("%d of %d are told", count, n)
				}
				return
			}
		}
	})
}

func TestAnyMessageAndAwaitedBeats(t *testing.T) {
	t.Parallel()
	h := newRecorder()
	w := open(t, Options{}, Spec{Path: filepath.Join(t.TempDir(), "w.sock"), AnyMessage: true}, h)
	k := w.connect(t)
	w.e.AwaitBeat()
	k.send(`{"type":"custom"}`, `{"type":"custom"}`)
	h.want(t, "process.message")
	h.want(t, "process.message")
	if w.e.LastBeat() == 0 || h.beats.Load() != 1 {
		t.Errorf("last %d, told %d times", w.e.LastBeat(), h.beats.Load())
	}
}

// TestManyTinyMessages: a million messages that are nothing, in between the
// messages of another worker.
func TestManyTinyMessages(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a second")
	}
	w := unixWorld(t, Options{})
	flood, good := w.connect(t), w.connect(t)
	go func() {
		lines := bytes.Repeat([]byte("{\"type\":\"heartbeat\"}\n"), 1000)
		for range 1000 {
			if _, err := flood.conn.Write(lines); err != nil {
				return
			}
		}
		_ = flood.conn.(*net.UnixConn).CloseWrite()
	}()
	good.send(helloA)
	good.want("welcome")
	for i := range 100 {
		good.send(event(i + 1))
		good.want("ack")
	}
	if _, err := io.Copy(io.Discard, flood.conn); err != nil {
		t.Error(err)
	}
}
