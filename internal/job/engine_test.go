package job_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// world is an engine over a database, and what it told.
type world struct {
	*job.Engine
	store storetest.Store

	mu     sync.Mutex
	events []api.Event
	wake   chan struct{}
}

// open returns an engine that is not started.
func open(t testing.TB, s storetest.Store, o job.Options) *world {
	t.Helper()
	w := &world{store: s, wake: make(chan struct{}, 1)}
	s.Notify(func(events []api.Event) {
		w.mu.Lock()
		w.events = append(w.events, events...)
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
	})
	w.Engine = job.New(s, o)
	return w
}

func (w *world) start(t testing.TB) {
	t.Helper()
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// types returns the types of the events about a job.
func (w *world) types(id int64) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		if strings.Contains(string(e.Data), fmt.Sprintf(`"jobId":"%d"`, id)) {
			out = append(out, e.Type)
		}
	}
	return out
}

// await waits for an event about a job.
func (w *world) await(t testing.TB, id int64, typ string) {
	t.Helper()
	for {
		for _, got := range w.types(id) {
			if got == typ {
				return
			}
		}
		select {
		case <-w.wake:
		case <-time.After(20 * time.Second):
			t.Fatalf("job %d: no %s, but %q", id, typ, w.types(id))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func register[A, R any](t testing.TB, w *world, name string, h func(context.Context, *job.Run, A) (R, error)) {
	t.Helper()
	must(t, job.Register(w.Engine, name, h))
}

func (w *world) enqueue(t testing.TB, s job.Spec) int64 {
	t.Helper()
	got, err := w.Enqueue(context.Background(), s)
	must(t, err)
	return got[0].ID
}

func (w *world) get(t testing.TB, id int64) *job.Job {
	t.Helper()
	j, err := w.Get(context.Background(), id)
	must(t, err)
	return j
}

// none is the argument and the result of handlers that need neither.
type none struct{}

// fast is a backoff that costs a test no time.
func fast() job.Backoff { return job.Backoff{Initial: time.Millisecond} }

func testJobCompletes(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	type args struct{ A, B int }
	register(t, w, "add", func(_ context.Context, r *job.Run, a args) (int, error) {
		r.Log("info", "adding")
		return a.A + a.B, nil
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "add", Args: []byte(`{"A":2,"B":3}`), Tags: []string{"x", "y"}, Meta: map[string]string{"k": "v"}})
	w.await(t, id, "job.completed")
	j := w.get(t, id)
	if j.State != job.Completed || string(j.Result) != "5" || j.Attempt != 1 || j.Epoch != 1 || j.Owner != "" || j.Ended.IsZero() {
		t.Errorf("the job is %+v", j)
	}
	if diff := cmp.Diff([]string{"job.enqueued", "job.started", "job.completed"}, w.types(id)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	history, err := w.Attempts(t.Context(), id)
	if err != nil || len(history) != 1 || history[0].Outcome != "completed" {
		t.Errorf("attempts %+v, %v", history, err)
	}
}

// testJ1RetriesRun: a retry's time is written down, and the retry runs.
func testJ1RetriesRun(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	register(t, w, "flaky", func(_ context.Context, r *job.Run, _ none) (string, error) {
		if r.Attempt() < 3 {
			return "", fmt.Errorf("wrong %d", r.Attempt())
		}
		return "right", nil
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "flaky", Backoff: fast()})
	w.await(t, id, "job.completed")
	want := []string{"job.enqueued", "job.started", "job.retrying", "job.available", "job.started", "job.retrying", "job.available",
		"job.started", "job.completed"}
	if diff := cmp.Diff(want, w.types(id)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	history, err := w.Attempts(t.Context(), id)
	must(t, err)
	var outcomes []string
	for _, a := range history {
		outcomes = append(outcomes, a.Outcome+" "+a.Error)
	}
	if diff := cmp.Diff([]string{"failed wrong 1", "failed wrong 2", "completed "}, outcomes); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func testOutcomes(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	outcomes := map[string]error{"fails": errors.New("wrong"), "discards": job.Discard(errors.New("useless")),
		"cancels": job.Cancel(errors.New("not wanted"))}
	for name, err := range outcomes {
		register(t, w, name, func(context.Context, *job.Run, none) (none, error) { return none{}, err })
	}
	register(t, w, "panics", func(context.Context, *job.Run, none) (none, error) { panic("oh") })
	register(t, w, "typed", func(context.Context, *job.Run, int) (none, error) { return none{}, nil })
	w.start(t)
	for _, c := range []struct {
		spec         job.Spec
		event, error string
		state        job.State
		attempts     int
	}{
		{job.Spec{Name: "fails", MaxAttempts: 2, Backoff: fast()}, "job.failed", "wrong", job.Failed, 2},
		{job.Spec{Name: "discards"}, "job.discarded", "useless", job.Discarded, 1},
		{job.Spec{Name: "cancels"}, "job.cancelled", "not wanted", job.Cancelled, 1},
		{job.Spec{Name: "panics", MaxAttempts: 1}, "job.failed", "panic: oh\n", job.Failed, 1},
		{job.Spec{Name: "typed", Args: []byte(`"x"`)}, "job.discarded", "args: json", job.Discarded, 1},
	} {
		id := w.enqueue(t, c.spec)
		w.await(t, id, c.event)
		j := w.get(t, id)
		if j.State != c.state || !strings.HasPrefix(j.Error, c.error) || j.Attempt != c.attempts {
			t.Errorf("%s: %s after %d attempts with %q; want %s, %d, %q", c.spec.Name, j.State, j.Attempt, j.Error, c.state, c.attempts, c.error)
		}
	}
}

func testSnoozeDoesNotCount(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	var calls atomic.Int32
	register(t, w, "later", func(context.Context, *job.Run, none) (none, error) {
		if calls.Add(1) < 4 {
			return none{}, job.Snooze(time.Millisecond)
		}
		return none{}, nil
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "later", MaxAttempts: 1})
	w.await(t, id, "job.completed")
	if j := w.get(t, id); j.Attempt != 1 || j.Epoch != 4 {
		t.Errorf("attempt %d, epoch %d; want 1, 4", j.Attempt, j.Epoch)
	}
}

// testJ8TimeoutIsTheReason: what is reported is the timeout, not what the handler
// made of it.
func testJ8TimeoutIsTheReason(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	register(t, w, "slow", func(ctx context.Context, _ *job.Run, _ none) (none, error) {
		<-ctx.Done()
		return none{}, ctx.Err()
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "slow", MaxAttempts: 1, Timeout: time.Millisecond})
	w.await(t, id, "job.failed")
	if j := w.get(t, id); j.Error != "the attempt took longer than 1ms" {
		t.Errorf("error %q", j.Error)
	}
}

// testJ9CancelKeepsHistory: a running job is cancelled, its end is seen, and it
// stays to be looked at.
func testJ9CancelKeepsHistory(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	register(t, w, "long", func(ctx context.Context, _ *job.Run, _ none) (none, error) {
		<-ctx.Done()
		return none{}, ctx.Err()
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "long"})
	w.await(t, id, "job.started")
	_, err := w.Cancel(t.Context(), id)
	must(t, err)
	w.await(t, id, "job.cancelled")
	if diff := cmp.Diff([]string{"job.enqueued", "job.started", "job.cancelling", "job.cancelled"}, w.types(id)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if _, err := w.Cancel(t.Context(), id); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a second cancel: %v, want conflict", err)
	}
	waiting := w.enqueue(t, job.Spec{Name: "long", At: time.Now().Add(time.Hour)})
	if state, err := w.Cancel(t.Context(), waiting); state != job.Cancelled || err != nil {
		t.Errorf("cancel of a waiting job: %s, %v", state, err)
	}
	// J22: by hand it is retried and deleted.
	if state, err := w.Retry(t.Context(), waiting); state != job.Available || err != nil {
		t.Errorf("retry: %s, %v", state, err)
	}
	w.await(t, waiting, "job.started")
	if err := w.Delete(t.Context(), waiting); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("delete of a running job: %v, want conflict", err)
	}
	must(t, w.Delete(t.Context(), id))
	if _, err := w.Get(t.Context(), id); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("after its deletion: %v, want not found", err)
	}
}

// testJ3CrashedNodeLosesNoJob starts a second engine over the database of one that
// never ended: what that was running is run again, and its late end is refused.
func testJ3CrashedNodeLosesNoJob(t *testing.T, newStore opener) {
	s := newStore(t)
	// One worker, which is held up: what is lost cannot come back to it.
	dead := open(t, s, job.Options{Node: "a", Workers: 1})
	release := make(chan struct{})
	began := make(chan int, 2)
	handler := func(_ context.Context, r *job.Run, _ none) (int, error) {
		began <- r.Attempt()
		if r.Attempt() == 1 {
			<-release
		}
		return r.Attempt(), nil
	}
	register(t, dead, "x", handler)
	dead.start(t)
	id := dead.enqueue(t, job.Spec{Name: "x"})
	<-began
	w := open(t, s, job.Options{Node: "a"})
	register(t, w, "x", handler)
	w.start(t)
	w.await(t, id, "job.completed")
	close(release)
	w.await(t, id, "job.late") // J11: the end of the first attempt changes nothing
	if j := w.get(t, id); j.State != job.Completed || string(j.Result) != "2" || j.Attempt != 2 {
		t.Errorf("the job is %s with %s after %d attempts", j.State, j.Result, j.Attempt)
	}
	history, err := w.Attempts(t.Context(), id)
	if err != nil || len(history) != 2 || history[0].Outcome != "lost" {
		t.Errorf("history %+v, %v", history, err)
	}
}

// testJ16StopHandsBack: a job that is ended by a stop loses no attempt and runs
// after the next start.
func testJ16StopHandsBack(t *testing.T, newStore opener) {
	s := newStore(t)
	w := open(t, s, job.Options{})
	register(t, w, "x", func(ctx context.Context, _ *job.Run, _ none) (none, error) {
		<-ctx.Done()
		return none{}, ctx.Err()
	})
	must(t, w.Start(t.Context()))
	id := w.enqueue(t, job.Spec{Name: "x", MaxAttempts: 1})
	w.await(t, id, "job.started")
	must(t, w.Stop(t.Context()))
	if j := w.get(t, id); j.State != job.Available || j.Attempt != 0 {
		t.Errorf("after the stop it is %s at attempt %d", j.State, j.Attempt)
	}
	if nodes, err := w.Nodes(t.Context()); err != nil || len(nodes) != 0 {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	next := open(t, s, job.Options{})
	register(t, next, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	next.start(t)
	next.await(t, id, "job.completed")
}

func testFinishHappensOnce(t *testing.T, newStore opener) {
	s := newStore(t)
	w := open(t, s, job.Options{})
	register(t, w, "effect", func(ctx context.Context, r *job.Run, _ none) (none, error) {
		return none{}, w.store.Update(ctx, func(tx store.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO counter (name, next) VALUES ($1, 1)`, fmt.Sprint("effect", r.ID())); err != nil {
				return err
			}
			return r.Finish(ctx, tx, "done")
		})
	})
	w.start(t)
	id := w.enqueue(t, job.Spec{Name: "effect"})
	w.await(t, id, "job.completed")
	must(t, w.Stop(t.Context()))
	if diff := cmp.Diff([]string{"job.enqueued", "job.started", "job.completed"}, w.types(id)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if j := w.get(t, id); string(j.Result) != `"done"` {
		t.Errorf("result %s", j.Result)
	}
}

func testUniqueKeys(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	gate := make(chan struct{})
	register(t, w, "x", func(context.Context, *job.Run, none) (none, error) {
		<-gate
		return none{}, nil
	})
	defer close(gate)
	put := func(u job.Unique) job.Enqueued {
		got, err := w.Enqueue(t.Context(), job.Spec{Name: "x", Unique: u})
		must(t, err)
		return got[0]
	}
	pending, active := job.Unique{Key: "p", Scope: job.WhilePending}, job.Unique{Key: "a", Scope: job.WhileActive}
	period := job.Unique{Key: "t", Scope: job.WithinPeriod, Period: time.Hour}
	first := map[string]job.Enqueued{}
	for _, u := range []job.Unique{pending, active, period} {
		first[u.Key] = put(u)
		if again := put(u); !again.Duplicate || again.ID != first[u.Key].ID {
			t.Errorf("%s: a second one while it waits is %+v", u.Key, again)
		}
	}
	w.start(t)
	for _, e := range first {
		w.await(t, e.ID, "job.started")
	}
	if put(pending).Duplicate {
		t.Error("while the first runs, a second one unique while pending is refused")
	}
	if !put(active).Duplicate {
		t.Error("while the first runs, a second one unique while active is taken")
	}
	for range 4 { // the three, and the second one
		gate <- struct{}{}
	}
	for _, e := range first {
		w.await(t, e.ID, "job.completed")
	}
	if put(active).Duplicate {
		t.Error("after the first, a second one unique while active is refused")
	}
	if !put(period).Duplicate {
		t.Error("within the period a second one is taken")
	}
	for range 2 {
		if put(job.Unique{Key: "s", Scope: job.WithinPeriod, Period: 1}).Duplicate {
			t.Error("after its period of a nanosecond one is refused")
		}
	}
}

func testBadInput(t *testing.T, newStore opener) {
	w := open(t, newStore(t), job.Options{})
	register(t, w, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	for text, s := range map[string]job.Spec{
		"no handler":         {Name: "y"},
		"args: cannot have":  {Name: "x", Args: []byte(`"` + strings.Repeat("a", 20<<20) + `"`)},
		"args: cannot be":    {Name: "x", Args: []byte(`{`)},
		"queue: cannot be":   {Name: "x", Queue: "a b"},
		"priority: cannot":   {Name: "x", Priority: 2000},
		"max_attempts: cann": {Name: "x", MaxAttempts: -1},
		"deadline: cannot":   {Name: "x", Deadline: time.Now().Add(-time.Hour)},
		"tags: cannot":       {Name: "x", Tags: []string{"a,b"}},
		"unique: needs":      {Name: "x", Unique: job.Unique{Key: "a"}},
	} {
		_, err := w.Enqueue(t.Context(), s)
		if err == nil || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
	err := job.Register(w.Engine, "x", func(context.Context, *job.Run, none) (none, error) { return none{}, nil })
	if api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a second handler: %v, want conflict", err)
	}
}
