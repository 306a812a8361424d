package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func environment(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestUnsupervisedDoesNothingAndSucceeds(t *testing.T) {
	t.Parallel()
	w, err := start(Options{}, environment(), protocol())
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for name, w := range map[string]*Worker{"without an address": w, "nil": nil} {
		metadata := map[string]int{"a": 1}
		err := errors.Join(w.Emit("a", nil), w.EmitAcked(gone, "a", make(chan int)), w.Ready(), w.Reloading(), w.Stopping(), w.Unhealthy("x"), w.Status("x"),
			w.Progress(1, ""), w.Extend(time.Second), w.Stats(1), w.Log(slog.LevelInfo, "x", 1), w.Flush(gone), w.Connected(gone),
			w.Metadata(gone, &metadata), w.Close(gone), w.Close(gone))
		w.Heartbeat()
		w.OnCommand("x", nil)
		slog.New(w.Handler(nil)).Error("x")
		ctx, stop := w.NotifyContext(context.Background())
		stop()
		if err != nil || w.Supervised() || w.Grace() != 0 || w.Counters() != (Counters{}) || len(metadata) != 1 || ctx.Err() == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.Measure().Memory.Go == 0 || (*Worker)(nil).Measure() != (Usage{}) {
		t.Error("measures without supervision differ from what is promised")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{MaxMessages: -1}, {MaxBytes: -1}, {StatsEvery: -1}, {CloseTimeout: -1}} {
		if _, err := Start(o); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	o, err := Options{}.complete(environment("PERDURE_WORKER_ADDRESS", "127.0.0.1:1", "PERDURE_WORKER_TOKEN", "t"))
	if err != nil || o.Address != "127.0.0.1:1" || o.Token != "t" || o.MaxMessages != 10_000 || o.MaxBytes != 8<<20 {
		t.Errorf("%+v, %v", o, err)
	}
	who := identity(environment("PERDURE_ID", "i", "PERDURE_NAME", "n", "PERDURE_GENERATION", "7"))
	if diff := cmp.Diff(Identity{"i", "n", 7}, who); diff != "" {
		t.Error(diff)
	}
}

// TestConnectsWhenPerdureComesLater is P25: the first try may fail, and no
// number of failures ends the tries.
func TestConnectsWhenPerdureComesLater(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "w.sock")
	w := begin(t, Options{Socket: path}, quick())
	if err := w.Emit("early", nil); err != nil {
		t.Fatal(err)
	}
	p := listen(t, path)
	p.greet(0, "")
	if m := p.message(); m["event"] != "early" || m["id"] != 1.0 {
		t.Errorf("got %v", m)
	}
	p.write(`{"type":"ack","id":1}`)
	if err := w.Flush(bounded(t)); err != nil {
		t.Error(err)
	}
	_ = p.l.Close()
	p.reset()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	p = listen(t, path) // the next Perdure, on the same path
	p.greet(1, "")
	if err := w.Connected(bounded(t)); err != nil {
		t.Error(err)
	}
	closing(t, w, p.farewell)
	if c := w.Counters(); c.Connections != 2 || c.Settled != 1 {
		t.Errorf("%+v", c)
	}
}

// TestReplayThroughLosses is P24: a Perdure that dies at random moments gets
// each event once and in order, by dropping what it has had already.
func TestReplayThroughLosses(t *testing.T) {
	t.Parallel()
	const events = 10_000
	p := listen(t, "")
	o := p.options()
	o.MaxMessages = 500
	w := begin(t, o, quick())
	sent := make(chan error, 1)
	go func() {
		for n := range events {
			err := w.Emit("n", n)
			for errors.Is(err, ErrFull) {
				if err = w.Flush(bounded(t)); err == nil {
					err = w.Emit("n", n)
				}
			}
			if err != nil {
				sent <- err
				return
			}
		}
		sent <- w.Flush(bounded(t))
	}()
	chance := rand.New(rand.NewPCG(1, 2))
	last, losses := 0, 0
	for last < events {
		p.greet(last, "")
		for last < events {
			m := p.message()
			id := int(m["id"].(float64))
			if id > last {
				if id != last+1 || m["data"] != float64(last) {
					t.Fatalf("after %d came %v", last, m)
				}
				last = id
			}
			if chance.IntN(10) == 0 || p.in.Buffered() == 0 {
				p.write(`{"type":"ack","id":%d}`, last)
			}
			if chance.IntN(400) == 0 {
				losses++
				break
			}
		}
		if last < events {
			p.reset()
		}
	}
	p.write(`{"type":"ack","id":%d}`, last)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if c := w.Counters(); c.Settled != events || c.Waiting != 0 || losses < 5 {
		t.Errorf("%+v after %d losses", c, losses)
	}
	closing(t, w, p.farewell)
}

func TestOutboxIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "w.sock")
	w := begin(t, Options{Socket: path, MaxMessages: 2, MaxBytes: 1000}, quick())
	if err := w.Emit("big", strings.Repeat("x", 2000)); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("a message that can never fit: %v", err)
	}
	if err := errors.Join(w.Emit("a", 1), w.Emit("a", 2)); err != nil {
		t.Fatal(err)
	}
	if err := w.Emit("a", 3); !errors.Is(err, ErrFull) {
		t.Errorf("a third message: %v", err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.EmitAcked(gone, "a", 3); !errors.Is(err, ErrFull) || !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for room: %v", err)
	}
	if c := w.Counters(); c.Waiting != 2 || c.Full != 2 || c.WaitingBytes == 0 {
		t.Errorf("%+v", c)
	}
	acked := make(chan error, 1)
	go func() { acked <- w.EmitAcked(bounded(t), "a", 3) }()
	p := listen(t, path)
	p.greet(0, "")
	for n := 1; n <= 3; n++ {
		if m := p.message(); m["id"] != float64(n) || m["data"] != float64(n) {
			t.Errorf("message %d is %v", n, m)
		}
		p.write(`{"type":"ack","id":%d}`, n)
	}
	if err := <-acked; err != nil {
		t.Error(err)
	}
	closing(t, w, p.farewell)
	if err := errors.Join(w.Emit("a", 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := w.Close(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
}

func TestBytesBoundTheOutbox(t *testing.T) {
	t.Parallel()
	w := begin(t, Options{Socket: filepath.Join(t.TempDir(), "w.sock"), MaxBytes: 1000}, quick())
	n := 0
	for w.Emit("a", strings.Repeat("x", 100)) == nil {
		n++
	}
	if c := w.Counters(); n < 3 || c.Waiting != n || c.WaitingBytes > 1000 {
		t.Errorf("%d taken, %+v", n, c)
	}
}

func TestWhatCannotBeSentIsAnError(t *testing.T) {
	t.Parallel()
	w := begin(t, Options{Socket: filepath.Join(t.TempDir(), "w.sock")}, quick())
	deep := json.RawMessage(strings.Repeat(`[`, 200) + strings.Repeat(`]`, 200))
	for want, err := range map[string]error{
		"1048576":        w.Emit("a", strings.Repeat("x", 1<<20)),
		"nested":         w.Emit("a", deep),
		"cannot emit":    w.Emit("a", make(chan int)),
		"must be an obj": w.Stats([]int{1}),
		"millisecond":    w.Extend(1),
		"the data must":  w.Log(slog.LevelInfo, "x", 1),
		"progress":       w.Progress(nan(), ""),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error that says %q, got %v", want, err)
		}
	}
	ok := json.RawMessage(strings.Repeat(`[`, 199) + `"[[\"[{"` + strings.Repeat(`]`, 199))
	if err := w.Emit("a", ok); err != nil {
		t.Error(err)
	}
	if c := w.Counters(); c.Waiting != 1 {
		t.Errorf("%+v", c)
	}
}

func nan() float64 { var zero float64; return zero / zero }

func TestLongPath(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux reaches paths that are too long for a socket address")
	}
	path := long(t)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p := listen(t, fmt.Sprintf("/proc/self/fd/%d/w.sock", dir.Fd()))
	p.path = path
	w := begin(t, p.options(), quick())
	p.greet(0, "")
	closing(t, w, p.farewell)
}

func TestTokenIsForTCPAlone(t *testing.T) {
	t.Parallel()
	p := listenTCP(t)
	o := p.options()
	o.Token = "secret"
	w := begin(t, o, quick())
	if hello := p.greet(0, ""); hello["token"] != "secret" {
		t.Errorf("%v", hello)
	}
	closing(t, w, p.farewell)
	p = listen(t, "")
	o = p.options()
	o.Token = "secret"
	w = begin(t, o, quick())
	if hello := p.greet(0, ""); hello["token"] != nil {
		t.Errorf("%v", hello)
	}
	closing(t, w, p.farewell)
}

// TestDeniedWaitsLonger: only the wait after a refusal is short here.
func TestDeniedWaitsLonger(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"denied", "version"} {
		tm := quick()
		tm.first, tm.most, tm.denied = time.Hour, time.Hour, time.Millisecond
		p := listen(t, "")
		w := begin(t, p.options(), tm)
		p.accept()
		p.line()
		p.write(`{"type":"error","code":%q,"message":"go away"}`, code)
		p.reset()
		p.greet(0, "")
		closing(t, w, p.farewell)
	}
}

