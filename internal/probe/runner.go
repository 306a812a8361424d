package probe

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Options are the settings of a Runner.
type Options struct {
	// MaxParallel bounds the asks that are made at the same time; further ones
	// wait in the order in which they are due. Default 64.
	MaxParallel int
}

// Runner makes the asks of all probes. A probe that waits costs no timer and no
// goroutine: one timer runs for the ask that is due next.
type Runner struct {
	max    int
	ctx    context.Context // ends with Close; the parent of every ask
	cancel context.CancelFunc
	epoch  time.Time // what due times count from
	poll   poller    // makes the asks that need no goroutine; its fields are its own

	mu      sync.Mutex
	timer   *time.Timer // for the first of waiting
	waiting schedule
	queue   []*task // due, in order; each task is in it at most once
	asking  int     // asks under way
	fresh   []*task // counted in asking, to be begun by poll
	polling bool    // poll has its goroutine
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
	return &Runner{max: o.MaxParallel, ctx: ctx, cancel: cancel, epoch: time.Now(), tasks: map[*task]struct{}{}}
}

// task is one probe that was started and not yet stopped.
type task struct {
	asker    asker
	direct   *direct // set when poll can make the ask
	report   func(Result)
	interval time.Duration
	timeout  time.Duration
	ease     time.Duration // slack of every ask but the first

	// Guarded by Runner.mu:

	due     time.Duration      // since Runner.epoch
	slack   time.Duration      // how much before it is due the next ask may come
	place   int                // in Runner.waiting, -1 when not in it
	stopped bool               //
	off     context.CancelFunc // calls off the ask under way that has a goroutine
}

// maxSlack bounds how much earlier than its time an ask may come.
const maxSlack = 100 * time.Millisecond

// Start begins to ask: first after InitialDelay, then with Interval from the end
// of one ask to the next (Spec.Spread may shorten it), each bounded by Timeout.
// Asks of one probe never overlap. It fails with api.CodeInvalid if the probe
// says not how to ask.
//
// report is called by a goroutine of the Runner, one call at a time for a probe;
// it must not block, for other probes may wait for the same goroutine. After
// stop has returned no call begins; a call that has begun may still run, which
// is why stop may be called from within report. stop calls off an ask under way
// and may be called again.
func (r *Runner) Start(spec Spec, report func(Result)) (stop func(), err error) {
	a, err := newAsker(spec)
	if err != nil {
		return nil, err
	}
	t := &task{
		asker: a, report: report, place: -1,
		interval: orDefault(time.Duration(spec.Probe.Interval), 10*time.Second),
		timeout:  orDefault(time.Duration(spec.Probe.Timeout), 5*time.Second),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return func() {}, nil
	}
	if r.poll.ready() {
		t.direct = newDirect(a)
	}
	r.tasks[t] = struct{}{}
	t.due = time.Since(r.epoch) + max(0, time.Duration(spec.Probe.InitialDelay))
	if spec.Spread {
		delay := spread(spec.Name, min(t.interval/4, time.Second))
		t.due += delay
		t.ease = min(t.interval/4, maxSlack)
		t.slack = min(t.ease, delay) // InitialDelay holds
	}
	r.wait(t)
	return func() { r.stop(t) }, nil
}

// Close calls off all asks and waits for the end of the reports under way. No
// report is made afterwards. It must not be called from within a report. A second
// Close does nothing.
func (r *Runner) Close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	for t := range r.tasks {
		r.stopLocked(t)
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	r.cancel()
	r.working.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.poll.close()
}

func (r *Runner) stop(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopLocked(t)
}

func (r *Runner) stopLocked(t *task) {
	if t.stopped {
		return
	}
	t.stopped = true
	delete(r.tasks, t)
	switch {
	case t.place >= 0:
		heap.Remove(&r.waiting, t.place)
	case t.off != nil:
		t.off()
	case t.direct != nil && r.polling:
		r.poll.wake()
	}
}

