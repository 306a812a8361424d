package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// Why the context of an attempt ends before its handler returns.
var (
	errStopping  = errors.New("the node stops")
	errLeaseLost = errors.New("the lease of the node was lost")
	errCancelled = errors.New("the job was cancelled")
	errTimeout   = errors.New("the attempt took too long")
)

// handler runs one attempt.
type handler func(ctx context.Context, r *Run) (json.RawMessage, error)

// Register names the handler of a kind of job. Its arguments are decoded from JSON
// and its result is encoded to it; arguments that do not fit discard the job. The
// context ends when the job is cancelled, its attempt takes too long, or the node
// stops or loses its lease. A handler that is registered twice is CodeConflict.
func Register[A, R any](e *Engine, name string, h func(ctx context.Context, r *Run, args A) (R, error)) error {
	if !validName(name) {
		return wrong("name", "cannot be %.140q: it is letters, digits, '_', '-' and '.', at most %d of them", name, maxName)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.handlers[name] != nil {
		return api.Errorf(api.CodeConflict, "Job handler %q is already registered", name)
	}
	e.handlers[name] = func(ctx context.Context, r *Run) (json.RawMessage, error) {
		var args A
		if len(r.job.Args) > 0 {
			if err := json.Unmarshal(r.job.Args, &args); err != nil {
				return nil, Discard(fmt.Errorf("args: %w", err))
			}
		}
		result, err := h(ctx, r, args)
		if err != nil {
			return nil, err
		}
		return json.Marshal(result)
	}
	return nil
}

func (e *Engine) handler(name string) handler {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.handlers[name]
}

// verdictError is how a handler says more than that it has failed.
type verdictError struct {
	kind  Kind
	delay time.Duration
	err   error
}

func (v *verdictError) Error() string {
	if v.err == nil {
		return v.kind.String()
	}
	return v.err.Error()
}

func (v *verdictError) Unwrap() error { return v.err }

// Snooze makes the job wait without counting the attempt.
func Snooze(d time.Duration) error { return &verdictError{kind: OnSnooze, delay: d} }

// Discard gives the job up: no further attempt.
func Discard(err error) error { return &verdictError{kind: OnDiscard, err: err} }

// Cancel ends the job as cancelled.
func Cancel(err error) error { return &verdictError{kind: OnCancel, err: err} }

// RetryAfter fails the attempt and says itself after what wait the next one is due.
func RetryAfter(d time.Duration, err error) error {
	return &verdictError{kind: OnFail, delay: d, err: err}
}

// Run is one attempt, as its handler sees it. Its methods may be called by many
// goroutines at once until the handler returns.
type Run struct {
	engine *Engine
	job    *Job
	ctx    context.Context //nolint:containedctx // of the attempt; the engine ends it and sees its end
	cancel context.CancelCauseFunc

	outcome Input           // how it ended; written before the engine is told
	result  json.RawMessage // of Complete
	gaveUp  bool            // its handler asked to be cancelled
	settled bool            // its end is written down already; guarded by engine.mu
	over    time.Time       // when the engine saw its context ended

	mu       sync.Mutex
	progress float64
	message  string
	told     bool // progress is written down
	lines    []line
	dropped  int
	number   int64 // lines written down
}

// line is one line of an attempt's log.
type line struct {
	time           time.Time
	level, message string
}

// The bounds of an attempt's log: what waits to be written, and one line.
const (
	maxLines = 1000
	maxLine  = 8 << 10
)

// ID is the job's number.
func (r *Run) ID() int64 { return r.job.ID }

// Job is the job as it was when the attempt began.
func (r *Run) Job() Job { return *r.job }

// Attempt counts the attempts that count, from 1.
func (r *Run) Attempt() int { return r.job.Attempt }

// Epoch is the fencing token: a later holder's is higher.
func (r *Run) Epoch() int64 { return r.job.Epoch }

// Progress says how far the attempt is, 0 to 100, with a word about it. It is
// written down, and told as job.progress, about once a second.
func (r *Run) Progress(percent float64, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress, r.message, r.told = min(max(percent, 0), 100), message[:min(len(message), maxLine)], false
}

// Log keeps a line with the job. Lines are written down about once a second and
// at the attempt's end; of more than a thousand in between the rest is counted.
func (r *Run) Log(level, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == maxLines {
		r.dropped++
		return
	}
	r.lines = append(r.lines, line{time.Now(), level, message[:min(len(message), maxLine)]})
}

// Emit appends an event of the handler's own.
func (r *Run) Emit(ctx context.Context, event string, data any) error {
	if !validName(event) {
		return wrong("event", "cannot be %.140q: it is letters, digits, '_', '-' and '.'", event)
	}
	return r.engine.store.Update(ctx, func(tx store.Tx) error {
		tx.Emit(r.job.event("job.event", time.Now(), "event", event, "data", data))
		return nil
	})
}

// Live returns an error, and so undoes tx, unless this attempt still holds the
// job. In a transaction with it, the effects of an attempt that lost its job are
// never seen.
func (r *Run) Live(ctx context.Context, tx store.Tx) error {
	var epoch int64
	err := tx.Row(ctx, `SELECT epoch FROM job WHERE id = $1 AND state = 'running'`+r.engine.store.Dialect().ForUpdate(), r.job.ID).Scan(&epoch)
	if errors.Is(err, store.ErrNoRows) || err == nil && epoch != r.job.Epoch {
		return r.lost()
	}
	return err
}

func (r *Run) lost() error {
	return api.Errorf(api.CodeConflict, "attempt %d of job %d no longer holds it", r.job.Epoch, r.job.ID)
}

// Finish completes the job in a transaction of the handler's own, so that its
// effect and its end happen together, once. What the handler returns afterwards is
// not looked at. When another holds the job tx is undone.
func (r *Run) Finish(ctx context.Context, tx store.Tx, result any) error {
	b, err := json.Marshal(result)
	if err != nil {
		return Discard(fmt.Errorf("result: %w", err))
	}
	if err := r.Live(ctx, tx); err != nil {
		return err
	}
	_, err = save(ctx, tx, []*change{{job: r.job, in: Input{Kind: OnComplete, Now: time.Now(), Epoch: r.job.Epoch}, result: b}})
	tx.Then(func() { r.engine.settled(r) })
	return err
}

func (e *Engine) settled(r *Run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.settled = true
	delete(e.running, r.job.ID)
}

// overdue says whether the handler goes on although its context has ended.
func (r *Run) overdue() bool { return r.ctx.Err() != nil }

// launch starts the handler of a job that this node has claimed.
func (e *Engine) launch(j *Job) {
	ctx, cancel := context.WithCancelCause(e.base)
	stop := func() {}
	if limit := limit(j); limit > 0 {
		ctx, stop = context.WithTimeoutCause(ctx, limit, errTimeout)
	}
	r := &Run{engine: e, job: j, ctx: ctx, cancel: cancel, told: true}
	e.busy++
	e.mu.Lock()
	e.running[j.ID] = r
	h := e.handlers[j.Name]
	e.mu.Unlock()
	go func() {
		defer e.returned(r)
		defer cancel(nil)
		defer stop()
		r.run(ctx, h)
	}()
}

// noHandler is how long a job waits whose handler this node does not have.
const noHandler = 30 * time.Second

// run calls the handler and says how it ended.
func (r *Run) run(ctx context.Context, h handler) {
	r.outcome = Input{Kind: OnComplete, Epoch: r.job.Epoch, Roll: r.engine.roll()}
	if h == nil {
		r.outcome.Kind, r.outcome.Delay, r.outcome.Now = OnSnooze, noHandler, time.Now()
		return
	}
	result, err := r.call(ctx, h)
	r.outcome.Now = time.Now()
	if err == nil && len(result) > maxArgs {
		err = Discard(fmt.Errorf("its result has %d bytes, more than 1 MiB: put it into a file and return its path", len(result)))
	}
	if err == nil {
		r.result = result
		return
	}
	r.fail(ctx, err)
}

// limit is how long an attempt may take, 0 for ever.
func limit(j *Job) time.Duration {
	limit := j.Timeout
	if d := j.Status.Deadline; !d.IsZero() {
		if left := max(time.Until(d), time.Nanosecond); limit == 0 || left < limit {
			limit = left
		}
	}
	return limit
}

// maxStack bounds the stack of a panic in an error.
const maxStack = 4 << 10

func (r *Run) call(ctx context.Context, h handler) (result json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := debug.Stack()
			err = fmt.Errorf("panic: %v\n%s", p, stack[:min(len(stack), maxStack)])
		}
	}()
	return h(ctx, r)
}

