package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/internal/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends a test that waits for what does not come. Nothing depends on
// how long it is.
const patience = time.Minute

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// quick are the times of the protocol for tests that lose connections.
func quick() timing {
	return timing{first: time.Millisecond, most: 5 * time.Millisecond, welcome: patience, denied: patience, bye: patience}
}

// perdure is a scripted server at a socket.
type perdure struct {
	t    *testing.T
	l    net.Listener
	path string
	conn net.Conn
	in   *bufio.Reader
}

// listen makes a socket at path, or at a path of its own.
func listen(t *testing.T, path string) *perdure {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "w.sock")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &perdure{t: t, l: l, path: path}
	t.Cleanup(p.close)
	return p
}

func listenTCP(t *testing.T) *perdure {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &perdure{t: t, l: l}
	t.Cleanup(p.close)
	return p
}

func (p *perdure) close() {
	_ = p.l.Close() // a test may have closed it
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// options reach the server.
func (p *perdure) options() Options {
	if p.path != "" {
		return Options{Socket: p.path}
	}
	return Options{Address: p.l.Addr().String()}
}

// accept makes the next connection the current one.
func (p *perdure) accept() {
	p.t.Helper()
	if d, ok := p.l.(interface{ SetDeadline(time.Time) error }); ok {
		if err := d.SetDeadline(time.Now().Add(patience)); err != nil {
			p.t.Fatal(err)
		}
	}
	conn, err := p.l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	p.conn, p.in = conn, bufio.NewReader(conn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *perdure) line() string {
	p.t.Helper()
	line, err := p.in.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%v, after %q", err, line)
	}
	return line
}

// message reads the next message.
func (p *perdure) message() map[string]any {
	p.t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(p.line()), &m); err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *perdure) write(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.conn, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
}

// greet takes the hello of the next connection and welcomes it; more are
// further fields.
func (p *perdure) greet(last int, more string) map[string]any {
	p.t.Helper()
	p.accept()
	hello := p.message()
	if hello["type"] != "hello" {
		p.t.Fatalf("the first message is %v", hello)
	}
	p.write(`{"type":"welcome","version":1,"last":%d,"maxLine":1048576,"capabilities":[]%s}`, last, more)
	return hello
}

// reset loses the connection.
func (p *perdure) reset() {
	if c, ok := p.conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // a close is then a reset
	}
	_ = p.conn.Close()
}

// farewell expects the orderly end of the connection and answers it.
func (p *perdure) farewell() {
	p.t.Helper()
	if m := p.message(); m["type"] != "disconnecting" {
		p.t.Fatalf("want disconnecting, got %v", m)
	}
	p.finish()
	_ = p.conn.Close()
}

// finish expects the end of what the worker sends.
func (p *perdure) finish() {
	p.t.Helper()
	if b, err := p.in.ReadByte(); !errors.Is(err, io.EOF) {
		p.t.Fatalf("want the end of the connection, got %q, %v", b, err)
	}
}

// closing closes the worker while the server goes on, and waits for it.
func closing(t *testing.T, w *Worker, server func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- w.Close(bounded(t)) }()
	server()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func begin(t *testing.T, o Options, tm timing) *Worker {
	t.Helper()
	w, err := start(o, func(string) string { return "" }, tm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = w.Close(ctx) // a test that has not closed it has said enough
	})
	return w
}

// TestTranscripts plays the conversations that all clients are held to.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	all, err := wiretest.Load(filepath.Join("..", "internal", "wire", "testdata"))
	if err != nil {
		t.Fatal(err)
	}
	played := 0
	for _, tr := range all {
		if !tr.ForClients() {
			continue
		}
		played++
		for name, open := range map[string]func() *perdure{
			"unix": func() *perdure { return listen(t, "") }, "tcp": func() *perdure { return listenTCP(t) },
		} {
			t.Run(tr.Name+" "+name, func(t *testing.T) {
				t.Parallel()
				p := open()
				p.t = t
				play(t, tr, p)
			})
		}
	}
	if played == 0 {
		t.Error("there is no transcript for clients")
	}
}

// player plays one transcript.
type player struct {
	*perdure
	bound  wiretest.Bound
	o      Options
	w      *Worker
	closed chan error
}

