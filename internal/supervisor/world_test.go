package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/logstore"
	"github.com/perdure/perdure/internal/probe"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// bootClock goes on while the machine sleeps.
type bootClock struct {
	start time.Time
	slept atomic.Int64 // how long, in nanoseconds
}

func (c *bootClock) now() supervise.Instant {
	return supervise.Instant(time.Since(c.start)) + supervise.Instant(time.Hour) + supervise.Instant(c.slept.Load())
}

// flushing is how the journal is made durable, and what it has lost.
type flushing struct {
	every  time.Duration // what was set last
	err    error         // why what is written is not durable
	damage []string      // as the next supervisor finds it
}

// world is everything beneath the actors, simulated: it is the host, the
// outputs, the journal and the prober at once, and writes down what is asked of
// it in order. It outlives supervisors, as the machine does.
type world struct {
	t     *testing.T
	clock bootClock

	mu     sync.Mutex
	did    []string // "append NAME event,event", "start NAME", "signal NAME TERM", "kill NAME", …
	frames []journal.Frame
	latest map[string]journal.Frame
	broken error // of the journal
	flush  flushing
	last   int // the number of entries after which it breaks, 0: never
	live   map[int]*fakeProcess
	pid    int
	bootID string
	asking map[*asking]bool

	// Each, when set, changes how a process behaves.
	onStart func(p *fakeProcess) error // before start returns
	deaf    map[string]bool            // ignores signals
	stuck   map[string]bool            // ignores SIGKILL as well
	noSink  error
	zombies map[string][]proc.Identity // by cgroup
	handing
	measuring
}

// measuring is what a measurement shows.
type measuring struct {
	uses      proc.Sample // of each process
	onMeasure func()      // called before it returns
}

// handing is what a server holds for the next supervisor.
type handing struct {
	held   map[string]control.Held
	reaped []control.Reaped
	passes bool // pidfds can be had
}

func newWorld(t *testing.T) *world {
	return &world{t: t, clock: bootClock{start: time.Now()}, latest: map[string]journal.Frame{}, live: map[int]*fakeProcess{}, pid: 100,
		bootID: "boot-1", asking: map[*asking]bool{}, deaf: map[string]bool{}, stuck: map[string]bool{}}
}

// open returns a supervisor over the world, without the files of a real one.
func (w *world) open() *Supervisor { return w.openWith(func(int) {}) }

// openWith is open with somebody who hears that a process asks for the end.
func (w *world) openWith(onExit func(code int)) *Supervisor {
	o := Options{Embedded: true, Env: []string{}, OnExit: onExit, Roll: func() float64 { return 0 },
		Clock: w.clock.now}
	o.Inherited.Reaped = w.reaped
	s := newSupervisor(o.filled(), simHost{w}, simOutputs{w}, w, w, newTroubles("/state", slog.New(slog.DiscardHandler)))
	s.bootID, s.origin.journal, s.origin.settings = w.bootID, "journal", defaultSettings()
	s.origin.damage = w.flush.damage
	if err := s.recover(context.Background(), w, w.held); err != nil {
		w.t.Fatal(err)
	}
	s.recovered()
	return s
}

func (w *world) note(format string, args ...any) { w.did = append(w.did, fmt.Sprintf(format, args...)) }

// story is what was done so far, but for the lines with one of the words.
func (w *world) story(but ...string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.did), func(s string) bool {
		return slices.ContainsFunc(but, func(b string) bool { return strings.Contains(s, b) })
	})
}

