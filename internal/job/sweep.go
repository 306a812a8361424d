package job

import (
	"context"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/store"
)

// sweepBatch bounds the jobs of one transaction of the sweeps.
const sweepBatch = 500

// promote makes the jobs available whose time has come, and notes when the next
// one's comes.
func (e *Engine) promote(ctx context.Context, now time.Time) error {
	for full := true; full; {
		err := e.store.Update(ctx, func(tx store.Tx) error {
			jobs, err := selectJobs(ctx, tx, `WHERE state IN ('scheduled', 'retryable') AND due_at <= $1 ORDER BY due_at LIMIT $2`+
				e.store.Dialect().SkipLocked(), nanos(now), sweepBatch)
			full = len(jobs) == sweepBatch
			if err != nil || len(jobs) == 0 {
				return err
			}
			return e.stepAll(ctx, tx, jobs, Input{Kind: OnPromote, Now: now})
		})
		if err != nil {
			return err
		}
	}
	e.mu.Lock()
	e.due = time.Time{}
	e.mu.Unlock()
	// A job that is put meanwhile tells its time itself; rouse keeps the earlier.
	return e.store.View(ctx, func(r store.Reader) error {
		var next int64
		err := r.Row(ctx, `SELECT coalesce(min(due_at), 0) FROM job WHERE state IN ('scheduled', 'retryable')`).Scan(&next)
		e.rouse(nil, moment(next))
		return err
	})
}

// poll looks for everything that no wake-up may have told of.
func (e *Engine) poll(ctx context.Context, now time.Time) error {
	e.abandon(now)
	if err := e.reclaim(ctx, now); err != nil {
		return err
	}
	if err := e.obey(ctx); err != nil {
		return err
	}
	if err := e.flush(ctx, now); err != nil {
		return err
	}
	if err := e.expire(ctx, now); err != nil {
		return err
	}
	if e.store.Dialect() != store.SQLite { // there every other node is dead, and Start has seen to it
		if err := e.reap(ctx); err != nil {
			return err
		}
	}
	if !now.Before(e.next.retain) {
		if err := e.retain(ctx, now); err != nil {
			return err
		}
		e.next.retain = now.Add(time.Hour)
	}
	if err := e.promote(ctx, now); err != nil {
		return err
	}
	e.rouse(map[string]bool{"": true}, time.Time{})
	return nil
}

// runs returns the attempts of this node.
func (e *Engine) runs() []*Run {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*Run, 0, len(e.running))
	for _, r := range e.running {
		out = append(out, r)
	}
	return out
}

// abandon gives up the attempts whose handlers go on although their context ended
// a while ago. A goroutine cannot be killed: it keeps its place among the workers
// until it returns, and the job does not wait for it.
func (e *Engine) abandon(now time.Time) {
	for _, r := range e.runs() {
		if !r.overdue() {
			continue
		}
		if r.over.IsZero() {
			r.over = now
		}
		if now.Sub(r.over) < e.o.Grace {
			continue
		}
		ghost := &Run{engine: e, job: r.job, outcome: Input{Kind: OnFail, Now: now, Epoch: r.job.Epoch, Roll: e.roll(),
			Error: "its handler did not return " + e.o.Grace.String() + " after its end was asked for"}}
		e.mu.Lock()
		delete(e.running, r.job.ID)
		e.mu.Unlock()
		e.ended = append(e.ended, ghost)
	}
}

// obey ends the attempts of this node whose job somebody has asked to end, also
// through another node.
func (e *Engine) obey(ctx context.Context) error {
	runs := e.runs()
	if len(runs) == 0 {
		return nil
	}
	var asked map[int64]int64 // job to epoch
	err := e.store.View(ctx, func(r store.Reader) error {
		asked = map[int64]int64{}
		rows, err := r.Rows(ctx, `SELECT id, epoch FROM job WHERE state = 'running' AND cancel_asked = 1 AND owner = $1`, e.node)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, epoch int64
			if err := rows.Scan(&id, &epoch); err != nil {
				return err
			}
			asked[id] = epoch
		}
		return rows.Err()
	})
	for _, r := range runs {
		if epoch, ok := asked[r.job.ID]; ok && epoch == r.job.Epoch {
			r.cancel(errCancelled)
		}
	}
	return err
}

