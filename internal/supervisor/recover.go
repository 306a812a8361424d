package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// latest is what recovery needs of the journal.
type latest interface {
	LatestErr() iter.Seq2[journal.Frame, error]
}

// recover rebuilds the actors from the journal and adopts what still lives.
// What cannot be read is told and left alone; nothing is signalled on a guess.
// What is used of held, by name, is taken out of it.
func (s *Supervisor) recover(ctx context.Context, j latest, held map[string]control.Held) error {
	defs := map[string]control.Entry{}
	procs := map[string]control.Entry{}
	said := map[string]*control.Worker{}
	var boot *control.Boot
	for f, err := range j.LatestErr() {
		if err != nil {
			s.o.Logger.Error("Cannot read a journal entry; it is left alone", "error", err)
			continue
		}
		key := f.Key
		if key == bootKey {
			boot = s.readBoot(f)
			continue
		}
		if key == settingsKey {
			s.readSettings(f)
		}
		kind, name, ok := strings.Cut(key, "/")
		if !ok {
			continue
		}
		e, err := decode(f)
		if kind == kindWorker && err == nil {
			said[name] = e.Worker
			continue
		}
		if err != nil || e.Record == nil {
			s.o.Logger.Error("Cannot read a journal entry; it is left alone", "key", key, "error", err)
			continue
		}
		if kind == "definition" {
			defs[name] = e
		} else {
			procs[name] = e
		}
	}
	var all []api.Definition
	for name, e := range defs {
		if e.Record.Definition == nil {
			s.o.Logger.Error("A journaled definition is empty; it is left alone", "process", name)
			continue
		}
		s.actors[name] = s.revive(name, e, procs[name])
		s.actors[name].takeHeld(held)
		s.actors[name].rememberWorker(said[name])
		delete(procs, name)
		all = append(all, *e.Record.Definition)
	}
	due := s.goOn(boot)
	for name, e := range procs {
		s.buryHalf(name, e)
	}
	s.tree.restore(all)
	if err := s.resumeAll(ctx); err != nil {
		return err
	}
	s.tree.refresh()
	for _, a := range due {
		a.post(message{do: (*actor).begin})
	}
	return nil
}

// readBoot reads an entry of bootKey; nil if that cannot be done.
func (s *Supervisor) readBoot(f journal.Frame) *control.Boot {
	e, err := decode(f)
	if err != nil {
		s.o.Logger.Error("Cannot read a journal entry; it is left alone", "key", f.Key, "error", err)
	}
	return e.Boot
}

// buryHalf goes on with a removal that was cut off between the definition and
// the process.
func (s *Supervisor) buryHalf(name string, e control.Entry) {
	if _, halved := s.actors[name]; halved || !e.Record.State.Removed {
		return
	}
	rec := *e.Record
	entry := control.Entry{Record: &rec, Removed: true, Events: []control.Event{{
		Type: "process.removed", ProcessID: rec.ID, Name: name, Generation: rec.State.Generation}}}
	payload, err := entry.Payload()
	if err == nil {
		_, err = s.log.WriteDelete(processKey(name), payload)
	}
	if err != nil {
		s.o.Logger.Error("Cannot write the removal of a process", "process", name, "error", err)
	}
}

