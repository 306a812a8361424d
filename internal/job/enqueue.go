package job

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// Enqueued says what became of a Spec.
type Enqueued struct {
	ID int64
	// Duplicate is set when a job with the same unique key was there: ID is its.
	Duplicate bool
}

// Enqueue writes jobs down, all of them or none, and returns their ids in the same
// order. A name without a handler is CodeNotFound.
func (e *Engine) Enqueue(ctx context.Context, specs ...Spec) ([]Enqueued, error) {
	var out []Enqueued
	put, err := e.Prepare(ctx, specs...)
	if err != nil {
		return nil, err
	}
	err = e.store.Update(ctx, func(tx store.Tx) error {
		out, err = put(ctx, tx)
		return err
	})
	return out, err
}

// Prepare checks jobs and returns a function that enqueues them as a part of a
// transaction. The function may be called again when that transaction is.
func (e *Engine) Prepare(ctx context.Context, specs ...Spec) (func(context.Context, store.Tx) ([]Enqueued, error), error) {
	now := time.Now()
	jobs := make([]*Job, len(specs))
	for i, s := range specs {
		if e.handler(s.Name) == nil {
			return nil, api.Errorf(api.CodeNotFound, "no handler is registered for job %q", s.Name)
		}
		s, err := s.filled(now)
		if err != nil {
			return nil, err
		}
		j := &Job{Spec: s, Created: now}
		j.Status = Status{State: Available, MaxAttempts: s.MaxAttempts, Due: s.At, Deadline: s.Deadline}
		if s.At.After(now) {
			j.State = Scheduled
		}
		if j.ID, err = e.ids.next(ctx, e.store); err != nil {
			return nil, err
		}
		jobs[i] = j
	}
	return func(ctx context.Context, tx store.Tx) ([]Enqueued, error) { return e.put(ctx, tx, jobs) }, nil
}

const insert = `INSERT INTO job (id, name, queue, priority, state, due_at, max_attempts, created_at, deadline, key, unique_key,
	unique_scope, unique_until, tags, options, args) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
	ON CONFLICT DO NOTHING`

func (e *Engine) put(ctx context.Context, tx store.Tx, jobs []*Job) ([]Enqueued, error) {
	out := make([]Enqueued, len(jobs))
	rows := make([][]any, len(jobs))
	for i, j := range jobs {
		if err := e.makeQueue(ctx, tx, j.Queue); err != nil {
			return nil, err
		}
		var err error
		if rows[i], err = j.values(); err != nil {
			return nil, err
		}
		if j.Unique.Scope == WithinPeriod {
			_, err := tx.Exec(ctx, `UPDATE job SET unique_key = NULL WHERE unique_key = $1 AND unique_scope = $2 AND unique_until <= $3`,
				j.Name+"\n"+j.Unique.Key, int(WithinPeriod), nanos(j.Created))
			if err != nil {
				return nil, err
			}
		}
	}
	counts, err := tx.Many(ctx, insert, rows)
	if err != nil {
		return nil, err
	}
	queues, due := map[string]bool{}, time.Time{}
	for i, j := range jobs {
		out[i].ID = j.ID
		if counts[i] == 0 {
			out[i].Duplicate = true
			err := tx.Row(ctx, `SELECT id FROM job WHERE unique_key = $1`, j.Name+"\n"+j.Unique.Key).Scan(&out[i].ID)
			if err != nil {
				return nil, err
			}
			continue
		}
		if j.State == Available {
			queues[j.Queue] = true
		} else if due.IsZero() || j.Due.Before(due) {
			due = j.Due
		}
		tx.Emit(j.event("job.enqueued", j.Created, "queue", j.Queue, "state", j.State, "dueAt", j.Due))
	}
	tx.Then(func() { e.wake(queues, due) })
	return out, nil
}

// values are the arguments of insert.
func (j *Job) values() ([]any, error) {
	opts, err := options{Backoff: j.Backoff, Timeout: j.Timeout, Meta: j.Meta, Trace: j.Trace}.text()
	if err != nil {
		return nil, err
	}
	var key, args any
	var until int64
	if j.Unique.Key != "" {
		key = j.Name + "\n" + j.Unique.Key
	}
	if j.Unique.Scope == WithinPeriod {
		until = nanos(j.Created.Add(j.Unique.Period))
	}
	if len(j.Args) > 0 {
		args = []byte(j.Args)
	}
	tags := ""
	if len(j.Tags) > 0 {
		tags = "," + strings.Join(j.Tags, ",") + ","
	}
	return []any{j.ID, j.Name, j.Queue, j.Priority, string(j.State), nanos(j.Due), j.Status.MaxAttempts, nanos(j.Created),
		nanos(j.Status.Deadline), j.Key, key, int(j.Unique.Scope), until, tags, opts, args}, nil
}

// ids hands out the numbers of jobs. It takes them from the database by the
// thousand, so that nodes need not agree on each; a restart leaves a gap.
type ids struct {
	mu          sync.Mutex
	at, through int64
}

const idBlock = 1000

func (n *ids) next(ctx context.Context, s store.Store) (int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == n.through {
		err := s.Update(ctx, func(tx store.Tx) error {
			return tx.Row(ctx, `INSERT INTO counter (name, next) VALUES ('job', $1)
				ON CONFLICT (name) DO UPDATE SET next = counter.next + $1 RETURNING next`, idBlock).Scan(&n.through)
		})
		if err != nil {
			return 0, err
		}
		n.at = n.through - idBlock
	}
	n.at++
	return n.at, nil
}

// makeQueue lets the row of a queue exist; e.known spares the statement.
func (e *Engine) makeQueue(ctx context.Context, tx store.Tx, name string) error {
	if _, ok := e.known.Load(name); ok {
		return nil
	}
	_, err := tx.Exec(ctx, `INSERT INTO queue (name) VALUES ($1) ON CONFLICT DO NOTHING`, name)
	if err == nil {
		tx.Then(func() { e.known.Store(name, true) })
	}
	return err
}

// Get returns a job.
func (e *Engine) Get(ctx context.Context, id int64) (j *Job, err error) {
	err = e.store.View(ctx, func(r store.Reader) error {
		j, err = scan(r.Row(ctx, `SELECT `+row+` FROM job WHERE id = $1`, id))
		if errors.Is(err, store.ErrNoRows) {
			return notFound(id)
		}
		return err
	})
	return j, err
}