func play(t *testing.T, tr wiretest.Transcript, p *perdure) {
	pl := &player{perdure: p, bound: wiretest.Bound{}, o: p.options()}
	for _, l := range tr.Lines {
		if err := pl.step(l); err != nil {
			t.Fatalf("line %d, %s %s: %v", l.Number, l.Mark, l.Rest, err)
		}
	}
	select {
	case err := <-pl.closed:
		if err != nil {
			t.Error(err)
		}
	case <-bounded(t).Done():
		t.Error("Close does not return")
	}
}

func (p *player) step(l wiretest.Line) error {
	switch l.Mark {
	case "@":
		return p.call(l.Rest)
	case "=":
		p.accept()
	case ">":
		return p.bound.Match(l.Rest, p.line())
	case ">fin":
		p.finish()
	case "<":
		more := map[string]any{"processId": "proc_1", "name": "w", "generation": 1, "maxLine": 1 << 20, "capabilities": []string{}}
		line, err := p.bound.Fill(l.Rest, more)
		if err != nil {
			return err
		}
		p.write("%s", line)
	case "<raw":
		_, err := p.conn.Write(l.Bytes)
		return err
	case "<fin":
		return p.conn.Close()
	case "*", "!":
	default:
		return errors.New("a mark that clients do not know")
	}
	return nil
}

func (p *player) call(text string) error {
	verb, rest, _ := strings.Cut(text, " ")
	name, data, _ := strings.Cut(rest, " ")
	switch verb {
	case "command", "fail":
		if p.o.Commands == nil {
			p.o.Commands = map[string]CommandFunc{}
		}
		p.o.Commands[name] = func(context.Context, json.RawMessage) (any, error) {
			if verb == "fail" {
				return nil, errors.New(unquote(data))
			}
			return json.RawMessage(data), nil
		}
	case "start":
		p.w = begin(p.t, p.o, quick())
	case "emit":
		return p.w.Emit(name, json.RawMessage(data))
	case "settled":
		id, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			return err
		}
		return p.w.until(bounded(p.t), func() bool { return len(p.w.box.items) == 0 || p.w.box.items[0].id > id })
	case "lost":
		p.reset()
	case "close":
		p.closed = make(chan error, 1)
		go func() { p.closed <- p.w.Close(bounded(p.t)) }()
	default:
		return p.say(verb, rest)
	}
	return nil
}

// say is the calls about what the worker says of itself.
func (p *player) say(verb, rest string) error {
	name, data, _ := strings.Cut(rest, " ")
	switch verb {
	case "heartbeat":
		p.w.Heartbeat()
	case "stats":
		return p.w.Stats(json.RawMessage(rest))
	case "ready":
		return p.w.Ready()
	case "reloading":
		return p.w.Reloading()
	case "stopping":
		return p.w.Stopping()
	case "status":
		return p.w.Status(unquote(rest))
	case "unhealthy":
		return p.w.Unhealthy(unquote(rest))
	case "progress":
		percent, err := strconv.ParseFloat(name, 64)
		return errors.Join(err, p.w.Progress(percent, unquote(data)))
	case "extend":
		ms, err := strconv.Atoi(rest)
		return errors.Join(err, p.w.Extend(time.Duration(ms)*time.Millisecond))
	case "log":
		level := slog.LevelInfo
		err := level.UnmarshalText([]byte(name))
		d := json.NewDecoder(strings.NewReader(data))
		var message string
		var fields map[string]any
		err = errors.Join(err, d.Decode(&message))
		if d.More() {
			err = errors.Join(err, d.Decode(&fields))
		}
		if fields == nil {
			return errors.Join(err, p.w.Log(level, message, nil))
		}
		return errors.Join(err, p.w.Log(level, message, fields))
	default:
		return errors.New("a call that the tests do not know")
	}
	return nil
}

// unquote reads a JSON string; nothing is the empty one.
func unquote(text string) string {
	var s string
	_ = json.Unmarshal([]byte(text), &s) // the transcripts are checked by those of internal/wire
	return s
}

func long(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120), strings.Repeat("e", 120))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "w.sock")
}
