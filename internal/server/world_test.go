package server

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/supervise"
)

// fakeSupervisor is a journal and a list that a test writes.
type fakeSupervisor struct {
	mu      sync.Mutex
	journal string
	frames  []control.Frame
	news    chan struct{}
	cut     int // Follow ends with an error after so many frames; 0: never
	follows int
	acked   uint64
	ackErr  error
	recs    map[string]control.Record
	listing func() // runs in List after the list was taken
	lastSeq uint64 // of Info, when above that of the entries
	openSeq uint64 // of Info
	onCmd   func(control.Command) (control.Record, error)
}

func newFake() *fakeSupervisor {
	return &fakeSupervisor{journal: "j1", news: make(chan struct{}), recs: map[string]control.Record{}}
}

// add writes an entry and returns its record.
func (f *fakeSupervisor) add(rec control.Record, removed bool, events ...string) control.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec.Seq = uint64(len(f.frames) + 1)
	if rec.ID == "" {
		rec.ID = "proc_" + rec.Name
	}
	e := control.Entry{Record: &rec, Removed: removed}
	for _, typ := range events {
		e.Events = append(e.Events, control.Event{Type: typ, Name: rec.Name, Generation: rec.State.Generation})
	}
	f.write("process/"+rec.Name, e)
	if f.recs[rec.Name] = rec; removed {
		delete(f.recs, rec.Name)
	}
	return rec
}

// write appends a frame; mu is held.
func (f *fakeSupervisor) write(key string, e control.Entry) {
	payload, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	f.frames = append(f.frames, control.Frame{Seq: uint64(len(f.frames) + 1), Time: time.Now(), Key: key, Payload: payload})
	close(f.news)
	f.news = make(chan struct{})
}

// reading says how often the journal was followed and how far it was acknowledged.
func (f *fakeSupervisor) reading() (follows int, acked uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.follows, f.acked
}

func (f *fakeSupervisor) last() uint64 { return max(uint64(len(f.frames)), f.lastSeq) }

func (f *fakeSupervisor) Info(context.Context) (control.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return control.Info{Version: control.Version, Journal: f.journal, LastSeq: f.last(), OpenSeq: f.openSeq}, nil
}

func (f *fakeSupervisor) Apply(context.Context, control.ApplyRequest) (control.ApplyResult, error) {
	return control.ApplyResult{}, nil
}

func (f *fakeSupervisor) Command(_ context.Context, cmd control.Command) (control.Record, error) {
	if f.onCmd != nil {
		return f.onCmd(cmd)
	}
	return control.Record{}, errors.New("no command was expected")
}

func (f *fakeSupervisor) List(context.Context) ([]control.Record, uint64, error) {
	f.mu.Lock()
	var out []control.Record
	for _, r := range f.recs {
		out = append(out, r)
	}
	listing, last := f.listing, f.last()
	f.mu.Unlock()
	if listing != nil {
		listing()
	}
	return out, last, nil
}

func (f *fakeSupervisor) Follow(ctx context.Context, after uint64) iter.Seq2[[]control.Frame, error] {
	return func(yield func([]control.Frame, error) bool) {
		f.mu.Lock()
		f.follows++
		f.mu.Unlock()
		for n := 0; ; {
			f.mu.Lock()
			var todo []control.Frame
			if int(after) < len(f.frames) {
				todo = slices.Clone(f.frames[after:])
			}
			news, cut := f.news, f.cut
			f.mu.Unlock()
			if cut > 0 {
				todo = todo[:min(len(todo), cut-n)]
			}
			if len(todo) > 0 {
				if !yield(todo, nil) {
					return
				}
				n += len(todo)
				after = todo[len(todo)-1].Seq
			}
			if cut > 0 && n >= cut {
				yield(nil, errors.New("the connection is cut"))
				return
			}
			select {
			case <-news:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (f *fakeSupervisor) Ack(_ context.Context, seq uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ackErr != nil {
		return f.ackErr
	}
	f.acked = max(f.acked, seq)
	return nil
}

func (f *fakeSupervisor) Guard(context.Context, control.ServerCommand) error { return nil }

func (f *fakeSupervisor) Upgrade(context.Context, string) error { return nil }

func (f *fakeSupervisor) Shutdown(context.Context, time.Duration) error { return nil }

// memory is an event store whose writes can be made to fail.
type memory struct {
	mu      sync.Mutex
	events  []api.Event
	cursors map[string]uint64
	sink    func([]api.Event)
	fail    error
	failed  int
}

func (m *memory) Notify(sink func([]api.Event)) { m.sink = sink }

func (m *memory) Commit(_ context.Context, b *event.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		m.failed++
		return m.fail
	}
	if b.Source != "" && b.Cursor <= m.cursors[b.Source] {
		b.Skipped = true
		return nil
	}
	if b.Source != "" {
		m.cursors[b.Source] = b.Cursor
	}
	for i := range b.Events {
		b.Events[i].Seq = uint64(len(m.events) + 1)
		m.events = append(m.events, b.Events[i])
	}
	m.sink(b.Events)
	return nil
}

func (m *memory) Cursor(_ context.Context, source string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors[source], nil
}

func (m *memory) Bounds(context.Context) (first, last uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return min(1, uint64(len(m.events))), uint64(len(m.events)), nil
}
func (m *memory) Types(context.Context) ([]string, error) { return nil, nil }
func (m *memory) Select(context.Context, event.Selection) ([]api.Event, error) {
	return nil, errors.New("not asked for here")
}
func (m *memory) Trim(context.Context, int, time.Time, int) (int, uint64, error) { return 0, 1, nil }
func (m *memory) Close() error                                                   { return nil }

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) tries() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

// types lists what was told of processes and not by the server itself.
func (m *memory) types() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, e := range m.events {
		if e.Name != "" {
			out = append(out, e.Name+" "+e.Type)
		}
	}
	return out
}

// serve returns a server over a fake supervisor and a store, as Start leaves one.
func serve(t *testing.T, f *fakeSupervisor, m *memory) *Server {
	t.Helper()
	events, err := event.Open(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(Options{Embedded: true})
	s.config, s.events = &settled{}, events
	s.closers = append(s.closers, events.Close)
	info, err := f.Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.att.set(f, info)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if err := s.loadNow(ctx); err != nil {
		t.Fatal(err)
	}
	s.background.Go(func() { s.keepAttached(ctx) })
	return s
}

func newMemory() *memory { return &memory{cursors: map[string]uint64{}} }

func inBubble(t *testing.T, f func(t *testing.T, sup *fakeSupervisor, m *memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newFake(), newMemory()) })
}

func pass(d time.Duration) { <-time.After(d) }

func running(name string, generation uint64) control.Record {
	return control.Record{Name: name, State: supervise.State{State: api.StateRunning, Desired: api.DesiredRunning, Ready: true,
		Generation: generation, PID: 1, Alive: true}}
}

func in(name string, state api.State, desired api.Desired) control.Record {
	return control.Record{Name: name, State: supervise.State{State: state, Desired: desired, Generation: 1}}
}

func end(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
