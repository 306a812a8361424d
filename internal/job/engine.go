package job

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/store"
)

// Options say how a node runs jobs.
type Options struct {
	// Node is this node's name. Default: the host's.
	Node string
	// Workers is how many handlers run at once on this node. Default 100.
	Workers int
	// Lease is how long a node may be silent before its jobs go to others.
	// Default 15s, at least 1s.
	Lease time.Duration
	// Poll is how often the node looks for what no wake-up told of: lost
	// wake-ups, due times of other nodes, cancels, dead nodes. Default 1s.
	Poll time.Duration
	// Grace is how long a handler may go on after its context ended. After that
	// its attempt has failed, and what it returns is refused. Default 30s.
	Grace time.Duration
	// Retention is how long final jobs are kept. Default 168h.
	Retention time.Duration
	// Logger takes what concerns the engine itself. Default: none.
	Logger *slog.Logger
}

func (o Options) filled() Options {
	if o.Node == "" {
		o.Node, _ = os.Hostname() // "" is a name as well
	}
	o.Workers = cmp.Or(max(o.Workers, 0), 100)
	o.Lease = max(cmp.Or(o.Lease, 15*time.Second), time.Second)
	o.Poll = cmp.Or(o.Poll, time.Second)
	o.Grace = cmp.Or(o.Grace, 30*time.Second)
	o.Retention = cmp.Or(o.Retention, 7*24*time.Hour)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Engine runs jobs on this node. Its exported methods may be called by many
// goroutines at once.
type Engine struct {
	store store.Store
	o     Options
	ids   ids
	known sync.Map // names of queues whose row exists

	mu       sync.Mutex
	handlers map[string]handler
	dirty    map[string]bool // queues to look at; "" means all of them
	due      time.Time       // when the next waiting job is due, as far as is known
	told     bool            // another node has woken this one: perhaps of a cancel
	wakes    chan struct{}   // capacity 1
	running  map[int64]*Run  // by job; removed when its end is written down
	endedAll []*Run          // whose handlers have returned

	loop
	stop   context.CancelFunc
	done   chan struct{}
	base   context.Context //nolint:containedctx // the parent of all attempts, ended by Stop
	cancel context.CancelCauseFunc
}

// loop is what the engine's goroutine alone touches.
type loop struct {
	node    string
	renewed time.Time // when the lease was last known to be ours
	busy    int       // handlers that have not returned
	ended   []*Run    // whose end is not written down yet
	next    times
	failing bool
	unsure  bool // a transaction failed, and yet may have happened
}

// times are when the goroutine does what nobody wakes it for.
type times struct{ poll, renew, retain, retry, rate time.Time }

// New returns an engine over a store. Handlers are registered next, then it is
// started.
func New(s store.Store, o Options) *Engine {
	e := &Engine{store: s, o: o.filled(), handlers: map[string]handler{}, dirty: map[string]bool{"": true},
		wakes: make(chan struct{}, 1), running: map[int64]*Run{}, done: make(chan struct{})}
	s.OnWake("jobs", func() {
		e.mu.Lock()
		e.told = true
		e.mu.Unlock()
		e.rouse(map[string]bool{"": true}, time.Time{})
	})
	return e
}

// Start joins the nodes of the database and begins to run jobs. What an earlier
// start of this node left running goes back to its queue first.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.join(ctx); err != nil {
		return err
	}
	if err := e.reap(ctx); err != nil {
		return err
	}
	outlives := context.WithoutCancel(ctx)
	e.base, e.cancel = context.WithCancelCause(outlives)
	var loopCtx context.Context
	loopCtx, e.stop = context.WithCancel(outlives)
	e.next = times{poll: time.Now(), renew: time.Now().Add(e.o.Lease / 3), retain: time.Now()}
	go e.work(loopCtx)
	return nil
}