// reclaim gives back what a transaction claimed whose answer was lost: the rows say
// that this node runs it, and it does not.
func (e *Engine) reclaim(ctx context.Context, now time.Time) error {
	if !e.unsure {
		return nil
	}
	here := map[int64]int64{}
	for _, r := range e.runs() {
		here[r.job.ID] = r.job.Epoch
	}
	err := e.store.Update(ctx, func(tx store.Tx) error {
		jobs, err := selectJobs(ctx, tx, `WHERE state = 'running' AND owner = $1`+e.store.Dialect().ForUpdate(), e.node)
		if err != nil {
			return err
		}
		jobs = slices.DeleteFunc(jobs, func(j *Job) bool { return here[j.ID] == j.Epoch })
		return e.stepAll(ctx, tx, jobs, Input{Kind: OnRelease, Now: now})
	})
	e.unsure = err != nil
	return err
}

// flush writes progress and log lines down.
func (e *Engine) flush(ctx context.Context, now time.Time) error {
	var waiting []*Run
	for _, r := range e.runs() {
		r.mu.Lock()
		if !r.told || len(r.lines) > 0 {
			waiting = append(waiting, r)
		}
		r.mu.Unlock()
	}
	if len(waiting) == 0 {
		return nil
	}
	return e.store.Update(ctx, func(tx store.Tx) error {
		for _, r := range waiting {
			if err := r.flushLog(ctx, tx); err != nil {
				return err
			}
			r.mu.Lock()
			told, progress, message := r.told, r.progress, r.message
			r.mu.Unlock()
			if told {
				continue
			}
			n, err := tx.Exec(ctx, `UPDATE job SET progress = $1, message = $2 WHERE id = $3 AND epoch = $4 AND state = 'running'`,
				progress, message, r.job.ID, r.job.Epoch)
			if err != nil {
				return err
			}
			if n == 1 {
				tx.Emit(r.job.event("job.progress", now, "percent", progress, "message", message))
			}
			tx.Then(func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.told = r.progress == progress && r.message == message
			})
		}
		return nil
	})
}

// expire fails what waited beyond its deadline.
func (e *Engine) expire(ctx context.Context, now time.Time) error {
	return e.store.Update(ctx, func(tx store.Tx) error {
		jobs, err := selectJobs(ctx, tx, `WHERE deadline > 0 AND deadline <= $1 AND state IN ('scheduled', 'available', 'retryable')
			ORDER BY deadline LIMIT $2`+e.store.Dialect().SkipLocked(), nanos(now), sweepBatch)
		if err != nil || len(jobs) == 0 {
			return err
		}
		return e.stepAll(ctx, tx, jobs, Input{Kind: OnExpire, Now: now})
	})
}

// retain removes final jobs that are old, with their attempts and logs.
func (e *Engine) retain(ctx context.Context, now time.Time) error {
	for full := true; full; {
		err := e.store.Update(ctx, func(tx store.Tx) error {
			jobs, err := selectJobs(ctx, tx, `WHERE ended_at > 0 AND ended_at < $1 ORDER BY ended_at LIMIT $2`+e.store.Dialect().SkipLocked(),
				nanos(now.Add(-e.o.Retention)), sweepBatch)
			full = len(jobs) == sweepBatch
			if err != nil {
				return err
			}
			return remove(ctx, tx, jobs)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func remove(ctx context.Context, tx store.Tx, jobs []*Job) error {
	ids := make([][]any, len(jobs))
	for i, j := range jobs {
		ids[i] = []any{j.ID}
	}
	for _, query := range []string{`DELETE FROM job_log WHERE job = $1`, `DELETE FROM job_attempt WHERE job = $1`, `DELETE FROM job WHERE id = $1`} {
		if _, err := tx.Many(ctx, query, ids); err != nil {
			return err
		}
	}
	return nil
}
