package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"
	_ "time/tzdata" // zones also where the system has none

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/job"
	"github.com/perdure/perdure/internal/store"
)

// Queue is where the jobs wait of schedules that may not overlap themselves: one
// runs for each schedule.
const Queue = "schedules"

// How often to look without being woken, and how many schedules at once.
const (
	lookEach = 5 * time.Second
	retry    = time.Second
	batch    = 200
)

// Scheduler puts the jobs of schedules. Any number of nodes may run one over the
// same database: who moves a schedule's next time on, in the transaction that puts
// its job, has the tick. Its exported methods may be called by many goroutines.
type Scheduler struct {
	store  store.Store
	jobs   *job.Engine
	logger *slog.Logger
	wakes  chan struct{} // capacity 1
	stop   context.CancelFunc
	done   chan struct{}
}

// New returns a scheduler that puts its jobs into an engine.
func New(s store.Store, jobs *job.Engine, logger *slog.Logger) *Scheduler {
	x := &Scheduler{store: s, jobs: jobs, logger: logger, wakes: make(chan struct{}, 1), done: make(chan struct{})}
	s.OnWake("schedules", x.rouse)
	return x
}

// Start begins to look for ticks.
func (s *Scheduler) Start(ctx context.Context) error {
	if err := s.jobs.SetQueue(ctx, job.Queue{Name: Queue, PerKey: 1}); err != nil {
		return err
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.work(ctx)
	return nil
}

// Stop ends it and waits.
func (s *Scheduler) Stop() {
	s.stop()
	<-s.done
}

func (s *Scheduler) rouse() {
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

func (s *Scheduler) work(ctx context.Context) {
	defer close(s.done)
	failing := false
	for ctx.Err() == nil {
		wait, err := s.look(ctx, time.Now())
		if err != nil && ctx.Err() == nil && !failing {
			s.logger.Error("Cannot put the jobs of schedules; it is tried again", "error", err)
		}
		if failing = err != nil; failing {
			wait = retry
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wakes:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// look fires what is due and says how long nothing will be. One schedule that fails
// does not hold up the others.
func (s *Scheduler) look(ctx context.Context, now time.Time) (time.Duration, error) {
	var due []*Schedule
	var next int64
	err := s.store.View(ctx, func(r store.Reader) (err error) {
		due, err = list(ctx, r, `WHERE paused = 0 AND next_at > 0 AND next_at <= $1 ORDER BY next_at LIMIT $2`, nanos(now), batch)
		if err != nil {
			return err
		}
		return r.Row(ctx, `SELECT coalesce(min(next_at), 0) FROM schedule WHERE paused = 0 AND next_at > $1`, nanos(now)).Scan(&next)
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, x := range due {
		errs = append(errs, s.fire(ctx, x, now))
	}
	wait := lookEach
	if next > 0 {
		wait = min(wait, max(moment(next).Sub(now), 0))
	}
	if len(due) > 0 {
		wait = 0 // what was fired has a new time, and there may be more
	}
	return wait, errors.Join(errs...)
}

// fire puts the jobs of the ticks that are due and moves the schedule on.
func (s *Scheduler) fire(ctx context.Context, x *Schedule, now time.Time) error {
	ticks, next := x.due(now)
	puts, err := s.prepare(ctx, x, ticks)
	if err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE schedule SET next_at = $1 WHERE name = $2 AND next_at = $3 AND paused = 0`, nanos(next), x.Name, nanos(x.Next))
		if err != nil || n == 0 { // another node has it, or it was changed meanwhile
			return err
		}
		now, err := load(ctx, tx, x.Name)
		if err != nil {
			return err
		}
		for i, tick := range ticks {
			if err := s.put(ctx, tx, now, tick, puts[i], len(ticks) > 1); err != nil {
				return err
			}
		}
		return nil
	})
}

type putter func(context.Context, store.Tx) ([]job.Enqueued, error)

func (s *Scheduler) prepare(ctx context.Context, x *Schedule, ticks []time.Time) ([]putter, error) {
	out := make([]putter, len(ticks))
	for i, tick := range ticks {
		spec := x.Job
		spec.At = x.at(tick)
		if x.Overlap == QueueOne || x.Overlap == Restart {
			spec.Queue, spec.Key = Queue, x.Name
		}
		put, err := s.jobs.Prepare(ctx, spec)
		if err != nil {
			return nil, err
		}
		out[i] = put
	}
	return out, nil
}

// put puts the job of one tick, as far as the overlap lets it. Of ticks that are
// caught up with each is put.
func (s *Scheduler) put(ctx context.Context, tx store.Tx, x *Schedule, tick time.Time, put putter, catchingUp bool) error {
	var state job.State
	err := tx.Row(ctx, `SELECT state FROM job WHERE id = $1`, x.LastJob).Scan(&state)
	if err != nil && !errors.Is(err, store.ErrNoRows) {
		return err
	}
	busy := err == nil && !state.Final()
	switch {
	case busy && x.Overlap == Skip:
		tx.Emit(x.event("schedule.skipped", tick, "reason", "the job of an earlier tick is not over", "jobId", x.LastJob))
		return s.note(ctx, tx, x, tick)
	case busy && x.Overlap == QueueOne && state != job.Running && !catchingUp:
		tx.Emit(x.event("schedule.skipped", tick, "reason", "the job of an earlier tick waits", "jobId", x.LastJob))
		return s.note(ctx, tx, x, tick)
	case busy && x.Overlap == Restart:
		if _, err := s.jobs.CancelIn(ctx, tx, x.LastJob); err != nil && api.CodeOf(err) != api.CodeConflict {
			return err
		}
	}
	got, err := put(ctx, tx)
	if err != nil {
		return err
	}
	x.LastJob = got[0].ID
	tx.Emit(x.event("schedule.fired", tick, "jobId", x.LastJob))
	return s.note(ctx, tx, x, tick)
}

func (s *Scheduler) note(ctx context.Context, tx store.Tx, x *Schedule, tick time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE schedule SET last_at = $1, last_job = $2 WHERE name = $3`, nanos(tick), x.LastJob, x.Name)
	return err
}

// event tells of a schedule; pairs are names and values.
func (s *Schedule) event(typ string, tick time.Time, pairs ...any) api.Event {
	data := map[string]any{"schedule": s.Name}
	if !tick.IsZero() {
		data["tick"] = tick.UTC()
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		data[pairs[i].(string)] = pairs[i+1]
	}
	b, err := json.Marshal(data)
	if err != nil {
		b = nil // strings, numbers and times always can
	}
	return api.Event{Type: typ, Time: time.Now(), Name: s.Name, Data: b}
}

// Set makes a schedule or changes one. What is not changed by it goes on: the next
// time stays while the expression and the zone do.
func (s *Scheduler) Set(ctx context.Context, d Definition) error {
	x, err := d.check()
	if err != nil {
		return err
	}
	if _, err := s.jobs.Prepare(ctx, d.Job); err != nil {
		return err
	}
	text, err := json.Marshal(x.Definition)
	if err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		old, err := load(ctx, tx, d.Name)
		if err != nil && api.CodeOf(err) != api.CodeNotFound {
			return err
		}
		next := x.expr.Next(time.Now(), x.zone)
		if old != nil && old.Cron == x.Cron && old.Zone == x.Zone {
			next = old.Next
		}
		_, err = tx.Exec(ctx, `INSERT INTO schedule (name, definition, next_at) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, next_at = excluded.next_at`, x.Name, string(text), nanos(next))
		tx.Emit(x.event("schedule.set", time.Time{}, "next", next.UTC()))
		tx.Then(s.wake)
		return err
	})
}

func (s *Scheduler) wake() {
	s.rouse()
	s.store.Wake("schedules")
}

// Remove forgets a schedule; its jobs stay.
func (s *Scheduler) Remove(ctx context.Context, name string) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		x, err := load(ctx, tx, name)
		if err != nil {
			return err
		}
		tx.Emit(x.event("schedule.removed", time.Time{}))
		_, err = tx.Exec(ctx, `DELETE FROM schedule WHERE name = $1`, name)
		return err
	})
}

// Pause keeps a schedule from firing, or lets it fire again, from now on: ticks of
// a pause are not caught up with.
func (s *Scheduler) Pause(ctx context.Context, name string, paused bool) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		x, err := load(ctx, tx, name)
		if err != nil || x.Paused == paused {
			return err
		}
		typ, flag, next := "schedule.resumed", 0, x.expr.Next(time.Now(), x.zone)
		if paused {
			typ, flag, next = "schedule.paused", 1, x.Next
		}
		tx.Emit(x.event(typ, time.Time{}))
		tx.Then(s.wake)
		_, err = tx.Exec(ctx, `UPDATE schedule SET paused = $1, next_at = $2 WHERE name = $3`, flag, nanos(next), name)
		return err
	})
}