func TestNoWelcomeIsTriedAgain(t *testing.T) {
	t.Parallel()
	tm := quick()
	tm.welcome = time.Millisecond
	p := listen(t, "")
	begin(t, p.options(), tm)
	for range 3 {
		p.accept()
		p.line()
		p.finish()
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	var got struct{ File string }
	w, err := start(Options{Socket: "/nowhere"}, environment("PERDURE_METADATA", `{"file":"a"}`), quick())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Metadata(context.Background(), &got); err != nil || got.File != "a" {
		t.Errorf("from the environment: %v, %v", got, err)
	}
	if err := w.Close(bounded(t)); err != nil {
		t.Error(err)
	}
	p := listen(t, "")
	w = begin(t, p.options(), quick())
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Metadata(gone, &got); !errors.Is(err, context.Canceled) {
		t.Errorf("before the welcome: %v", err)
	}
	p.greet(0, `,"metadata":{"file":"b"},"stop":{"graceMs":1500}`)
	if err := w.Metadata(bounded(t), &got); err != nil || got.File != "b" || w.Grace() != 1500*time.Millisecond {
		t.Errorf("from the welcome: %v, %v", got, err)
	}
	if err := w.Metadata(bounded(t), &[]int{}); err == nil {
		t.Error("metadata of another shape are no error")
	}
	closing(t, w, p.farewell)
}

func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	o := p.options()
	o.CloseTimeout = time.Millisecond
	w := begin(t, o, quick())
	acked := make(chan error, 1)
	go func() { acked <- w.EmitAcked(bounded(t), "a", nil) }()
	p.greet(0, "")
	p.message() // and no ack
	if err := w.Close(context.Background()); err == nil || !strings.Contains(err.Error(), "1 messages") {
		t.Errorf("got %v", err)
	}
	if err := <-acked; !errors.Is(err, ErrClosed) {
		t.Errorf("the one who waits got %v", err)
	}
	if err := w.Connected(bounded(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Connected after Close: %v", err)
	}
}

// TestServerThatDoesNotRead: the outbox fills, and Close still returns.
func TestServerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	o := p.options()
	o.MaxBytes, o.CloseTimeout = 4<<20, time.Millisecond
	w := begin(t, o, quick())
	p.greet(0, "")
	big := strings.Repeat("x", 64<<10)
	for w.Emit("a", big) == nil { //nolint:revive // until it is full
	}
	if c := w.Counters(); c.Full != 1 || c.WaitingBytes > 4<<20 {
		t.Errorf("%+v", c)
	}
	if err := w.Close(context.Background()); err == nil {
		t.Error("Close tells nothing of what was not delivered")
	}
}

