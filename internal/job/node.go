package job

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// Node is a server that shares the database.
type Node struct {
	ID, Name      string
	Started, Seen time.Time
}

// Nodes returns the nodes whose lease was not taken from them.
func (e *Engine) Nodes(ctx context.Context) (out []Node, err error) {
	err = e.store.View(ctx, func(r store.Reader) error {
		out = nil
		rows, err := r.Rows(ctx, `SELECT id, name, started_at, seen_at FROM node ORDER BY name, started_at`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n Node
			var started, seen int64
			if err := rows.Scan(&n.ID, &n.Name, &started, &seen); err != nil {
				return err
			}
			n.Started, n.Seen = moment(started), moment(seen)
			out = append(out, n)
		}
		return rows.Err()
	})
	return out, err
}

// databaseNow is the one clock by which leases are judged: nodes' clocks differ.
func databaseNow(ctx context.Context, r store.Reader, d store.Dialect) (time.Time, error) {
	if d == store.SQLite {
		return time.Now(), nil
	}
	var n int64
	err := r.Row(ctx, `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`).Scan(&n)
	return time.UnixMicro(n).UTC(), err
}

// join makes this node known under a new id. Whoever had its name before is dead:
// one server at a time owns a state directory.
func (e *Engine) join(ctx context.Context) error {
	return e.store.Update(ctx, func(tx store.Tx) error {
		now, err := databaseNow(ctx, tx, e.store.Dialect())
		if err != nil {
			return err
		}
		id := fmt.Sprintf("%s-%d-%d", e.o.Node, os.Getpid(), now.UnixNano())
		e.setNode(id, time.Now())
		if e.store.Dialect() == store.SQLite {
			_, err = tx.Exec(ctx, `DELETE FROM node`)
		} else {
			_, err = tx.Exec(ctx, `DELETE FROM node WHERE name = $1`, e.o.Node)
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO node (id, name, started_at, seen_at) VALUES ($1, $2, $3, $3)`, id, e.o.Node, nanos(now))
		tx.Emit(api.Event{Type: "node.joined", Time: now, Data: []byte(fmt.Sprintf(`{"node":%q}`, id))})
		return err
	})
}

// renew holds on to the lease. held is false when another node has taken it.
func (e *Engine) renew(ctx context.Context) (held bool, err error) {
	began := time.Now()
	err = e.store.Update(ctx, func(tx store.Tx) error {
		now, err := databaseNow(ctx, tx, e.store.Dialect())
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE node SET seen_at = $1 WHERE id = $2`, nanos(now), e.node)
		held = n == 1
		return err
	})
	if err == nil && held {
		e.setNode(e.node, began)
	}
	return held, err
}

// reap gives the jobs of nodes that are gone back to their queues: first the
// leases that ran out are taken, then whatever a node that is not known holds.
// Any number of nodes may do it at once.
func (e *Engine) reap(ctx context.Context) error {
	return e.store.Update(ctx, func(tx store.Tx) error {
		now, err := databaseNow(ctx, tx, e.store.Dialect())
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `DELETE FROM node WHERE seen_at < $1`, nanos(now.Add(-e.o.Lease)))
		if err != nil {
			return err
		}
		if n > 0 {
			tx.Emit(api.Event{Type: "node.lost", Time: now, Data: []byte(fmt.Sprintf(`{"nodes":%d,"by":%q}`, n, e.node))})
		}
		for {
			jobs, err := selectJobs(ctx, tx, `WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM node WHERE node.id = job.owner)
				ORDER BY id LIMIT $1`+e.store.Dialect().SkipLocked(), sweepBatch)
			if err != nil || len(jobs) == 0 {
				return err
			}
			if err := e.stepAll(ctx, tx, jobs, Input{Kind: OnLost, Now: now}); err != nil {
				return err
			}
		}
	})
}

// stepAll gives one input to many jobs and wakes the queues of those that may run.
func (e *Engine) stepAll(ctx context.Context, tx store.Tx, jobs []*Job, in Input) error {
	changes := make([]*change, len(jobs))
	for i, j := range jobs {
		changes[i] = &change{job: j, in: in}
		changes[i].in.Epoch, changes[i].in.Roll = j.Epoch, e.roll()
	}
	verdicts, err := save(ctx, tx, changes)
	if err != nil {
		return err
	}
	queues, due := map[string]bool{}, time.Time{}
	for i, v := range verdicts {
		switch v.Status.State {
		case Available:
			queues[jobs[i].Queue] = true
		case Scheduled, Retryable:
			if due.IsZero() || v.Status.Due.Before(due) {
				due = v.Status.Due
			}
		}
	}
	tx.Then(func() { e.wake(queues, due) })
	return nil
}
