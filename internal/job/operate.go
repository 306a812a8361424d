package job

import (
	"context"
	"errors"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// Cancel asks for the end of a job. One that waits is cancelled at once; the
// context of one that runs ends, and it is cancelled when its handler returns an
// error. A job that completes nevertheless is completed. It returns the job's
// state; what is final is CodeConflict.
func (e *Engine) Cancel(ctx context.Context, id int64) (State, error) {
	return e.operate(ctx, id, OnCancel)
}

// Retry starts a waiting job now, or gives one that failed, was cancelled or was
// discarded another attempt. Otherwise it is CodeConflict.
func (e *Engine) Retry(ctx context.Context, id int64) (State, error) {
	return e.operate(ctx, id, OnRetry)
}

func (e *Engine) operate(ctx context.Context, id int64, kind Kind) (state State, err error) {
	err = e.store.Update(ctx, func(tx store.Tx) error {
		state, err = e.step(ctx, tx, id, kind)
		return err
	})
	return state, err
}

// CancelIn is Cancel as a part of a transaction.
func (e *Engine) CancelIn(ctx context.Context, tx store.Tx, id int64) (State, error) {
	return e.step(ctx, tx, id, OnCancel)
}

func (e *Engine) step(ctx context.Context, tx store.Tx, id int64, kind Kind) (State, error) {
	j, err := load(ctx, tx, e.store.Dialect(), id)
	if err != nil {
		return "", err
	}
	verdicts, err := save(ctx, tx, []*change{{job: j, in: Input{Kind: kind, Now: time.Now()}}})
	if err != nil {
		return "", err
	}
	v := verdicts[0]
	if v.Refused != "" {
		return "", api.Errorf(api.CodeConflict, "cannot %s job %d: %s", kind, id, v.Refused)
	}
	state := v.Status.State
	tx.Then(func() {
		switch {
		case v.Status.CancelAsked:
			e.mu.Lock()
			if r := e.running[id]; r != nil && r.job.Epoch == j.Epoch {
				r.cancel(errCancelled)
			}
			e.mu.Unlock()
			e.store.Wake("jobs") // it may run on another node
		case state == Available:
			e.wake(map[string]bool{j.Queue: true}, time.Time{})
		}
	})
	return state, nil
}

// Delete removes a final job, its attempts and its log. Any other is CodeConflict.
func (e *Engine) Delete(ctx context.Context, id int64) error {
	return e.store.Update(ctx, func(tx store.Tx) error {
		j, err := load(ctx, tx, e.store.Dialect(), id)
		if err != nil {
			return err
		}
		if !j.State.Final() {
			return api.Errorf(api.CodeConflict, "cannot delete job %d: it is %s; cancel it first", id, j.State)
		}
		tx.Emit(j.event("job.deleted", time.Now()))
		return remove(ctx, tx, []*Job{j})
	})
}

// Attempt is one attempt in a job's history.
type Attempt struct {
	Epoch   int64
	Attempt int
	Owner   string
	Started time.Time
	Ended   time.Time
	// Outcome is completed, failed, lost, snoozed, released, discarded or
	// cancelled; empty while it runs.
	Outcome, Error string
}

// Attempts returns the history of a job, oldest first.
func (e *Engine) Attempts(ctx context.Context, id int64) (out []Attempt, err error) {
	err = e.store.View(ctx, func(r store.Reader) error {
		out = nil
		j, err := scan(r.Row(ctx, `SELECT `+row+` FROM job WHERE id = $1`, id))
		if errors.Is(err, store.ErrNoRows) {
			return notFound(id)
		} else if err != nil {
			return err
		}
		rows, err := r.Rows(ctx, `SELECT epoch, attempt, owner, started_at, ended_at, outcome, error FROM job_attempt WHERE job = $1 ORDER BY epoch`, id)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var a Attempt
			var started, ended int64
			if err := rows.Scan(&a.Epoch, &a.Attempt, &a.Owner, &started, &ended, &a.Outcome, &a.Error); err != nil {
				return err
			}
			a.Started, a.Ended = moment(started), moment(ended)
			out = append(out, a)
		}
		switch j.State { // what the job's row says is not said twice
		case Running:
			out = append(out, Attempt{Epoch: j.Epoch, Attempt: j.Attempt, Owner: j.Owner, Started: j.Started})
		case Completed:
			out = append(out, Attempt{Epoch: j.Epoch, Attempt: j.Attempt, Started: j.Started, Ended: j.Ended, Outcome: "completed"})
		}
		return rows.Err()
	})
	return out, err
}