func (w *world) count(prefix string) int {
	n := 0
	for _, s := range w.story() {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

// bootOver says whether no boot of Perdure is under way in the journal.
func (w *world) bootOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.latest[bootKey]
	e, err := decode(f)
	return err != nil || e.Boot == nil || e.Boot.Over
}

// breakJournal makes every write fail until it is called with nil.
func (w *world) breakJournal(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = err
}

func (w *world) process(name string) *fakeProcess {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.live {
		if p.name == name && !p.over {
			return p
		}
	}
	return nil
}

// fakeProcess is one simulated process.
type fakeProcess struct {
	w          *world
	name       string
	id         proc.Identity
	generation string
	notify     func(proc.Notice)
	over       bool
	leftovers  bool // its end leaves something behind
	zombie     bool // and nobody reaps it
}

func (p *fakeProcess) Identity() proc.Identity { return p.id }

func (p *fakeProcess) PidFD() (int, error) {
	if !p.w.passes {
		return -1, proc.ErrGone
	}
	return 1 << 30, nil // closing it does nothing
}

// end makes the process end by itself.
func (p *fakeProcess) end(code int, signal string) {
	p.w.mu.Lock()
	if p.over {
		p.w.mu.Unlock()
		return
	}
	p.over = true
	left := p.leftovers
	if !left {
		delete(p.w.live, p.id.PID)
	}
	notify := p.notify
	p.w.mu.Unlock()
	if notify != nil {
		notify(proc.Notice{Exited: true, Exit: proc.Exit{Code: code, Signal: signal}, Gone: !left})
	}
}

// sweepAway ends what the leader has left.
func (p *fakeProcess) sweepAway() {
	p.w.mu.Lock()
	delete(p.w.live, p.id.PID)
	p.w.mu.Unlock()
	p.notify(proc.Notice{Gone: true})
}

func (p *fakeProcess) Signal(name string) error {
	p.w.mu.Lock()
	p.w.note("signal %s %s", p.name, name)
	deaf := p.w.deaf[p.name]
	p.w.mu.Unlock()
	if !deaf {
		p.end(0, "")
	}
	return nil
}

func (p *fakeProcess) Kill() error {
	p.w.mu.Lock()
	p.w.note("kill %s", p.name)
	stuck, over := p.w.stuck[p.name], p.over
	p.w.mu.Unlock()
	switch {
	case stuck:
	case over:
		p.sweepAway()
	default:
		p.leftovers = false
		p.end(137, "SIGKILL")
	}
	return nil
}

// simHost is the world as a host.
type simHost struct{ w *world }

func (h simHost) start(spec proc.Spec, notify func(proc.Notice)) (live, error) {
	w := h.w
	w.mu.Lock()
	w.note("start %s", spec.Name)
	w.pid++
	p := &fakeProcess{w: w, name: spec.Name, notify: notify,
		id: proc.Identity{BootID: w.bootID, PID: w.pid, StartTime: uint64(w.pid), Marker: spec.Marker}}
	for _, e := range spec.Env {
		if g, ok := strings.CutPrefix(e, "PERDURE_GENERATION="); ok {
			p.generation = g
		}
	}
	for _, other := range w.live {
		if other.name == spec.Name && !other.over {
			w.t.Errorf("%s runs twice: %d and %d", spec.Name, other.id.PID, p.id.PID)
		}
	}
	w.live[p.id.PID] = p
	on := w.onStart
	w.mu.Unlock()
	if on != nil {
		if err := on(p); err != nil {
			w.mu.Lock()
			delete(w.live, p.id.PID)
			w.mu.Unlock()
			return nil, err
		}
	}
	return p, nil
}

func (h simHost) adopt(id proc.Identity, notify func(proc.Notice)) (live, error) {
	w := h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.live[id.PID]
	if id.BootID != w.bootID || p == nil || p.over && !p.zombie {
		return nil, proc.ErrGone
	}
	if p.over {
		w.note("adopt the zombie of %s", p.name)
		go notify(proc.Notice{Exited: true, Exit: proc.Exit{Code: 1}})
	}
	w.note("adopt %s", p.name)
	p.notify = notify
	return p, nil
}

func (h simHost) adoptHeld(id proc.Identity, _ int, known *proc.Exit, notify func(proc.Notice)) (live, error) {
	if known == nil {
		return h.adopt(id, notify)
	}
	w := h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("adopt the end of %d", id.PID)
	p := &fakeProcess{w: w, id: id, notify: notify, over: true}
	go notify(proc.Notice{Exited: true, Exit: *known, Gone: true})
	return p, nil
}

func (h simHost) told(proc.Identity, proc.Exit) {}
func (h simHost) relayed(bool)                  {}

func (h simHost) find(marker string) []proc.Identity {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	var out []proc.Identity
	for _, p := range h.w.live {
		if p.id.Marker == marker {
			id := p.id
			id.Leads = !p.over
			out = append(out, id)
		}
	}
	return out
}

func (h simHost) variable(id proc.Identity, _ string) string {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if p := h.w.live[id.PID]; p != nil {
		return p.generation
	}
	return ""
}

func (h simHost) sweep(id proc.Identity) (int, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	n := 0
	for pid, p := range h.w.live {
		if p.id.Marker == id.Marker && id.BootID == h.w.bootID {
			h.w.note("sweep %s", p.name)
			delete(h.w.live, pid)
			n++
		}
	}
	return n, nil
}

func (h simHost) run(context.Context, proc.Spec, int) (proc.Exit, []byte, error) {
	return proc.Exit{}, nil, nil
}

func (h simHost) release(string) error { return nil }

func (h simHost) dead(cgroup string) []proc.Identity {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.w.zombies[cgroup]
}

func (h simHost) cgroupOf(name string) string { return "/cgroup/" + name }

func (h simHost) owns(*proc.Identity, string, int) bool { return false }
func (h simHost) tree(*proc.Identity) []int             { return nil }

func (h simHost) sample(proc.Identity, bool) (proc.Sample, int, error) {
	h.w.mu.Lock()
	h.w.note("measure")
	uses, on := h.w.uses, h.w.onMeasure
	h.w.mu.Unlock()
	if on != nil {
		on()
	}
	return uses, 0, nil
}

func (h simHost) pause() {}

// The world as outputs.

type fakeSink struct {
	w    *world
	name string
}

type simOutputs struct{ w *world }

func (o simOutputs) remove(name string) error {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.note("forget the log of %s", name)
	return nil
}

func (o simOutputs) open(name string, _ logstore.Retention, _ ...int) (sink, error) {
	w := o.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noSink != nil {
		return nil, w.noSink
	}
	w.note("open %s", name)
	return &fakeSink{w, name}, nil
}

func (s *fakeSink) ChildEnds() (*os.File, *os.File, error) {
	return nil, nil, nil // a nil *os.File can be closed; nothing is written to it
}

func (s *fakeSink) Drain() error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.note("drain %s", s.name)
	return nil
}
func (s *fakeSink) FIFOs() ([]int, error)        { return nil, nil }
func (s *fakeSink) Configure(logstore.Retention) {}
func (s *fakeSink) Close() error                 { return nil }

