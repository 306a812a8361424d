package supervisor

import (
	"path/filepath"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/logstore"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
	"github.com/perdure/perdure/internal/supervisor/workers"
)

// lastBeat is the time of the last heartbeat, 0 for none.
func (a *actor) lastBeat() supervise.Instant {
	if a.work.desk == nil {
		return 0
	}
	return supervise.Instant(a.work.desk.LastBeat())
}

// awaitBeat has the next heartbeat told when one has been missed. All others cost
// no input: the timer looks when the last one came.
func (a *actor) awaitBeat() {
	if !a.state.Worker.Stale || a.work.awaits {
		return
	}
	a.work.awaits = true
	a.work.desk.AwaitBeat()
	if a.lastBeat() > a.state.Worker.LastBeat {
		a.post(message{do: (*actor).beat}) // it came in between
	}
}

// beat takes a heartbeat that was awaited.
func (a *actor) beat() error {
	a.work.awaits = false
	last, w := a.lastBeat(), &a.state.Worker
	if !w.Stale || last <= w.LastBeat || last < w.From {
		return nil
	}
	return a.step(supervise.Input{Kind: supervise.Heartbeat, Generation: a.state.Generation, Beat: last})
}

// reading is the wait for a line of output that says ready.
type reading struct {
	generation uint64 // whose output is read; 0: none
	from       string // the place in the log where the output of the generation begins
	stop       func()
}

func (r *reading) end() {
	if r.generation != 0 {
		r.generation = 0
		r.stop()
	}
}

// noteOutput notes where the output of the next generation begins.
func (a *actor) noteOutput() {
	a.work.output.from = ""
	if a.def.Ready == nil || a.def.Ready.Log == "" {
		return
	}
	from, err := logstore.End(a.sup.logDir(), a.who.name)
	if err != nil {
		a.sup.o.Logger.Warn("Cannot tell where the output begins; a line of before may say ready", "process", a.who.name, "error", err)
	}
	a.work.output.from = from
}

func (s *Supervisor) logDir() string { return filepath.Join(s.o.Dir, "logs") }

// readForReady reads the output of a generation that says ready by a line, until
// it has said so or nobody waits for it any more.
func (a *actor) readForReady() {
	s, r := &a.state, &a.work.output
	waits := s.State == api.StateStarting && s.PID != 0 && a.def.Ready != nil && a.def.Ready.Log != ""
	if !waits || r.generation != s.Generation {
		r.end()
	}
	if !waits || r.generation != 0 {
		return
	}
	q := logstore.Query{Cursor: r.from, Follow: true}
	if r.from == "" {
		// Another supervisor has started it.
		q.Since = time.Now().Add(-a.sup.o.Clock().Sub(s.StartedAt)).Truncate(time.Millisecond)
	}
	r.generation = s.Generation
	said := supervise.Input{Kind: supervise.WorkerSaid, Generation: s.Generation, Said: supervise.SaidReady}
	r.stop = a.sup.awaitLine(a.sup.logDir(), a.who.name, a.def.Ready.Log, q, func() { a.tell(said) }, func(err error) {
		a.sup.o.Logger.Error("Cannot read output for the line that says ready", "process", a.who.name, "error", err)
	})
}

// measureNext arms the next measurement of a generation that has limits.
func (a *actor) measureNext() {
	s := &a.state
	if s.PID == 0 || s.State == api.StateStopping || !a.spec.Limits.Measured() {
		stop(a.work.measure)
		a.work.measure, a.work.meter = nil, workers.Meter{}
		return
	}
	if a.work.measured != s.Generation {
		stop(a.work.measure)
		a.work.measured, a.work.measure, a.work.meter = s.Generation, nil, workers.Meter{}
	}
	if a.work.measure != nil || a.ident == nil {
		return
	}
	id, generation, files := *a.ident, s.Generation, a.spec.Limits.OpenFiles > 0
	a.work.measure = time.AfterFunc(a.def.Limits.Interval.D(), func() {
		// Reading about a large tree takes its time, and the actor has other things to do.
		sample, n, err := a.sup.host.sample(id, files)
		at := time.Now()
		a.post(message{do: func(a *actor) error { return a.takeMeasure(generation, at, sample, n, err) }})
	})
}

// takeMeasure takes one measurement. One that could not be made counts as none:
// unknown is not too much.
func (a *actor) takeMeasure(generation uint64, at time.Time, sample proc.Sample, files int, err error) error {
	if generation != a.work.measured || generation != a.state.Generation {
		return nil // the next one has a timer of its own
	}
	a.work.measure = nil
	if err != nil {
		a.work.meter = workers.Meter{}
		return nil
	}
	return a.step(supervise.Input{Kind: supervise.Sample, Generation: generation, Use: a.work.meter.Read(at, sample, files)})
}
