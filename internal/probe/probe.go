// Package probe asks processes whether they are ready or healthy, over HTTP,
// over TCP or by a command. It knows nothing of thresholds: it reports each
// answer, and somebody else counts.
package probe

import (
	"context"
	"errors"
	"hash/fnv"
	"math/bits"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
)

// Answer is the answer to one ask.
type Answer uint8

// The answers. Unknown means that the question could not be asked, by a fault
// of this side: no descriptor, the command could not be started, the ask was
// called off. Whoever does not answer, or refuses, has said No.
const (
	Unknown Answer = iota
	Yes
	No
)

// String returns "unknown", "yes" or "no".
func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// Result is one answer.
type Result struct {
	Answer Answer
	// Detail says for people why it is no or unknown, such as
	// "status 503, not 2xx"; empty for yes.
	Detail string
	// Took is how long the ask lasted.
	Took time.Duration
}

// Exec runs a probe's command until ctx ends, with all that it has started, and
// returns its exit code (128+n after signal n) and the beginning of its output.
// An error other than ctx's means that it could not be run.
type Exec func(ctx context.Context, argv []string) (code int, output string, err error)

// Spec is one probe of one process.
type Spec struct {
	// Name is the process's name; it spreads the first asks.
	Name string
	// Probe is filled with its defaults: Interval and Timeout are above 0 (10s
	// and 5s stand in for 0).
	Probe api.Probe
	// Spread delays the first ask by up to a second (at most Interval), always
	// by the same for a name, so that many processes are not asked at once. It
	// is meant for health; readiness is asked immediately.
	Spread bool
	// Exec runs the command of an exec probe.
	Exec Exec
}

// Options are the settings of a Runner.
type Options struct {
	// MaxParallel bounds the asks that are made at the same time; further ones
	// wait in the order in which they are due. Default 64.
	MaxParallel int
}

// Runner makes the asks of all probes. A probe that waits costs one timer and no
// goroutine.
type Runner struct {
	max    int
	ctx    context.Context // ends with Close; the parent of every ask
	cancel context.CancelFunc

	mu      sync.Mutex
	queue   []*task // due, in order; each probe is in it at most once
	workers int
	closed  bool
	tasks   map[*task]struct{}
	working sync.WaitGroup
}

// NewRunner returns a Runner. The caller calls Close.
func NewRunner(o Options) *Runner {
	if o.MaxParallel <= 0 {
		o.MaxParallel = 64
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Runner{max: o.MaxParallel, ctx: ctx, cancel: cancel, tasks: map[*task]struct{}{}}
}

// asker makes one ask. The deadline is in ctx.
type asker interface {
	ask(ctx context.Context) (Answer, string)
}

// task is one probe that was started and not yet stopped.
type task struct {
	asker    asker
	report   func(Result)
	interval time.Duration
	timeout  time.Duration
	ctx      context.Context // ends with stop
	cancel   context.CancelFunc

	timer   *time.Timer // guarded by Runner.mu
	stopped bool        // guarded by Runner.mu
}

// Start begins to ask: first after InitialDelay, then with Interval from the end
// of one ask to the next, each bounded by Timeout. Asks of one probe never
// overlap. It fails with api.CodeInvalid if the probe says not how to ask.
//
// report is called by a goroutine of the Runner, one call at a time; it must not
// block for long. After stop has returned no call begins; a call that has begun
// may still run, which is why stop may be called from within report. stop calls
// off an ask under way and may be called again.
func (r *Runner) Start(spec Spec, report func(Result)) (stop func(), err error) {
	a, err := newAsker(spec)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	t := &task{
		asker: a, report: report, ctx: ctx, cancel: cancel,
		interval: orDefault(time.Duration(spec.Probe.Interval), 10*time.Second),
		timeout:  orDefault(time.Duration(spec.Probe.Timeout), 5*time.Second),
	}
	first := time.Duration(spec.Probe.InitialDelay)
	if spec.Spread {
		first += spread(spec.Name, min(t.interval, time.Second))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		cancel()
		return func() {}, nil
	}
	r.tasks[t] = struct{}{}
	t.timer = time.AfterFunc(first, func() { r.due(t) })
	return func() { r.stop(t) }, nil
}

// Close calls off all asks and waits for the end of the reports under way. No
// report is made afterwards. It must not be called from within a report.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	for t := range r.tasks {
		r.stopLocked(t)
	}
	r.mu.Unlock()
	r.cancel()
	r.working.Wait()
}

func (r *Runner) stop(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopLocked(t)
}

func (r *Runner) stopLocked(t *task) {
	t.stopped = true
	t.timer.Stop()
	t.cancel()
	delete(r.tasks, t)
}

// due puts t into the queue and sees to it that somebody works on it. It runs on
// the timer's goroutine and does not wait.
func (r *Runner) due(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.stopped {
		return
	}
	r.queue = append(r.queue, t)
	if r.workers < r.max {
		r.workers++
		r.working.Go(r.work)
	}
}

// work makes asks until none is due.
func (r *Runner) work() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			r.workers--
			r.queue = nil // a burst does not keep its memory
			r.mu.Unlock()
			return
		}
		t := r.queue[0]
		r.queue = r.queue[1:]
		stopped := t.stopped
		r.mu.Unlock()
		if !stopped {
			r.run(t)
		}
	}
}

// run makes one ask, reports it and arms the timer for the next.
func (r *Runner) run(t *task) {
	ctx, cancel := context.WithTimeout(t.ctx, t.timeout)
	begin := time.Now()
	answer, detail := t.asker.ask(ctx)
	res := Result{Answer: answer, Detail: detail, Took: time.Since(begin)}
	cancel()
	r.mu.Lock()
	stopped := t.stopped
	r.mu.Unlock()
	if stopped {
		return
	}
	t.report(res)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !t.stopped {
		t.timer.Reset(t.interval)
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// spread returns a part of span that depends on name alone.
func spread(name string, span time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails (hash.Hash)
	// FNV leaves the high bits of short names alike; this mixes them
	// (the finalizer of MurmurHash3).
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	hi, _ := bits.Mul64(x^x>>33, uint64(span))
	return time.Duration(hi)
}

func newAsker(spec Spec) (asker, error) {
	p := spec.Probe
	switch {
	case p.HTTP != nil:
		return newHTTP(*p.HTTP)
	case p.TCP != nil:
		return newTCP(*p.TCP)
	case p.Exec != nil && spec.Exec != nil && len(p.Exec.Command) > 0:
		return execAsker{argv: p.Exec.Command, exec: spec.Exec}, nil
	}
	return nil, api.Errorf(api.CodeInvalid, "cannot ask %q: its probe has no http, tcp or exec", spec.Name)
}

// calledOff says whether the ask was ended by stop or Close and not by its own
// timeout.
func calledOff(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }
