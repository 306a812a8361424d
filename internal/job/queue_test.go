package job_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/job"
	"github.com/perdure/perdure/internal/store"
	"github.com/perdure/perdure/internal/store/storetest"
)

// gauge counts how many handlers run at once. Each of them waits until the whole
// queue and its own key have once been as full as they may be, so that fullness
// does not depend on the machine.
type gauge struct {
	limits map[string]int // of "all" and of each key
	full   map[string]chan struct{}

	mu        sync.Mutex
	now, most map[string]int
}

func newGauge(limits map[string]int) *gauge {
	g := &gauge{limits: limits, full: map[string]chan struct{}{}, now: map[string]int{}, most: map[string]int{}}
	for k := range limits {
		g.full[k] = make(chan struct{})
	}
	return g
}

func (g *gauge) handle(ctx context.Context, r *job.Run, _ none) (none, error) {
	key := r.Job().Key
	g.add(key, 1)
	defer g.add(key, -1)
	for _, k := range []string{"all", key} {
		select {
		case <-g.full[k]:
		case <-ctx.Done():
			return none{}, ctx.Err()
		}
	}
	return none{}, nil
}

func (g *gauge) add(key string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range []string{"all", key} {
		g.now[k] += n
		if g.now[k] > g.most[k] {
			if g.most[k] = g.now[k]; g.most[k] == g.limits[k] {
				close(g.full[k])
			}
		}
	}
}

func testLimitsOfAQueue(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	g := newGauge(map[string]int{"all": 3, "a": 2, "b": 2})
	register(t, w, "x", g.handle)
	must(t, w.SetQueue(t.Context(), job.Queue{Name: "few", Concurrency: 3, PerKey: 2}))
	w.start(t)
	var ids []int64
	for i := range 40 {
		ids = append(ids, w.enqueue(t, job.Spec{Name: "x", Queue: "few", Key: []string{"a", "b"}[i/20]}))
	}
	for _, id := range ids {
		w.await(t, id, "job.completed")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if diff := cmp.Diff(g.limits, g.most); diff != "" {
		t.Errorf("ran at once (-want +got):\n%s", diff)
	}
}

func testRateOfAQueue(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	register(t, w, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	const period = 50 * time.Millisecond
	must(t, w.SetQueue(t.Context(), job.Queue{Name: "slow", Rate: 2, RatePeriod: period}))
	var ids []int64
	for range 6 {
		ids = append(ids, w.enqueue(t, job.Spec{Name: "x", Queue: "slow"}))
	}
	began := time.Now()
	w.start(t)
	for _, id := range ids {
		w.await(t, id, "job.completed")
	}
	// Two at once, then one each 25 ms: the last one starts after four of them.
	var starts []time.Time
	for _, id := range ids {
		starts = append(starts, w.get(t, id).Started)
	}
	slices.SortFunc(starts, time.Time.Compare)
	if took := starts[5].Sub(began); took < 2*period-5*time.Millisecond {
		t.Errorf("six jobs at 2 in %v started within %v", period, took)
	}
}

func testPausedQueueStartsNothing(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{Poll: time.Millisecond})
	register(t, w, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	if err := w.Pause(t.Context(), "q", true); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("pause of no queue: %v, want not found", err)
	}
	must(t, w.SetQueue(t.Context(), job.Queue{Name: "q"}))
	must(t, w.Pause(t.Context(), "q", true))
	w.start(t)
	held := w.enqueue(t, job.Spec{Name: "x", Queue: "q"})
	other := w.enqueue(t, job.Spec{Name: "x"})
	w.await(t, other, "job.completed")
	if j := w.get(t, held); j.State != job.Available {
		t.Errorf("in a paused queue a job is %s", j.State)
	}
	must(t, w.Pause(t.Context(), "q", false))
	w.await(t, held, "job.completed")
}

func testOrderOfAQueue(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{Workers: 1})
	var mu sync.Mutex
	var got []string
	register(t, w, "x", func(_ context.Context, _ *job.Run, name string) (none, error) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, name)
		return none{}, nil
	})
	var last int64
	for i, s := range []job.Spec{{Priority: -1}, {}, {Priority: 5}, {}, {Priority: 5}} {
		s.Name, s.Args = "x", fmt.Appendf(nil, `"%d"`, i)
		id := w.enqueue(t, s)
		if i == 0 {
			last = id
		}
	}
	w.start(t)
	w.await(t, last, "job.completed")
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"2", "4", "1", "3", "0"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// testJ20ScheduledStartsInTime: a job that is due later starts then, by a timer and
// not by the poll, which this test makes rare.
func testJ20ScheduledStartsInTime(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{Poll: time.Hour})
	register(t, w, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	w.start(t)
	later := w.enqueue(t, job.Spec{Name: "x", At: time.Now().Add(time.Hour)})
	at := time.Now().Add(30 * time.Millisecond)
	id := w.enqueue(t, job.Spec{Name: "x", At: at})
	w.await(t, id, "job.completed")
	if j := w.get(t, id); j.Started.Before(at) {
		t.Errorf("it started at %v, before %v", j.Started, at)
	}
	if j := w.get(t, later); j.State != job.Scheduled {
		t.Errorf("the one of later is %s", j.State)
	}
}

func testDeadlines(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{Poll: 2 * time.Millisecond})
	register(t, w, "hangs", func(ctx context.Context, _ *job.Run, _ none) (none, error) {
		<-ctx.Done()
		return none{}, ctx.Err()
	})
	must(t, w.SetQueue(t.Context(), job.Queue{Name: "q"}))
	must(t, w.Pause(t.Context(), "q", true))
	w.start(t)
	fails := func(queue string, in time.Duration) string {
		id := w.enqueue(t, job.Spec{Name: "hangs", Queue: queue, Deadline: time.Now().Add(in)})
		w.await(t, id, "job.failed")
		return w.get(t, id).Error
	}
	const late, long = "its deadline passed before it could run", "the attempt took longer than its deadline allows"
	if got := fails("q", 10*time.Millisecond); got != late {
		t.Errorf("error %q, want %q", got, late)
	}
	// A slow machine may need longer than the deadline to begin: then it gets more.
	in := 10 * time.Millisecond
	got := fails("", in)
	for got == late {
		in *= 2
		got = fails("", in)
	}
	if got != long {
		t.Errorf("error %q, want %q", got, long)
	}
}

// testHandlerThatDoesNotReturn: its attempt fails after the grace, the job goes on
// without it, and what it returns at last is refused.
func testHandlerThatDoesNotReturn(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{Poll: 2 * time.Millisecond, Grace: 5 * time.Millisecond})
	release := make(chan struct{})
	register(t, w, "deaf", func(_ context.Context, r *job.Run, _ none) (int, error) {
		if r.Attempt() == 1 {
			<-release
		}
		return r.Attempt(), nil
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "deaf", Timeout: time.Millisecond, Backoff: fast()})
	w.await(t, id, "job.retrying")
	w.await(t, id, "job.completed")
	close(release)
	w.await(t, id, "job.late")
	if j := w.get(t, id); string(j.Result) != "2" {
		t.Errorf("result %s, want that of the second attempt", j.Result)
	}
}

// testJ19ProgressAndLogAreKept while the job runs and afterwards.
func testJ19ProgressAndLogAreKept(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{Poll: 2 * time.Millisecond})
	seen, release := make(chan struct{}), make(chan struct{})
	register(t, w, "x", func(_ context.Context, r *job.Run, _ none) (none, error) {
		r.Progress(40, "resizing")
		<-seen
		for i := range 1200 {
			r.Log("info", fmt.Sprint("line ", i))
		}
		<-release
		r.Log("warn", "last")
		return none{}, nil
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "x", Trace: "00-abc"})
	w.await(t, id, "job.progress")
	if j := w.get(t, id); j.Progress != 40 || j.Message != "resizing" || j.Trace != "00-abc" {
		t.Errorf("progress %v %q, trace %q", j.Progress, j.Message, j.Trace)
	}
	close(seen)
	// The last line is to meet an empty buffer: all before it are kept or counted.
	for w.logged(t, id) < 1200 {
		<-time.After(time.Millisecond)
	}
	close(release)
	w.await(t, id, "job.completed")
	var n int
	var first, last string
	must(t, w.store.View(t.Context(), func(r store.Reader) error {
		if err := r.Row(t.Context(), `SELECT count(*) FROM job_log WHERE job = $1`, id).Scan(&n); err != nil {
			return err
		}
		return r.Row(t.Context(), `SELECT (SELECT message FROM job_log WHERE job = $1 ORDER BY line LIMIT 1),
			(SELECT message FROM job_log WHERE job = $1 ORDER BY line DESC LIMIT 1)`, id).Scan(&first, &last)
	}))
	if n < 1002 || first != "line 0" || last != "last" {
		t.Errorf("%d lines from %q to %q", n, first, last)
	}
}

// logged is how many lines of a job have been written down, or counted as too many.
func (w *world) logged(t *testing.T, id int64) (n int) {
	t.Helper()
	must(t, w.store.View(t.Context(), func(r store.Reader) error {
		rows, err := r.Rows(t.Context(), `SELECT message FROM job_log WHERE job = $1`, id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var message string
			if err := rows.Scan(&message); err != nil {
				return err
			}
			var dropped int
			if _, err := fmt.Sscanf(message, "%d more lines", &dropped); err != nil {
				dropped = 1 // a line itself
			}
			n += dropped
		}
		return rows.Err()
	}))
	return n
}

func testRetentionRemovesOldJobs(t *testing.T, newStore opener) {
	s := newStore(t)
	w := open(t, s, job.Options{})
	register(t, w, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, fmt.Errorf("wrong") })
	must(t, w.Start(t.Context()))
	id := w.enqueue(t, job.Spec{Name: "x", MaxAttempts: 1})
	w.await(t, id, "job.failed")
	waits := w.enqueue(t, job.Spec{Name: "x", At: time.Now().Add(time.Hour)})
	must(t, w.Stop(t.Context()))
	next := open(t, s, job.Options{Retention: time.Nanosecond})
	register(t, next, "y", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	next.start(t)
	next.await(t, next.enqueue(t, job.Spec{Name: "y"}), "job.completed") // the first poll is over
	if _, err := next.Get(t.Context(), id); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("an old job: %v, want not found", err)
	}
	if j := next.get(t, waits); j.State != job.Scheduled {
		t.Errorf("a waiting job is %s", j.State)
	}
}

// testJ13WorkersAreCounted: never more handlers than workers, whatever ends how.
func testJ13WorkersAreCounted(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{Workers: 4})
	var now, most atomic.Int32
	register(t, w, "x", func(_ context.Context, r *job.Run, _ none) (none, error) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		switch r.ID() % 4 {
		case 0:
			return none{}, fmt.Errorf("wrong")
		case 1:
			panic("oh")
		case 2:
			if r.Epoch() == 1 {
				return none{}, job.Snooze(0)
			}
		}
		return none{}, nil
	})
	w.start(t)
	specs := make([]job.Spec, 200)
	for i := range specs {
		specs[i] = job.Spec{Name: "x", MaxAttempts: 2, Backoff: fast()}
	}
	all, err := w.Enqueue(t.Context(), specs...)
	must(t, err)
	for _, e := range all {
		if e.ID%4 < 2 {
			w.await(t, e.ID, "job.failed")
		} else {
			w.await(t, e.ID, "job.completed")
		}
	}
	if most.Load() > 4 {
		t.Errorf("%d handlers ran at once, want at most 4", most.Load())
	}
}

// lossy loses the answers of some transactions that have happened.
type lossy struct {
	storetest.Store
	lose atomic.Int32
}

func (l *lossy) Update(ctx context.Context, fn func(store.Tx) error) error {
	err := l.Store.Update(ctx, fn)
	if err == nil && l.lose.Add(-1) >= 0 {
		return errors.New("the connection was lost")
	}
	return err
}

// testLostAnswersLoseNoJob: what was claimed by a transaction whose answer was lost
// goes back to its queue and runs.
func testLostAnswersLoseNoJob(t *testing.T, newStore opener) {
	s := &lossy{Store: newStore(t)}
	w := open(t, s, job.Options{Poll: time.Millisecond})
	register(t, w, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	var ids []int64
	for range 5 {
		ids = append(ids, w.enqueue(t, job.Spec{Name: "x", MaxAttempts: 1}))
	}
	s.lose.Store(5) // among them: joining, which is tried again here
	for w.Start(t.Context()) != nil {
	}
	t.Cleanup(func() { must(t, w.Stop(context.Background())) })
	for _, id := range ids {
		w.await(t, id, "job.completed")
		if j := w.get(t, id); j.Attempt != 1 {
			t.Errorf("attempt %d, want 1", j.Attempt)
		}
	}
}
