package session

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire/wiretest"
)

// TestTranscripts plays the worker's part of every transcript.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	all, err := wiretest.Load("../wire/testdata")
	if err != nil {
		t.Fatal(err)
	}
	for how, o := range transports() {
		o.Coalesce = time.Millisecond
		for _, tr := range all {
			if tr.ClientsOnly() {
				continue
			}
			t.Run(how+"/"+tr.Name, func(t *testing.T) {
				t.Parallel()
				p := &player{w: unixWorld(t, o), bound: wiretest.Bound{}, conns: map[int]*worker{}}
				for _, l := range tr.Lines {
					p.play(t, l)
				}
				p.commands.Wait()
				select {
				case x := <-p.w.h.reports:
					t.Errorf("more is reported than the transcript says: %s %s", x.typ, x.data)
				default:
				}
			})
		}
	}
}

type player struct {
	w        *world
	bound    wiretest.Bound
	conns    map[int]*worker
	now      *worker
	commands sync.WaitGroup
	beat     int64
}

func (p *player) play(t *testing.T, l wiretest.Line) {
	t.Helper()
	switch l.Mark {
	case "=":
		p.now = p.w.connect(t)
	case ">":
		line, err := p.bound.Fill(l.Rest, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.now.send(line)
	case ">raw", ">fill":
		if _, err := p.now.conn.Write(l.Bytes); err != nil {
			t.Fatalf("line %d: %v", l.Number, err)
		}
	case ">fin":
		p.now.halfClose()
	case "<":
		p.receive(t, l)
	case "<fin":
		p.now.wantClosed()
	case "*":
		p.operate(t, l)
	case "!":
		p.reported(t, l)
	}
}

func (p *player) receive(t *testing.T, l wiretest.Line) {
	t.Helper()
	for {
		line, err := p.now.receive()
		if err != nil {
			t.Fatalf("line %d: %v", l.Number, err)
		}
		err = p.bound.Match(l.Rest, line)
		if err == nil {
			return
		}
		// An ack may come for some of the messages before the one for all.
		if !strings.HasPrefix(line, `{"type":"ack"`) || !strings.HasPrefix(l.Rest, `{"type":"ack"`) {
			t.Fatalf("line %d: %v", l.Number, err)
		}
	}
}

// operate does what somebody outside does.
func (p *player) operate(t *testing.T, l wiretest.Line) {
	t.Helper()
	what, rest, _ := strings.Cut(l.Rest, " ")
	if what == "send" {
		if err := p.w.e.Send([]byte(rest)); err != nil {
			t.Fatalf("line %d: %v", l.Number, err)
		}
		return
	}
	name, data, _ := strings.Cut(rest, " ")
	p.commands.Go(func() {
		// What comes of it is in the lines that follow.
		_, _ = p.w.command(t.Context(), "cmd_"+name, name, data)
	})
}

func (p *player) reported(t *testing.T, l wiretest.Line) {
	t.Helper()
	typ, data, _ := strings.Cut(l.Rest, " ")
	switch typ {
	case "heartbeat":
		// Each is noted at a time of its own or, of several at once, the last.
		eventually(t, func() bool { return p.w.e.LastBeat() >= p.beat && p.w.e.LastBeat() > 0 })
		p.beat = p.w.e.LastBeat()
	case "stats":
		eventually(t, func() bool {
			s := p.w.e.Look().Stats
			return s != nil && p.bound.Match(data, string(s)) == nil
		})
	default:
		got := p.w.h.next(t)
		if got.typ != typ {
			t.Fatalf("line %d: reported %s %s, want %s", l.Number, got.typ, got.data, typ)
		}
		if err := p.bound.Match(data, got.data); err != nil {
			t.Fatalf("line %d: %v", l.Number, err)
		}
	}
}

// eventually waits for what has no signal of its own.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it does not come true")
		}
	}
}