// Trigger fires a schedule now, also a paused one, by the rule of its overlap. Its
// next time stays. It returns the job, 0 when the overlap let none be put.
func (s *Scheduler) Trigger(ctx context.Context, name string) (id int64, err error) {
	x, err := s.Get(ctx, name)
	if err != nil {
		return 0, err
	}
	tick := time.Now()
	x.Jitter = 0
	puts, err := s.prepare(ctx, x, []time.Time{tick})
	if err != nil {
		return 0, err
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		now, err := load(ctx, tx, name)
		if err != nil {
			return err
		}
		before := now.LastJob
		if err := s.put(ctx, tx, now, tick, puts[0], false); err != nil {
			return err
		}
		if id = now.LastJob; id == before {
			id = 0
		}
		return nil
	})
	return id, err
}

// Get returns a schedule.
func (s *Scheduler) Get(ctx context.Context, name string) (x *Schedule, err error) {
	all, err := s.list(ctx, `WHERE name = $1`, name)
	if err == nil && len(all) == 0 {
		err = api.Errorf(api.CodeNotFound, "there is no schedule %q; look with `perdure schedule list`", name)
	}
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// List returns all schedules by name.
func (s *Scheduler) List(ctx context.Context) ([]*Schedule, error) {
	return s.list(ctx, `ORDER BY name`)
}

func (s *Scheduler) list(ctx context.Context, rest string, args ...any) (out []*Schedule, err error) {
	err = s.store.View(ctx, func(r store.Reader) error {
		out, err = list(ctx, r, rest, args...)
		return err
	})
	return out, err
}