// TestInstancesDiffer: ids are counted within an instance, so no two workers
// may share one.
func TestInstancesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[any]bool{}
	for range 3 {
		p := listen(t, "")
		w := begin(t, p.options(), quick())
		seen[p.greet(0, "")["instance"]] = true
		closing(t, w, p.farewell)
	}
	if len(seen) != 3 {
		t.Errorf("instances: %v", seen)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	o := p.options()
	refused := make(chan *RefusedError, 1)
	o.OnRefused = func(err *RefusedError) { refused <- err }
	w := begin(t, o, quick())
	p.greet(0, "")
	acked := make(chan error, 1)
	go func() { acked <- w.EmitAcked(bounded(t), "a", 1) }()
	p.message()
	p.write(`{"type":"error","code":"invalid","message":"no","id":1}` + "\n" + `{"type":"ack","id":1}`)
	var err *RefusedError
	if got := <-acked; !errors.As(got, &err) || err.Code != "invalid" || err.Reason != "no" || !strings.Contains(string(err.Sent), `"event":"a"`) {
		t.Errorf("got %v", got)
	}
	if err := w.Emit("b", nil); err != nil {
		t.Fatal(err)
	}
	p.message()
	p.write(`{"type":"error","code":"invalid","message":"no","id":2}` + "\n" + `{"type":"ack","id":2}`)
	if err := <-refused; !strings.Contains(string(err.Sent), `"event":"b"`) {
		t.Errorf("OnRefused got %v", err)
	}
	// What the next Perdure does not take in one line is refused here.
	if err := errors.Join(w.Flush(bounded(t)), w.Emit("c", strings.Repeat("x", 500))); err != nil {
		t.Fatal(err)
	}
	p.message()
	p.reset()
	p.accept()
	p.line()
	p.write(`{"type":"welcome","version":1,"last":2,"maxLine":300}`)
	if err := <-refused; err.Code != "too_long" {
		t.Errorf("OnRefused got %v", err)
	}
	closing(t, w, p.farewell)
	if c := w.Counters(); c.Refused != 3 || c.Settled != 3 {
		t.Errorf("%+v", c)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	w := begin(t, p.options(), quick())
	p.greet(0, "")
	p.bounds(t, w)
	closing(t, w, p.farewell)
}

// bounds holds the handler to what log/slog wants of one.
func (p *perdure) bounds(t *testing.T, w *Worker) {
	t.Helper()
	sent := 0
	slogtest.Run(t, func(*testing.T) slog.Handler { return w.Handler(slog.LevelDebug) }, func(t *testing.T) map[string]any {
		m := p.message()
		sent++
		p.write(`{"type":"ack","id":%d}`, sent)
		out, _ := m["data"].(map[string]any)
		if out == nil {
			out = map[string]any{}
		}
		out["msg"], out["level"] = m["message"], m["level"]
		if at := m["timestamp"]; at != nil {
			out["time"] = at
		}
		return out
	})
	if w.Handler(nil).Enabled(context.Background(), slog.LevelDebug) {
		t.Error("debug is sent by default")
	}
	log := slog.New(w.Handler(nil))
	log.Error("x", "err", errors.New("broken"), "d", time.Second, "chan", make(chan int), "at", time.Unix(0, 0).UTC())
	m := p.message()
	data := m["data"].(map[string]any)
	if m["level"] != "error" || data["err"] != "broken" || data["d"] != "1s" || data["at"] != "1970-01-01T00:00:00Z" || !strings.HasPrefix(data["chan"].(string), "0x") {
		t.Errorf("%v", m)
	}
	p.write(`{"type":"ack","id":%v}`, m["id"])
}

// TestStatusOutlivesPerdure: the latest status and progress are told again to
// the next Perdure, which may not have kept them.
func TestStatusOutlivesPerdure(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	w := begin(t, p.options(), quick())
	if err := errors.Join(w.Status("old"), w.Status("new"), w.Progress(50, "half")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.greet(0, "")
		if a, b := p.message(), p.message(); a["status"] != "new" || b["percent"] != 50.0 || b["message"] != "half" {
			t.Errorf("%v, %v", a, b)
		}
		p.reset()
	}
	if c := w.Counters(); c.Dropped != 1 {
		t.Errorf("%+v", c)
	}
	p.greet(0, "")
	closing(t, w, func() { p.message(); p.message(); p.farewell() })
}

func TestDial(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	conn, err := Dial(bounded(t), p.options())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conn.(*net.UnixConn); !ok {
		t.Errorf("%T", conn)
	}
	_ = conn.Close()
}
