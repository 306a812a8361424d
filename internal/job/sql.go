package job

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/store"
)

// row is what a statement about jobs selects; scan reads it in this order.
const row = `id, name, queue, priority, state, due_at, attempt, max_attempts, epoch, owner, created_at, started_at, ended_at,
	deadline, cancel_asked, key, unique_scope, tags, options, progress, message, error, args, result`

func scan(r store.Row) (*Job, error) {
	var j Job
	var due, created, started, ended, deadline, asked int64
	var tags, opts string
	var args, result []byte
	err := r.Scan(&j.ID, &j.Name, &j.Queue, &j.Priority, &j.State, &due, &j.Attempt, &j.Status.MaxAttempts, &j.Epoch, &j.Owner, &created,
		&started, &ended, &deadline, &asked, &j.Key, &j.Unique.Scope, &tags, &opts, &j.Progress, &j.Message, &j.Error, &args, &result)
	if err != nil {
		return nil, err
	}
	j.Due, j.Created, j.Started, j.Ended, j.Status.Deadline = moment(due), moment(created), moment(started), moment(ended), moment(deadline)
	j.Spec.MaxAttempts, j.Spec.Deadline, j.At = j.Status.MaxAttempts, j.Status.Deadline, j.Due
	j.CancelAsked, j.Args, j.Result = asked == 1, args, result
	if tags != "" {
		j.Tags = strings.Split(strings.Trim(tags, ","), ",")
	}
	if opts != "" {
		var o options
		if err := json.Unmarshal([]byte(opts), &o); err != nil {
			return nil, err
		}
		j.Backoff, j.Timeout, j.Meta, j.Trace = o.Backoff, o.Timeout, o.Meta, o.Trace
	}
	return &j, nil
}

// selectJobs returns the jobs that a condition selects.
func selectJobs(ctx context.Context, r store.Reader, where string, args ...any) ([]*Job, error) {
	rows, err := r.Rows(ctx, `SELECT `+row+` FROM job `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*Job
	for rows.Next() {
		j, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, rows.Err()
}

// change is a step of one job on its way to the database.
type change struct {
	job    *Job // as it was
	in     Input
	result json.RawMessage
	late   bool // set by save: it no longer held the job
}

const update = `UPDATE job SET state = $1, due_at = $2, attempt = $3, max_attempts = $4, epoch = $5, owner = $6, deadline = $7,
	started_at = $8, ended_at = $9, cancel_asked = $10, error = $11, result = $12,
	unique_key = CASE WHEN $13 = 1 THEN NULL ELSE unique_key END
	WHERE id = $14 AND epoch = $15 AND state = $16`

const insertAttempt = `INSERT INTO job_attempt (job, epoch, attempt, owner, started_at, ended_at, outcome, error)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`

// save decides each change and writes it down with its event. A change that is
// refused, or whose job another has changed meanwhile, is marked late, and that
// is an event as well. It returns the verdicts in the same order.
func save(ctx context.Context, tx store.Tx, changes []*change) ([]Verdict, error) {
	verdicts := make([]Verdict, len(changes))
	var updates, attempts [][]any
	var which []int
	for i, c := range changes {
		v := Step(c.job.Backoff, c.job.Status, c.in)
		verdicts[i], c.late = v, v.Refused != ""
		if c.late {
			continue
		}
		s := v.Status
		var result any
		if c.result != nil {
			result = []byte(c.result)
		}
		updates = append(updates, []any{string(s.State), nanos(s.Due), s.Attempt, s.MaxAttempts, s.Epoch, s.Owner, nanos(s.Deadline),
			nanos(s.Started), nanos(s.Ended), flag(s.CancelAsked), s.Error, result, flag(freesKey(c.job.Unique.Scope, c.in.Kind, s.State)),
			c.job.ID, c.job.Epoch, string(c.job.State)})
		which = append(which, i)
	}
	counts, err := tx.Many(ctx, update, updates)
	if err != nil {
		return nil, err
	}
	for k, i := range which {
		c, v := changes[i], &verdicts[i]
		if counts[k] == 0 {
			c.late, v.Refused, v.Late = true, "another has changed it meanwhile", true
			continue
		}
		if v.Attempted != "" {
			attempts = append(attempts, []any{c.job.ID, c.job.Epoch, c.job.Attempt, c.job.Owner, nanos(c.job.Started), nanos(c.in.Now), v.Attempted, v.Status.Error})
		}
		tx.Emit(c.tell(*v))
	}
	for i, c := range changes {
		if c.late && verdicts[i].Late {
			tx.Emit(c.job.event("job.late", c.in.Now, "epoch", c.job.Epoch, "outcome", c.in.Kind.String(), "reason", verdicts[i].Refused))
		}
	}
	if len(attempts) == 0 {
		return verdicts, nil
	}
	_, err = tx.Many(ctx, insertAttempt, attempts)
	return verdicts, err
}

// freesKey says whether a step ends what a unique key is kept for.
func freesKey(scope Scope, kind Kind, to State) bool {
	return scope == WhilePending && kind == OnClaim || scope != WithinPeriod && to.Final()
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// tell makes the event of a change.
func (c *change) tell(v Verdict) (e api.Event) {
	j, now, s := c.job, c.in.Now, v.Status
	switch v.Event {
	case "job.started":
		return j.event(v.Event, now, "attempt", s.Attempt, "node", s.Owner)
	case "job.completed":
		if len(c.result) > maxTold {
			return j.event(v.Event, now, "attempts", s.Attempt)
		}
		return j.event(v.Event, now, "attempts", s.Attempt, "result", c.result)
	case "job.retrying", "job.lost", "job.snoozed", "job.released":
		return j.event(v.Event, now, "error", s.Error, "attempt", s.Attempt, "maxAttempts", s.MaxAttempts, "dueAt", s.Due)
	case "job.failed", "job.discarded", "job.cancelled":
		return j.event(v.Event, now, "error", s.Error, "attempts", s.Attempt)
	}
	return j.event(v.Event, now)
}

// maxTold bounds a result in an event; longer ones are read from the job.
const maxTold = 64 << 10

// load returns one job for a change.
func load(ctx context.Context, tx store.Tx, d store.Dialect, id int64) (*Job, error) {
	j, err := scan(tx.Row(ctx, `SELECT `+row+` FROM job WHERE id = $1`+d.ForUpdate(), id))
	if errors.Is(err, store.ErrNoRows) {
		return nil, notFound(id)
	}
	return j, err
}

func notFound(id int64) error {
	return api.Errorf(api.CodeNotFound, "there is no job %d; look with `perdure job list`", id)
}
