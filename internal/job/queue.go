package job

import (
	"context"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// Queue is a named queue and its limits, which hold over all nodes together.
type Queue struct {
	Name string
	// Concurrency is how many of its jobs run at once; 0: no limit.
	Concurrency int
	// PerKey is how many jobs of one key run at once; 0: no limit.
	PerKey int
	// Rate is how many may start in each RatePeriod; 0: no limit.
	Rate       int
	RatePeriod time.Duration
	// Paused: nothing starts; what runs goes on.
	Paused bool

	tokens float64
	filled time.Time
}

const queueRow = `name, concurrency, per_key, rate_limit, rate_period, tokens, filled_at, paused`

func scanQueue(r store.Row) (q Queue, err error) {
	var filled, paused int64
	err = r.Scan(&q.Name, &q.Concurrency, &q.PerKey, &q.Rate, &q.RatePeriod, &q.tokens, &filled, &paused)
	q.filled, q.Paused = moment(filled), paused == 1
	return q, err
}

// Queues returns all queues by name.
func (e *Engine) Queues(ctx context.Context) (out []Queue, err error) {
	err = e.store.View(ctx, func(r store.Reader) error {
		out, err = queues(ctx, r, `ORDER BY name`)
		return err
	})
	return out, err
}

func queues(ctx context.Context, r store.Reader, rest string, args ...any) (out []Queue, err error) {
	rows, err := r.Rows(ctx, `SELECT `+queueRow+` FROM queue `+rest, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		q, err := scanQueue(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, rows.Err()
}

// SetQueue sets the limits of a queue, which need not exist. It leaves Paused alone.
func (e *Engine) SetQueue(ctx context.Context, q Queue) error {
	switch {
	case !validName(q.Name):
		return wrong("queue", "cannot be %.140q: it is letters, digits, '_', '-' and '.', at most %d of them", q.Name, maxName)
	case q.Concurrency < 0 || q.PerKey < 0 || q.Rate < 0:
		return wrong("queue", "cannot have a limit below 0; 0 is none")
	case (q.Rate > 0) != (q.RatePeriod > 0):
		return wrong("queue.rate", "needs both a number and a period")
	}
	return e.store.Update(ctx, func(tx store.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO queue (name, concurrency, per_key, rate_limit, rate_period, tokens, filled_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency,
			per_key = excluded.per_key, rate_limit = excluded.rate_limit, rate_period = excluded.rate_period`,
			q.Name, q.Concurrency, q.PerKey, q.Rate, int64(q.RatePeriod), float64(q.Rate), nanos(time.Now()))
		tx.Then(func() { e.wake(map[string]bool{q.Name: true}, time.Time{}) })
		return err
	})
}

// Pause keeps the jobs of a queue from starting, or lets them start again.
func (e *Engine) Pause(ctx context.Context, name string, paused bool) error {
	return e.store.Update(ctx, func(tx store.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE queue SET paused = $1 WHERE name = $2 AND paused <> $1`, flag(paused), name)
		if err != nil {
			return err
		}
		if n == 0 {
			if _, err := queueOf(ctx, tx, name); err != nil {
				return err
			}
			return nil // it is so already
		}
		typ := "queue.resumed"
		if paused {
			typ = "queue.paused"
		}
		tx.Emit(api.Event{Type: typ, Time: time.Now(), Data: []byte(`{"queue":"` + name + `"}`)})
		tx.Then(func() { e.wake(map[string]bool{name: true}, time.Time{}) })
		return nil
	})
}

func queueOf(ctx context.Context, r store.Reader, name string) (Queue, error) {
	found, err := queues(ctx, r, `WHERE name = $1`, name)
	if err == nil && len(found) == 0 {
		err = api.Errorf(api.CodeNotFound, "there is no queue %q; look with `perdure queue list`", name)
	}
	if err != nil {
		return Queue{}, err
	}
	return found[0], nil
}

// limited says whether nodes must take turns at the queue.
func (q *Queue) limited() bool { return q.Concurrency > 0 || q.PerKey > 0 || q.Rate > 0 }

// fill adds the tokens of the time that has passed and returns how many jobs may
// start; when none, after what wait the next one may.
func (q *Queue) fill(now time.Time) (n int, wait time.Duration) {
	per := float64(q.RatePeriod) / float64(q.Rate) // a token's time
	if now.After(q.filled) {
		q.tokens = min(q.tokens+float64(now.Sub(q.filled))/per, float64(q.Rate))
		q.filled = now
	}
	if q.tokens >= 1 {
		return int(q.tokens), 0
	}
	return 0, time.Duration((1-q.tokens)*per) + time.Microsecond
}

// claimed is what one look at a queue came to.
type claimed struct {
	jobs []*Job
	more bool          // there was no room for all
	wait time.Duration // above 0: when a rate lets more start
}

// claim takes up to room jobs of a queue for this node.
func (e *Engine) claim(ctx context.Context, tx store.Tx, q Queue, room int, now time.Time) (claimed, error) {
	var out claimed
	if q.limited() {
		// The lock makes the limits exact over all nodes.
		locked, err := scanQueue(tx.Row(ctx, `SELECT `+queueRow+` FROM queue WHERE name = $1`+e.store.Dialect().ForUpdate(), q.Name))
		if err != nil {
			return out, err
		}
		q = locked
		if room, out.wait, err = allowance(ctx, tx, &q, room, now); err != nil || room <= 0 {
			return out, err
		}
	}
	for room > 0 {
		found, err := e.candidates(ctx, tx, &q, room)
		if err != nil {
			return out, err
		}
		jobs, err := e.take(ctx, tx, found, now)
		if err != nil {
			return out, err
		}
		out.jobs = append(out.jobs, jobs...)
		room -= len(jobs)
		out.more = len(found) > 0 && room == 0
		if q.PerKey == 0 || len(jobs) == 0 {
			break
		}
	}
	if q.Rate > 0 {
		_, err := tx.Exec(ctx, `UPDATE queue SET tokens = $1, filled_at = $2 WHERE name = $3`, q.tokens-float64(len(out.jobs)), nanos(q.filled), q.Name)
		return out, err
	}
	return out, nil
}

// allowance cuts room down to what the limits of a locked queue leave.
func allowance(ctx context.Context, tx store.Tx, q *Queue, room int, now time.Time) (int, time.Duration, error) {
	if q.Concurrency > 0 {
		var running int
		err := tx.Row(ctx, `SELECT count(*) FROM job WHERE queue = $1 AND state = 'running'`, q.Name).Scan(&running)
		if err != nil {
			return 0, 0, err
		}
		room = min(room, q.Concurrency-running)
	}
	if q.Rate == 0 {
		return room, 0, nil
	}
	n, wait := q.fill(now)
	return min(room, n), wait, nil
}

// candidates returns jobs that may start now. With a limit per key no more of a
// key than it leaves; what is left over comes with the next look.
func (e *Engine) candidates(ctx context.Context, tx store.Tx, q *Queue, room int) ([]*Job, error) {
	order := ` ORDER BY priority DESC, due_at, id LIMIT $2` + e.store.Dialect().SkipLocked()
	if q.PerKey == 0 {
		return selectJobs(ctx, tx, `WHERE queue = $1 AND state = 'available'`+order, q.Name, room)
	}
	found, err := selectJobs(ctx, tx, `WHERE queue = $1 AND state = 'available' AND (key = '' OR (SELECT count(*) FROM job r
		WHERE r.queue = $1 AND r.key = job.key AND r.state = 'running') < $3)`+order, q.Name, room, q.PerKey)
	if err != nil {
		return nil, err
	}
	left := map[string]int{}
	out := found[:0]
	for _, j := range found {
		if j.Key != "" {
			if _, known := left[j.Key]; !known {
				var running int
				err := tx.Row(ctx, `SELECT count(*) FROM job WHERE queue = $1 AND key = $2 AND state = 'running'`, q.Name, j.Key).Scan(&running)
				if err != nil {
					return nil, err
				}
				left[j.Key] = q.PerKey - running
			}
			if left[j.Key] <= 0 {
				continue
			}
			left[j.Key]--
		}
		out = append(out, j)
	}
	return out, nil
}

// take makes this node the owner of jobs and returns them as they are then.
func (e *Engine) take(ctx context.Context, tx store.Tx, found []*Job, now time.Time) ([]*Job, error) {
	if len(found) == 0 {
		return nil, nil
	}
	changes := make([]*change, len(found))
	for i, j := range found {
		changes[i] = &change{job: j, in: Input{Kind: OnClaim, Now: now, Owner: e.node}}
	}
	verdicts, err := save(ctx, tx, changes)
	if err != nil {
		return nil, err
	}
	var out []*Job
	for i, c := range changes {
		if !c.late {
			c.job.Status = verdicts[i].Status
			out = append(out, c.job)
		}
	}
	return out, nil
}