// The world as a journal.

func (w *world) write(key string, payload []byte, deleted bool) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last > 0 && len(w.frames) >= w.last {
		w.broken = errors.New("dead")
	}
	if w.broken != nil {
		return 0, w.broken
	}
	f := journal.Frame{Seq: uint64(len(w.frames) + 1), Time: time.Now(), Key: key, Payload: slices.Clone(payload), Deleted: deleted}
	w.frames = append(w.frames, f)
	w.latest[key] = f
	if deleted {
		delete(w.latest, key)
	}
	var e control.Entry
	if err := json.Unmarshal(payload, &e); err != nil {
		w.t.Errorf("entry %d cannot be read: %v", f.Seq, err)
	}
	var types []string
	for _, ev := range e.Events {
		types = append(types, strings.TrimPrefix(ev.Type, "process."))
	}
	name := key[strings.Index(key, "/")+1:]
	w.note("append %s %s", name, strings.Join(types, ","))
	return f.Seq, nil
}

func (w *world) Write(key string, payload []byte) (uint64, error) {
	return w.write(key, payload, false)
}
func (w *world) WriteDelete(key string, payload []byte) (uint64, error) {
	return w.write(key, payload, true)
}

func (w *world) Durable(uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush.err
}

func (w *world) SetSyncEvery(every time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush.every = every
}
func (w *world) Ack(uint64) error { return nil }
func (w *world) Size() int64      { return 0 }

func (w *world) LastSeq() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return uint64(len(w.frames))
}

func (w *world) FollowBatches(context.Context, uint64, journal.BatchOptions) iter.Seq2[[]journal.Frame, error] {
	return func(yield func([]journal.Frame, error) bool) {
		w.mu.Lock()
		frames := slices.Clone(w.frames)
		w.mu.Unlock()
		yield(frames, nil)
	}
}

func (w *world) LatestErr() iter.Seq2[journal.Frame, error] {
	w.mu.Lock()
	all := maps.Clone(w.latest)
	w.mu.Unlock()
	return func(yield func(journal.Frame, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if !yield(all[key], nil) {
				return
			}
		}
	}
}

// The world as a prober.

type asking struct {
	spec   probe.Spec
	report func(probe.Result)
}

func (w *world) Start(spec probe.Spec, report func(probe.Result)) (func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &asking{spec, report}
	w.asking[a] = true
	w.note("ask %s", spec.Name)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.asking, a)
	}, nil
}

func (w *world) Close() {}

func (w *world) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asking)
}

// answer reports to all who ask about a process.
func (w *world) answer(name string, answer probe.Answer) {
	w.mu.Lock()
	var to []*asking
	for a := range w.asking {
		if a.spec.Name == name {
			to = append(to, a)
		}
	}
	w.mu.Unlock()
	for _, a := range to {
		a.report(probe.Result{Answer: answer})
	}
}

var errFull = errors.New("no space left on device")

// def is a definition with the quickest of everything; changes come last.
func def(name string, change ...func(*api.Definition)) api.Definition {
	first := api.Duration(time.Second)
	d := api.Definition{Name: name, Command: api.Command{"/bin/" + name},
		Backoff: api.Backoff{Kind: "fixed", Initial: &first}, Breaker: api.Breaker{Failures: -1}}
	for _, c := range change {
		c(&d)
	}
	return d
}

func on(deps ...api.Dependency) func(*api.Definition) {
	return func(d *api.Definition) { d.DependsOn = append(d.DependsOn, deps...) }
}

func fill(defs ...api.Definition) []api.Definition {
	named := map[string]api.Definition{}
	for _, d := range defs {
		named[d.Name] = d
	}
	full := definition.FillAll(named)
	var out []api.Definition
	for _, name := range slices.Sorted(maps.Keys(full)) {
		out = append(out, full[name])
	}
	return out
}

// apply gives a supervisor the definitions of a file.
func apply(t *testing.T, s *Supervisor, defs ...api.Definition) control.ApplyResult {
	t.Helper()
	res, err := s.Apply(context.Background(), control.ApplyRequest{Definitions: fill(defs...), Full: true, Source: "file"})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func do(t *testing.T, s *Supervisor, verb, name string) control.Record {
	t.Helper()
	rec, err := s.Command(context.Background(), control.Command{Verb: verb, Name: name})
	if err != nil {
		t.Fatalf("%s %s: %v", verb, name, err)
	}
	return rec
}

func state(t *testing.T, s *Supervisor, name string) supervise.State {
	t.Helper()
	recs, _, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		if r.Name == name {
			return r.State
		}
	}
	return supervise.State{}
}

func closed(t *testing.T, s *Supervisor) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
