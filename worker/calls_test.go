package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHeartbeatsByThemselves(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	o := p.options()
	o.StatsEvery = time.Millisecond
	w := begin(t, o, quick())
	p.greet(0, `,"heartbeat":{"intervalMs":1,"timeoutMs":60000}`)
	beats, stats := 0, 0
	for beats < 3 || stats < 3 {
		switch m := p.message(); m["type"] {
		case "heartbeat":
			beats++
		case "stats":
			stats++
			u := m["stats"].(map[string]any)
			if u["memory"].(map[string]any)["goTotal"].(float64) <= 0 || u["cpu"].(map[string]any)["user"].(float64) < 0 {
				t.Errorf("%v", u)
			}
		default:
			t.Fatalf("got %v", m)
		}
	}
	closing(t, w, func() {
		for m := p.message(); m["type"] != "disconnecting"; m = p.message() {
		}
		p.finish()
		_ = p.conn.Close()
	})
}

// TestHeartbeatsByHand: none is sent by itself, so that a hung program is
// noticed; many calls send few.
func TestHeartbeatsByHand(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	o := p.options()
	o.ManualHeartbeat = true
	w := begin(t, o, quick())
	p.greet(0, `,"heartbeat":{"intervalMs":3600000,"timeoutMs":7200000}`)
	if err := errors.Join(w.Connected(bounded(t)), w.Emit("a", nil)); err != nil {
		t.Fatal(err)
	}
	if m := p.message(); m["type"] != "event" {
		t.Errorf("a heartbeat by itself: %v", m)
	}
	for range 1000 {
		w.Heartbeat()
	}
	if m := p.message(); m["type"] != "heartbeat" {
		t.Errorf("%v", m)
	}
	p.write(`{"type":"ack","id":1}`)
	closing(t, w, p.farewell) // nothing more has come
}

func TestCommandsSetUpLate(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	w := begin(t, p.options(), quick())
	if hello := p.greet(0, ""); hello["capabilities"] != nil {
		t.Errorf("%v", hello)
	}
	if err := w.Connected(bounded(t)); err != nil {
		t.Fatal(err)
	}
	w.OnCommand("add", func(_ context.Context, data json.RawMessage) (any, error) {
		var in []int
		if err := json.Unmarshal(data, &in); err != nil {
			return nil, err
		}
		return in[0] + in[1], nil
	})
	p.finish()
	hello := p.greet(0, "")
	if fmt.Sprint(hello["capabilities"]) != "[commands]" {
		t.Errorf("%v", hello)
	}
	w.OnCommand("big", func(context.Context, json.RawMessage) (any, error) { return strings.Repeat("x", 1<<20), nil })
	w.OnCommand("wait", func(ctx context.Context, _ json.RawMessage) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	p.write(`{"type":"command","id":"1","command":"add","data":[1,2],"timeoutMs":60000}`)
	if m := p.message(); m["to"] != "1" || m["data"] != 3.0 {
		t.Errorf("%v", m)
	}
	p.write(`{"type":"command","id":"2","command":"add","data":"x","timeoutMs":60000}`)
	if m := p.message(); m["to"] != "2" || !strings.Contains(fmt.Sprint(m["error"]), "cannot unmarshal") {
		t.Errorf("%v", m)
	}
	p.write(`{"type":"command","id":"3","command":"big","data":{},"timeoutMs":60000}`)
	if m := p.message(); m["to"] != "3" || !strings.Contains(fmt.Sprint(m["error"]), "bytes") {
		t.Errorf("%v", m)
	}
	p.write(`{"type":"command","id":"4","command":"wait","data":{},"timeoutMs":1}`)
	if m := p.message(); m["to"] != "4" || m["error"] != context.DeadlineExceeded.Error() {
		t.Errorf("%v", m)
	}
	began := make(chan struct{})
	w.OnCommand("begin", func(ctx context.Context, _ json.RawMessage) (any, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	p.write(`{"type":"command","id":"5","command":"begin","data":{}}`)
	p.write(`{"type":"ack","id":4}`)
	select {
	case <-began: // the command before it may still be at its end, so counting is not enough
	case <-bounded(t).Done():
		t.Fatal("the command has not begun")
	}
	closing(t, w, func() { // which cancels the command, whose reply still goes out
		if m := p.message(); m["to"] != "5" || m["error"] != context.Canceled.Error() {
			t.Errorf("%v", m)
		}
		p.write(`{"type":"ack","id":5}`)
		p.farewell()
	})
}

func TestTooManyCommands(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	o := p.options()
	o.Commands = map[string]CommandFunc{
		"wait": func(ctx context.Context, _ json.RawMessage) (any, error) { <-ctx.Done(); return nil, nil },
	}
	w := begin(t, o, quick())
	p.greet(0, "")
	for n := range maxCommands + 1 {
		p.write(`{"type":"command","id":"%d","command":"wait","data":{},"timeoutMs":3600000}`, n)
	}
	if m := p.message(); m["to"] != fmt.Sprint(maxCommands) || !strings.Contains(fmt.Sprint(m["error"]), "busy") {
		t.Errorf("%v", m)
	}
	closing(t, w, func() {
		for range maxCommands {
			p.message()
		}
		p.write(`{"type":"ack","id":%d}`, maxCommands+1)
		p.farewell()
	})
}

// TestCallbacksHoldNothingUp: one that does not return costs a bounded queue,
// and acks are taken all the same.
func TestCallbacksHoldNothingUp(t *testing.T) {
	t.Parallel()
	p := listen(t, "")
	o := p.options()
	got, free := make(chan string, 1), make(chan struct{})
	o.OnMessage = func(data json.RawMessage) {
		select {
		case got <- string(data):
		default:
		}
		<-free
	}
	w := begin(t, o, quick())
	p.greet(0, "")
	const many = maxCallbacks + 100
	for n := range many {
		p.write(`{"type":"message","data":{"n":%d}}`, n)
	}
	acked := make(chan error, 1)
	go func() { acked <- w.EmitAcked(bounded(t), "a", nil) }()
	p.message()
	p.write(`{"type":"ack","id":1}`)
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	if first := <-got; first != `{"n":0}` {
		t.Errorf("the first is %s", first)
	}
	if d := w.Counters().Dropped; d < many-maxCallbacks-1 || d > many-maxCallbacks {
		t.Errorf("%d dropped", d)
	}
	close(free)
	closing(t, w, p.farewell)
}

// TestRunStopsOnSignal sends this process a signal, and so is not parallel.
func TestRunStopsOnSignal(t *testing.T) {
	p := listen(t, "")
	o := p.options()
	t.Setenv("PERDURE_WORKER_SOCKET", "")
	ended := make(chan error, 1)
	go func() {
		ended <- Run(context.Background(), o, func(ctx context.Context, w *Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return errors.Join(ctx.Err(), w.Emit("last", nil))
		})
	}()
	p.greet(0, "")
	if m := p.message(); m["type"] != "ready" {
		t.Fatalf("%v", m)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		t.Skipf("this system has no SIGTERM: %v", err)
	}
	if m := p.message(); m["type"] != "stopping" {
		t.Errorf("%v", m)
	}
	if m := p.message(); m["event"] != "last" {
		t.Errorf("%v", m)
	}
	p.write(`{"type":"ack","id":3}`)
	p.farewell()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
	broken := errors.New("broken")
	err = Run(context.Background(), Options{}, func(context.Context, *Worker) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("Run returned %v", err)
	}
}