// fail turns an error into what it means for the job. The cause of the context's
// end is said first: it was there before the handler's error.
func (r *Run) fail(ctx context.Context, err error) {
	o := &r.outcome
	o.Kind, o.Error = OnFail, err.Error()
	var v *verdictError
	if errors.As(err, &v) {
		o.Kind, o.Delay = v.kind, v.delay
		if v.kind == OnCancel {
			o.Kind, r.gaveUp = OnFail, true
		}
		return
	}
	cause := context.Cause(ctx)
	switch {
	case cause == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, cause):
	case errors.Is(cause, errStopping), errors.Is(cause, errLeaseLost):
		o.Kind, o.Error = OnRelease, ""
	case errors.Is(cause, errTimeout):
		o.Error = fmt.Sprintf("the attempt took longer than %s", r.limitText())
	case errors.Is(cause, errCancelled):
		o.Error = cause.Error()
	}
}

func (r *Run) limitText() string {
	if r.job.Timeout > 0 {
		return r.job.Timeout.String()
	}
	return "its deadline allows"
}

// flushLog writes the lines that wait.
func (r *Run) flushLog(ctx context.Context, tx store.Tx) error {
	r.mu.Lock()
	lines, dropped, number := r.lines, r.dropped, r.number
	r.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	if dropped > 0 {
		lines = append(lines[:len(lines):len(lines)], line{time.Now(), "warn", fmt.Sprintf("%d more lines were too many to keep", dropped)})
	}
	rows := make([][]any, len(lines))
	for i, l := range lines {
		rows[i] = []any{r.job.ID, r.job.Epoch<<32 + number + int64(i), r.job.Epoch, nanos(l.time), l.level, l.message}
	}
	n := len(lines)
	tx.Then(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if dropped > 0 {
			n-- // the line that counts them never was among them
		}
		r.lines, r.dropped, r.number = append([]line(nil), r.lines[n:]...), r.dropped-dropped, number+int64(len(rows))
	})
	_, err := tx.Many(ctx, `INSERT INTO job_log (job, line, epoch, time, level, message) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, rows)
	return err
}