// wait puts t among those whose time will come. The caller holds mu.
func (r *Runner) wait(t *task) {
	heap.Push(&r.waiting, t)
	if t.place == 0 {
		r.arm()
	}
}

// arm sets the timer for the first task that waits. The caller holds mu.
func (r *Runner) arm() {
	if len(r.waiting) == 0 {
		return
	}
	d := r.waiting[0].due - time.Since(r.epoch)
	if r.timer == nil {
		r.timer = time.AfterFunc(d, r.fire)
		return
	}
	r.timer.Reset(d)
}

// fire queues the tasks whose time has come, and with them those that may come
// now, so that they share the work of waking up. It runs on the timer's goroutine,
// which goes on as poll's where that has none.
func (r *Runner) fire() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	now := time.Since(r.epoch)
	for len(r.waiting) > 0 && r.waiting[0].due-r.waiting[0].slack <= now {
		r.queue = append(r.queue, heap.Pop(&r.waiting).(*task))
	}
	r.arm()
	begin := r.dispatch()
	r.mu.Unlock()
	if begin {
		r.runPoll()
	}
}

// dispatch begins what is queued and may be made now. When it returns true, poll
// has work and no goroutine yet: the caller, which holds mu, sees to it that one
// calls runPoll.
func (r *Runner) dispatch() (begin bool) {
	for len(r.queue) > 0 && r.asking < r.max {
		t := r.queue[0]
		r.queue = r.queue[1:]
		switch {
		case t.stopped:
		case t.direct != nil:
			r.asking++
			r.fresh = append(r.fresh, t)
		default:
			r.asking++
			r.working.Go(func() { r.run(t) })
		}
	}
	if len(r.queue) == 0 {
		r.queue = nil // a burst does not keep its memory
	}
	if len(r.fresh) == 0 {
		return false
	}
	if r.polling {
		r.poll.wake()
		return false
	}
	r.polling = true
	r.working.Add(1)
	return true
}

// takeFresh appends the asks that poll shall begin to into. The caller, which is
// poll, holds mu.
func (r *Runner) takeFresh(into []*task) []*task {
	for len(r.fresh) > 0 {
		for i, t := range r.fresh {
			r.fresh[i] = nil
			if t.stopped {
				r.asking--
				continue
			}
			into = append(into, t)
		}
		r.fresh = r.fresh[:0]
		_ = r.dispatch() // in place of the stopped ones; poll has its goroutine
	}
	return into
}

func (r *Runner) runPoll() {
	defer r.working.Done()
	r.poll.run(r)
}

// run makes one ask that has a goroutine.
func (r *Runner) run(t *task) {
	ctx, cancel := context.WithTimeout(r.ctx, t.timeout)
	defer cancel()
	r.mu.Lock()
	t.off = cancel
	stopped := t.stopped
	r.mu.Unlock()
	begin := time.Now()
	var answer Answer
	var detail string
	if !stopped {
		answer, detail = t.asker.ask(ctx)
	}
	if r.finish(t, Result{Answer: answer, Detail: detail, Took: time.Since(begin)}) {
		r.runPoll()
	}
}

// finish reports the end of an ask and puts the next one on the schedule. It
// returns what dispatch returned.
func (r *Runner) finish(t *task, res Result) (begin bool) {
	r.mu.Lock()
	t.off = nil
	stopped := t.stopped
	r.mu.Unlock()
	if !stopped {
		t.report(res)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking--
	if !t.stopped {
		t.due, t.slack = time.Since(r.epoch)+t.interval, t.ease
		r.wait(t)
	}
	return r.dispatch()
}

// schedule is a heap of tasks (container/heap): the one due first is at its head.
type schedule []*task

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due < s[j].due }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

// Push is for container/heap.
func (s *schedule) Push(x any) {
	t := x.(*task)
	t.place = len(*s)
	*s = append(*s, t)
}

// Pop is for container/heap.
func (s *schedule) Pop() any {
	old := *s
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	t.place = -1
	return t
}
