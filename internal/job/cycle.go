package job

import (
	"context"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// collect takes the runs whose handlers have returned.
func (e *Engine) collect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy -= len(e.endedAll)
	for _, r := range e.endedAll {
		if !r.settled {
			e.ended = append(e.ended, r)
		}
	}
	clear(e.endedAll)
	e.endedAll = e.endedAll[:0]
}

// cycle is one transaction: it writes down what has ended and claims what may
// start in its place. again says that there is more of both.
func (e *Engine) cycle(ctx context.Context) (again bool, err error) { return e.cycleWith(ctx, true) }

func (e *Engine) cycleWith(ctx context.Context, claiming bool) (again bool, err error) {
	e.collect()
	e.mu.Lock()
	dirty := e.dirty
	e.dirty = map[string]bool{}
	e.mu.Unlock()
	room := e.o.Workers - e.busy
	claiming = claiming && len(dirty) > 0 && room > 0
	if len(e.ended) == 0 && !claiming {
		e.keep(dirty)
		return false, nil
	}
	var started []*Job
	var left map[string]bool
	err = e.store.Update(ctx, func(tx store.Tx) error {
		started, left = nil, map[string]bool{}
		// An error of its own: when ctx ends, Update may return before this does.
		err := e.settle(ctx, tx, dirty)
		if err == nil && claiming {
			started, left, err = e.claimAll(ctx, tx, dirty, room)
		}
		return err
	})
	if err != nil {
		e.keep(dirty)
		return false, err
	}
	if !claiming {
		left = dirty
	}
	e.keep(left)
	e.mu.Lock()
	for _, r := range e.ended {
		if e.running[r.job.ID] == r {
			delete(e.running, r.job.ID)
		}
	}
	e.mu.Unlock()
	clear(e.ended)
	e.ended = e.ended[:0]
	for _, j := range started {
		e.launch(j) //nolint:contextcheck // an attempt outlives the transaction that claimed it; Stop ends it
	}
	return len(started) > 0, nil
}

// keep marks queues to be looked at again.
func (e *Engine) keep(queues map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for q := range queues {
		e.dirty[q] = true
	}
}

// settle writes down how runs have ended. Their queues have room then.
func (e *Engine) settle(ctx context.Context, tx store.Tx, dirty map[string]bool) error {
	if len(e.ended) == 0 {
		return nil
	}
	changes := make([]*change, 0, len(e.ended))
	for _, r := range e.ended {
		c := &change{job: r.job, in: r.outcome, result: r.result}
		if r.outcome.Kind != OnComplete {
			// Whether somebody asked for its end is in the row only.
			j, err := load(ctx, tx, e.store.Dialect(), r.job.ID)
			if err != nil && api.CodeOf(err) != api.CodeNotFound {
				return err
			}
			if err == nil {
				j.CancelAsked = j.CancelAsked || r.gaveUp
				c.job = j
			}
		}
		changes = append(changes, c)
		if err := r.flushLog(ctx, tx); err != nil {
			return err
		}
	}
	verdicts, err := save(ctx, tx, changes)
	if err != nil {
		return err
	}
	queues, due := map[string]bool{}, time.Time{}
	for i, v := range verdicts {
		queues[changes[i].job.Queue] = true
		if s := v.Status; s.State == Scheduled || s.State == Retryable {
			if due.IsZero() || s.Due.Before(due) {
				due = s.Due
			}
		}
	}
	for q := range queues {
		dirty[q] = true // room for the next, in this same transaction
	}
	tx.Then(func() { e.rouse(nil, due) })
	return nil
}

// claimAll claims from each queue that may have something, in turn. left are the
// queues to be looked at again when there is room.
func (e *Engine) claimAll(ctx context.Context, tx store.Tx, dirty map[string]bool, room int) ([]*Job, map[string]bool, error) {
	all, err := queues(ctx, tx, `WHERE paused = 0`)
	if err != nil {
		return nil, nil, err
	}
	var started []*Job
	left := map[string]bool{}
	now := time.Now()
	at := 0
	if len(all) > 1 {
		at = int(now.UnixNano() % int64(len(all))) // no queue is always first
	}
	for i := range all {
		q := all[(at+i)%len(all)]
		if !dirty[""] && !dirty[q.Name] {
			continue
		}
		if room <= 0 {
			left[q.Name] = true
			continue
		}
		got, err := e.claim(ctx, tx, q, room, now)
		if err != nil {
			return nil, nil, err
		}
		if got.more {
			left[q.Name] = true
		}
		if got.wait > 0 {
			if at := now.Add(got.wait); e.next.rate.IsZero() || at.Before(e.next.rate) {
				e.next.rate = at
			}
		}
		room -= len(got.jobs)
		started = append(started, got.jobs...)
		if q.limited() && len(got.jobs) > 0 {
			tx.Then(func() { e.store.Wake("jobs") })
		}
	}
	return started, left, nil
}