// Stop claims nothing more, ends the contexts of all handlers and waits until they
// have returned and that is written down, or ctx ends. A handler that returns its
// context's error loses no attempt: its job waits for the next start or another node.
func (e *Engine) Stop(ctx context.Context) error {
	e.stop()
	e.cancel(errStopping)
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wake tells this node and the others that queues have jobs, or that one is due
// at a time.
func (e *Engine) wake(queues map[string]bool, due time.Time) {
	if len(queues) == 0 && due.IsZero() {
		return
	}
	e.rouse(queues, due)
	if len(queues) > 0 {
		e.store.Wake("jobs")
	}
}

func (e *Engine) rouse(queues map[string]bool, due time.Time) {
	e.mu.Lock()
	for q := range queues {
		e.dirty[q] = true
	}
	if !due.IsZero() && (e.due.IsZero() || due.Before(e.due)) {
		e.due = due
	}
	e.mu.Unlock()
	select {
	case e.wakes <- struct{}{}:
	default:
	}
}

// returned takes a run whose handler has returned.
func (e *Engine) returned(r *Run) {
	e.mu.Lock()
	e.endedAll = append(e.endedAll, r)
	e.mu.Unlock()
	select {
	case e.wakes <- struct{}{}:
	default:
	}
}

func (e *Engine) roll() float64 { return rand.Float64() }

// setNode tells who this node is and since when that is sure.
func (e *Engine) setNode(id string, at time.Time) { e.node, e.renewed = id, at }

// work is the engine's goroutine.
func (e *Engine) work(ctx context.Context) {
	defer close(e.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-e.wakes:
		case <-timer.C:
		case <-ctx.Done():
			e.finish(context.WithoutCancel(ctx))
			return
		}
		now := time.Now()
		if err := e.bounded(ctx, now); err != nil {
			if !e.failing {
				e.o.Logger.Error("Cannot run jobs; it is tried again", "error", err)
			}
			e.failing, e.unsure, e.next.retry = true, true, now.Add(time.Second)
			e.checkLease(now)
		} else {
			e.failing, e.next.retry = false, time.Time{}
		}
		timer.Reset(max(time.Until(e.nextTime()), 0))
	}
}

// nextTime is when the goroutine has something to do by itself.
func (e *Engine) nextTime() time.Time {
	e.mu.Lock()
	due := e.due
	e.mu.Unlock()
	if !e.next.retry.IsZero() {
		return e.next.retry
	}
	all := slices.DeleteFunc([]time.Time{e.next.poll, e.next.renew, e.next.rate, due}, time.Time.IsZero)
	return slices.MinFunc(all, time.Time.Compare)
}

// bounded is tick in a bounded time: a database that does not answer must not keep
// the node from seeing that its lease runs out. Stop does not break it off, so that
// what was claimed is also launched.
func (e *Engine) bounded(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(e.o.Lease/3, time.Second))
	defer cancel()
	return e.tick(ctx, now)
}

// tick does all that is due.
func (e *Engine) tick(ctx context.Context, now time.Time) error {
	if !e.next.retry.IsZero() && now.Before(e.next.retry) {
		return nil
	}
	if !now.Before(e.next.renew) {
		if err := e.hold(ctx, now); err != nil {
			return err
		}
	}
	e.mu.Lock()
	due, told := !e.due.IsZero() && !now.Before(e.due), e.told
	e.told = false
	e.mu.Unlock()
	if told {
		if err := e.obey(ctx); err != nil {
			return err
		}
	}
	if due {
		if err := e.promote(ctx, now); err != nil {
			return err
		}
	}
	if !e.next.rate.IsZero() && !now.Before(e.next.rate) {
		e.next.rate = time.Time{}
		e.rouse(map[string]bool{"": true}, time.Time{})
	}
	if !now.Before(e.next.poll) {
		if err := e.poll(ctx, now); err != nil {
			return err
		}
		e.next.poll = now.Add(e.o.Poll)
	}
	for again := true; again; {
		var err error
		if again, err = e.cycle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// hold renews the lease. A node whose lease was taken ends what it runs, because
// others do it now, and joins again as a new node.
func (e *Engine) hold(ctx context.Context, now time.Time) error {
	held, err := e.renew(ctx)
	if err != nil {
		return err
	}
	e.next.renew = now.Add(e.o.Lease / 3)
	if held {
		return nil
	}
	e.o.Logger.Error("The lease of this node was lost; what it ran is done elsewhere")
	e.endAll(errLeaseLost)
	return e.join(ctx)
}

// checkLease ends everything when the lease could not be renewed for its whole
// length: others may be doing it already.
func (e *Engine) checkLease(now time.Time) {
	if now.Sub(e.renewed) >= e.o.Lease {
		e.endAll(errLeaseLost)
	}
}

func (e *Engine) endAll(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.running {
		r.cancel(cause)
	}
}

// finish is the end of the goroutine: it waits for the handlers and writes down
// how they ended, as long as the database takes it.
func (e *Engine) finish(ctx context.Context) {
	for {
		_, err := e.cycleWith(ctx, false)
		if e.busy == 0 && (err != nil || len(e.ended) == 0) {
			break
		}
		<-e.wakes
	}
	err := e.store.Update(ctx, func(tx store.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM node WHERE id = $1`, e.node)
		return err
	})
	if err != nil {
		e.o.Logger.Warn("Cannot leave the nodes; the lease will run out", "error", err)
	}
}
