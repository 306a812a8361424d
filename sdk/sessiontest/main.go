// Command sessiontest is Perdure's real end of the worker protocol
// (internal/session) as a program, for the tests of clients in other languages:
// no supervisor, no process, one endpoint.
//
//	sessiontest -socket PATH | -tcp -token TOKEN  [-file FILE] [-heartbeat MS]
//
// It writes one JSON object a line. The first is {"port":N}: it listens. Each report that
// has become durable is {"report":TYPE,"data":{…}}, each heartbeat
// {"report":"heartbeat"}. It reads one object a line: {"send":VALUE} and
// {"command":NAME,"data":VALUE} go to the worker; what comes of a command is
// {"reply":VALUE} or {"error":TEXT}. {"hold":true} keeps everything from becoming
// durable, and so from being acked, until {"hold":false}. {"look":true} is
// answered with {"conns":N,"stats":{…}}. It ends with its input.
//
// With -file what is durable is in the file, one batch a line, as an array of
// reports and the marks; a later start goes on from there. So it may be killed.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/wire"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sessiontest:", err)
		os.Exit(1)
	}
}

// line is one object of the input or the output.
type line struct {
	Report  string          `json:"report,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	Port    *int            `json:"port,omitempty"`
	Send    json.RawMessage `json:"send,omitempty"`
	Command string          `json:"command,omitempty"`
	Reply   json.RawMessage `json:"reply,omitempty"`
	Error   string          `json:"error,omitempty"`
	Hold    *bool           `json:"hold,omitempty"`
	Look    bool            `json:"look,omitempty"`
	Conns   *int            `json:"conns,omitempty"`
	Stats   json.RawMessage `json:"stats,omitempty"`
}

// batch is one line of the file.
type batch struct {
	Reports []line         `json:"reports"`
	Marks   []session.Mark `json:"marks,omitempty"`
}

func run(args []string, in io.Reader, out io.Writer) (err error) {
	flags := flag.NewFlagSet("sessiontest", flag.ContinueOnError)
	socket := flags.String("socket", "", "path of the Unix socket")
	tcp := flags.Bool("tcp", false, "listen on 127.0.0.1 instead")
	token := flags.String("token", "", "what a hello must bring on TCP")
	file := flags.String("file", "", "where durable is")
	beat := flags.Int64("heartbeat", 0, "the interval that is wished for, in milliseconds; 0: none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if (*socket == "") == !*tcp || *tcp == (*token == "") {
		return errors.New("give -socket, or -tcp and -token")
	}
	h := &handler{out: json.NewEncoder(out), beat: *beat}
	h.free = sync.NewCond(&h.mu)
	if *file != "" {
		if err := h.open(*file); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.file.Close()) }()
	}
	hub, err := session.Open(session.Options{Clock: func() int64 { return time.Now().UnixNano() }, Coalesce: time.Millisecond})
	if err != nil {
		return err
	}
	defer func() { h.hold(false); err = errors.Join(err, hub.Close()); h.calls.Wait() }()
	h.e, err = hub.Listen(session.Spec{ProcessID: "proc_1", Path: *socket, Token: *token, Marks: h.marks}, h)
	if err != nil {
		return err
	}
	h.e.AwaitBeat()
	port := h.e.Port()
	h.print(line{Port: &port})
	return h.obey(in)
}

// handler makes what workers say durable and prints it.
type handler struct {
	e     *session.Endpoint
	beat  int64
	marks []session.Mark // those that the file begins with
	calls sync.WaitGroup

	mu   sync.Mutex
	out  *json.Encoder
	file *os.File
	held bool
	free *sync.Cond
}

// open reads what is durable. A last line without its end never became that.
func (h *handler) open(path string) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	for l := range bytes.Lines(text[:whole]) {
		var b batch
		if err := json.Unmarshal(l, &b); err != nil {
			return err
		}
		if b.Marks != nil {
			h.marks = b.Marks
		}
	}
	if h.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	return h.file.Truncate(int64(whole))
}

func (h *handler) print(l line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.out.Encode(l) // whoever reads it is gone: the input ends as well
}

func (h *handler) hold(on bool) {
	h.mu.Lock()
	h.held = on
	h.mu.Unlock()
	h.free.Broadcast()
}

// Owns says yes: nobody else connects in a test.
func (h *handler) Owns(int) bool { return true }

// Tree says nobody: on TCP the token decides.
func (h *handler) Tree() []int { return nil }

func (h *handler) Welcome() wire.Welcome {
	w := wire.Welcome{Server: "perdure/test", ProcessID: "proc_1", Name: "encoder", Generation: 1,
		Stop: &wire.Stop{GraceMs: 10000}, Metadata: []byte(`{"file":"a.mp4"}`)}
	if h.beat > 0 {
		w.Heartbeat = &wire.Beat{IntervalMs: h.beat, TimeoutMs: 6 * h.beat}
	}
	return w
}

func (h *handler) Take(b session.Batch, done func(error)) {
	h.calls.Go(func() {
		h.mu.Lock()
		for h.held {
			h.free.Wait()
		}
		h.mu.Unlock()
		kept := batch{Marks: b.Marks}
		for _, r := range b.Reports {
			kept.Reports = append(kept.Reports, line{Report: r.Type, Data: r.Data})
		}
		err := h.keep(kept)
		if err == nil {
			for _, l := range kept.Reports {
				h.print(l)
			}
		}
		done(err)
	})
}

// keep appends a batch to the file.
func (h *handler) keep(b batch) error {
	if h.file == nil {
		return nil
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	_, err = h.file.Write(append(text, '\n'))
	return err
}

func (h *handler) Beat() {
	h.calls.Go(func() {
		h.print(line{Report: "heartbeat"})
		h.e.AwaitBeat()
	})
}

// obey does what the input says until it ends.
func (h *handler) obey(in io.Reader) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	input := bufio.NewScanner(in)
	input.Buffer(nil, 4<<20)
	for n := 0; input.Scan(); n++ {
		var l line
		if err := json.Unmarshal(input.Bytes(), &l); err != nil {
			return err
		}
		switch {
		case l.Hold != nil:
			h.hold(*l.Hold)
		case l.Look:
			look := h.e.Look()
			h.print(line{Conns: &look.Conns, Stats: look.Stats})
		case l.Command != "":
			cmd := wire.Command{ID: fmt.Sprintf("cmd_%d", n), Command: l.Command, Data: l.Data, TimeoutMs: 60000}
			h.calls.Go(func() { h.replied(h.e.Command(ctx, cmd)) })
		default:
			if err := h.e.Send(l.Send); err != nil {
				h.print(line{Error: err.Error()})
			}
		}
	}
	return input.Err()
}

func (h *handler) replied(data json.RawMessage, err error) {
	if err != nil {
		h.print(line{Error: err.Error()})
		return
	}
	h.print(line{Reply: data})
}