// resumeAll has every actor take up what it had under way, side by side. Its
// resume is in each inbox before any of them runs: a word on its dependencies
// must not make one decide before it has looked for what lives.
func (s *Supervisor) resumeAll(ctx context.Context) error {
	// One that has been removed drops itself from the actors meanwhile.
	all := slices.Collect(maps.Values(s.actors))
	outcomes := make(chan error, len(all))
	for _, a := range all {
		a.mu.Lock()
		a.draining = true
		a.inbox = append(a.inbox, message{do: (*actor).resume, done: func(_ control.Record, err error) {
			if err != nil {
				err = fmt.Errorf("cannot take %q over: %w", a.who.name, err)
			}
			outcomes <- err
		}})
		a.mu.Unlock()
	}
	for _, a := range all {
		s.running.Add(1)
		go a.drain()
	}
	var errs []error
	for range all {
		select {
		case err := <-outcomes:
			errs = append(errs, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// revive makes an actor of what the journal says.
func (s *Supervisor) revive(name string, def, last control.Entry) *actor {
	rec := def.Record
	spec := definition.Spec(*rec.Definition)
	a := &actor{sup: s, mailbox: mailbox{ended: make(chan struct{})},
		who: identity{id: rec.ID, name: name, source: rec.Source, created: rec.CreatedAt},
		def: rec.Definition, spec: &spec, state: rec.State, seq: def.Seq}
	if last.Record != nil {
		rec = last.Record
		a.state, a.seq, a.ident = rec.State, max(def.Seq, last.Seq), rec.Identity
	}
	a.past.boot = rec.Boot
	if def.Seq > last.Seq {
		a.past.boot = def.Record.Boot // it may have been begun anew as what it is now
	}
	a.past.otherBoot = rec.BootID != s.bootID
	return a
}

// resume brings a revived process back: a live generation is adopted, one that
// ended meanwhile is decided upon once, and timers run on.
func (a *actor) resume() error {
	in := supervise.Input{Kind: supervise.Adopted, Generation: a.state.Generation, NewBoot: a.past.otherBoot, Over: a.past.over}
	defer func() {
		if a.again.open == nil {
			a.letGo()
		}
	}()
	if a.state.Removed {
		a.sup.tree.removing(a.who.name)
	}
	if len(a.sup.origin.damage) > 0 {
		a.recall()
	}
	if a.state.Alive || a.state.SpawnPending {
		// The FIFOs hold what was written meanwhile. They are opened first, so
		// that it is not lost when the last that holds them ends.
		if err := a.openSink(); err != nil {
			return err
		}
		ident := a.ident
		fault.Here("supervisor.adopt.before")
		in.PID = a.adoptLive()
		fault.Here("supervisor.adopt.after")
		if in.PID == 0 && ident == nil {
			if ran := a.stray(); ran != nil {
				return a.relive(in, ran)
			}
		}
		if in.PID == 0 {
			in.Exit = a.sup.exitOf(ident)
			in.Leftovers = a.again.rest != nil && a.sweepOnce()
			if !in.Leftovers {
				a.released()
			}
		} else if err := a.attendAgain(); err != nil {
			return err
		}
	}
	return a.step(in)
}

// recall looks for a generation that lives and is not recorded, because the
// journal was damaged: else it would be started beside itself. What is known of it
// is what its environment says; it is taken up like one whose start was recorded
// and whose outcome was not.
func (a *actor) recall() {
	for _, id := range a.sup.host.find(a.marker()) {
		generation, err := strconv.ParseUint(a.sup.host.variable(id, generationVar), 10, 64)
		if err != nil || !id.Leads || generation <= a.state.Generation {
			continue
		}
		a.sup.o.Logger.Warn("A process lives whose record is lost; it is taken over", "process", a.who.name, "pid", id.PID, "generation", generation)
		a.state = supervise.State{Desired: api.DesiredRunning, State: api.StateStarting, Health: api.HealthUnknown,
			Generation: generation, SpawnPending: true, Removed: a.state.Removed}
		a.ident = nil
	}
}

// clockTick is the unit of the start times of the kernel: the start of a process
// may be told as so much earlier than it was.
const clockTick = 10 * time.Millisecond

// unrecorded is, of those who have led a session in some cgroup, the one that the
// supervisor before has started for this process and not written down: it was in
// the cgroup of the process, and began after the generation before had ended. Nil
// when there is no such thing.
func (a *actor) unrecorded(ended []proc.Identity) *proc.Identity {
	dir := a.sup.host.cgroupOf(a.who.name)
	if dir == "" || !a.state.SpawnPending {
		return nil
	}
	var out *proc.Identity
	for i := range ended {
		id := &ended[i]
		begun := supervise.Instant(id.StartTime+1) * supervise.Instant(clockTick)
		if id.BootID == a.sup.bootID && id.Cgroup == dir && begun > a.state.ExitedAt && (out == nil || id.StartTime > out.StartTime) {
			out = id
		}
	}
	return out
}

// stray is what was started and not written down, and what the server has reaped.
func (a *actor) stray() *control.Reaped {
	reaped := a.sup.o.Inherited.Reaped
	ended := make([]proc.Identity, len(reaped))
	for i := range reaped {
		ended[i] = reaped[i].Identity
	}
	id := a.unrecorded(ended)
	if id == nil {
		return nil
	}
	return &reaped[slices.Index(ended, *id)]
}

// relive takes up a generation of which all is known, too late: it was started, and
// it has ended. Both is told now, in this order, and what it has left is ended.
func (a *actor) relive(in supervise.Input, ran *control.Reaped) error {
	id := ran.Identity
	id.Marker = a.marker()
	a.ident, in.PID = &id, id.PID
	if err := a.step(in); err != nil {
		return err
	}
	a.again.rest = &id
	return a.step(supervise.Input{Kind: supervise.Exited, Generation: in.Generation, Gone: !a.sweepOnce(), Exit: exitFrom(ran.Exit)})
}

// exitOf is how a process ended that nobody has held: known only if the server
// has become its parent.
func (s *Supervisor) exitOf(id *proc.Identity) supervise.Exit {
	for _, r := range s.o.Inherited.Reaped {
		if id != nil && r.Identity.BootID == id.BootID && r.Identity.PID == id.PID && r.Identity.StartTime == id.StartTime {
			return exitFrom(r.Exit)
		}
	}
	return supervise.Exit{Unknown: true, Cause: "unknown"}
}

// openSink takes the output of a live generation. A place for it that cannot be
// opened is no reason to leave the process unwatched: its output waits in the
// FIFOs, and it is tried again.
func (a *actor) openSink() error {
	if a.sink != nil {
		return nil
	}
	sink, err := a.sup.out.open(a.who.name, retention(a.def), a.heldFIFOs()...)
	if err != nil {
		a.sup.o.Logger.Error("Cannot keep output; it is tried again", "process", a.who.name, "error", err)
		stop(a.again.open)
		a.again.open = time.AfterFunc(retryStorage, func() {
			a.post(message{do: func(a *actor) error {
				err := a.openSink()
				if a.sink != nil {
					a.letGo()
				}
				return err
			}})
		})
		return nil
	}
	a.sink = sink
	if held := a.heldFIFOs(); held != nil {
		held[0], held[1] = -1, -1 // they are the sink's
	}
	return nil
}

// adoptLive adopts the recorded generation by what was held of it, or, where
// nobody has held it, if it lives, or, when the supervisor died
// between its start and its record, the leader that carries its marker. Without
// a leader it returns 0 and notes whose rest is to be ended.
func (a *actor) adoptLive() int {
	generation := a.state.Generation
	if pid := a.adoptHeld(); pid != 0 {
		return pid
	}
	if a.ident != nil {
		p, err := live(nil), proc.ErrGone
		if !a.leaderEnded() { // its zombie may be there, but its end is told only once
			p, err = a.sup.host.adopt(*a.ident, a.notify(generation))
		}
		if err == nil {
			a.proc = p
			return a.ident.PID
		}
		a.sup.o.Logger.Info("A process ended while nobody watched", "process", a.who.name, "pid", a.ident.PID, "error", err)
		a.again.rest, a.ident = a.ident, nil
		return 0
	}
	found := a.sup.host.find(a.marker())
	for i := range found {
		// A descendant that left its session is not what was spawned.
		if !found[i].Leads {
			continue
		}
		if p, err := a.sup.host.adopt(found[i], a.notify(generation)); err == nil {
			a.proc, a.ident = p, &found[i]
			return found[i].PID
		}
	}
	// It may have ended while we started, and then waits for us: see KeepZombies.
	if id := a.unrecorded(a.sup.host.dead(a.sup.host.cgroupOf(a.who.name))); id != nil {
		if p, err := a.sup.host.adopt(*id, a.notify(generation)); err == nil {
			a.proc, a.ident = p, id
			return id.PID
		}
	}
	if len(found) > 0 {
		oldest := slices.MinFunc(found, func(a, b proc.Identity) int { return cmp.Compare(a.StartTime, b.StartTime) })
		a.again.rest = &oldest
	}
	return 0
}

// leaderEnded says that the end of the leader is recorded, and something that it
// has left may live.
func (a *actor) leaderEnded() bool { return a.state.Alive && a.state.PID == 0 }

// sweepAgain is the time between two looks at what a dead leader has left.
const sweepAgain = 10 * time.Millisecond

// sweepOnce ends what a leader has left that died while nobody watched, and says
// whether anything of it still lives. Then it looks again, until nothing does:
// only then is Gone told, so that no generation runs beside the rest of another.
func (a *actor) sweepOnce() bool {
	live, err := a.sup.host.sweep(*a.again.rest)
	if err != nil {
		a.sup.o.Logger.Warn("Cannot end what a process has left; it is tried again", "process", a.who.name, "error", err)
		live = max(live, 1) // unknown is not gone
	}
	if live == 0 {
		a.again.rest = nil
		return false
	}
	wait := sweepAgain
	if err != nil {
		wait = time.Second
	}
	stop(a.again.sweep)
	a.again.sweep = time.AfterFunc(wait, func() { a.post(message{do: (*actor).sweepOn}) })
	return true
}

// sweepOn goes on with a sweep and tells its end.
func (a *actor) sweepOn() error {
	if a.again.rest == nil || a.sweepOnce() {
		return nil
	}
	return a.step(supervise.Input{Kind: supervise.Gone, Generation: a.state.Generation})
}

func (a hostAdapter) sweep(id proc.Identity) (int, error) { return a.h.Sweep(id) }
