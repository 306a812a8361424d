package supervisor

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/supervise"
)

// latest is what recovery needs of the journal.
type latest interface {
	LatestErr() iter.Seq2[journal.Frame, error]
}

// recover rebuilds the actors from the journal and adopts what still lives.
// What cannot be read is told and left alone; nothing is signalled on a guess.
func (s *Supervisor) recover(ctx context.Context, j latest) error {
	defs := map[string]control.Entry{}
	procs := map[string]control.Entry{}
	for f, err := range j.LatestErr() {
		if err != nil {
			s.o.Logger.Error("Cannot read a journal entry; it is left alone", "error", err)
			continue
		}
		key := f.Key
		kind, name, ok := strings.Cut(key, "/")
		if !ok {
			continue
		}
		e, err := decode(f)
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
		all = append(all, *e.Record.Definition)
	}
	if err := s.tree.define(all, true); err != nil {
		return fmt.Errorf("cannot order the journaled processes: %w", err)
	}
	for _, a := range s.actors {
		if _, err := await(ctx, a, message{do: (*actor).resume}); err != nil {
			return fmt.Errorf("cannot take %q over: %w", a.who.name, err)
		}
	}
	s.tree.refresh()
	return nil
}

// revive makes an actor of what the journal says.
func (s *Supervisor) revive(name string, def, last control.Entry) *actor {
	rec := def.Record
	spec := definition.Spec(*rec.Definition)
	a := &actor{sup: s, who: identity{id: rec.ID, name: name, source: rec.Source, created: rec.CreatedAt},
		def: rec.Definition, spec: &spec, state: rec.State, seq: def.Seq}
	if last.Record != nil {
		rec = last.Record
		a.state, a.seq, a.ident = rec.State, last.Seq, rec.Identity
	}
	a.otherBoot = rec.BootID != s.bootID
	return a
}

// resume brings a revived process back: a live generation is adopted, one that
// ended meanwhile is decided upon once, and timers run on.
func (a *actor) resume() error {
	in := supervise.Input{Kind: supervise.Adopted, Generation: a.state.Generation, NewBoot: a.otherBoot}
	if a.state.Alive || a.state.SpawnPending {
		in.PID = a.adoptLive(&in)
		// The FIFOs hold what was written meanwhile.
		sink, err := a.sup.out.open(a.who.name, retention(a.def))
		if err != nil {
			return err
		}
		a.sink = sink
	}
	return a.step(in)
}

// adoptLive adopts the recorded generation, or, when the supervisor died
// between its start and its record, what carries its marker.
func (a *actor) adoptLive(in *supervise.Input) int {
	if a.ident == nil {
		for _, id := range a.sup.host.find(a.marker()) {
			if p, err := a.sup.host.adopt(id, a.notify(a.state.Generation)); err == nil {
				a.proc, a.ident = p, &id
				return id.PID
			}
		}
		return 0
	}
	p, err := a.sup.host.adopt(*a.ident, a.notify(a.state.Generation))
	if err != nil {
		in.Exit = supervise.Exit{Unknown: true, Cause: "unknown"}
		a.sup.o.Logger.Info("A process ended while nobody watched", "process", a.who.name, "pid", a.ident.PID, "error", err)
		a.ident = nil
		return 0
	}
	a.proc = p
	return a.ident.PID
}
