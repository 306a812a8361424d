package supervisor

import (
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/supervise"
)

// Apply implements control.Supervisor.
func (s *Supervisor) Apply(ctx context.Context, req control.ApplyRequest) (control.ApplyResult, error) {
	var res control.ApplyResult
	if err := s.enter(ctx); err != nil {
		return res, err
	}
	defer s.leave()
	if err := s.adjust(req.Settings); err != nil {
		return res, err
	}
	if !req.Full && len(req.Definitions) == 0 {
		return res, nil
	}
	if err := s.awaitRemovals(ctx, req.Definitions); err != nil {
		return res, err
	}
	// What has begun is carried out, even if the server dies that has asked for it:
	// the one that comes after it gives no definitions.
	ctx = context.WithoutCancel(ctx)
	given := make(map[string]bool, len(req.Definitions))
	for i := range req.Definitions {
		given[req.Definitions[i].Name] = true
	}
	if err := s.tree.define(req.Definitions); err != nil {
		return res, err
	}
	under := make([]applying, len(req.Definitions))
	for i := range req.Definitions {
		var err error
		if under[i], err = s.applyOne(ctx, &req.Definitions[i], req); err != nil {
			return res, err
		}
	}
	for i := range under {
		a, what, err := under[i].wait(ctx)
		if err != nil {
			return res, err
		}
		switch what {
		case added:
			res.Added = append(res.Added, a.who.name)
		case changed:
			res.Changed = append(res.Changed, a.who.name)
		default:
			res.Unchanged = append(res.Unchanged, a.who.name)
		}
	}
	fault.Here("supervisor.apply.defined")
	if req.Full {
		res.Removed = s.removeOthers(given, req.Source)
	}
	s.tree.refresh()
	fault.Here("supervisor.apply.removed")
	s.beginBoot()
	s.beginAll(func(a *actor) bool { return req.Full || given[a.who.name] })
	s.trimSoon()
	return res, nil
}

// beginAll has those processes begun that this boot has not begun yet.
func (s *Supervisor) beginAll(which func(a *actor) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.actors {
		if which(a) {
			a.post(message{do: (*actor).begin})
		}
	}
}

// trimAfter is the quiet time after an Apply until its garbage is given back.
const trimAfter = 3 * time.Second

// trimSoon gives memory back to the system once the starts of an Apply are over:
// what they needed is not needed again for long.
func (s *Supervisor) trimSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Embedded || s.ending() {
		return
	}
	if s.trim == nil {
		s.trim = time.AfterFunc(trimAfter, debug.FreeOSMemory)
		return
	}
	s.trim.Reset(trimAfter)
}

// trimLater puts that off, if it is still to come, because one more has started.
func (s *Supervisor) trimLater() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trim != nil && s.trim.Stop() {
		s.trim.Reset(trimAfter)
	}
}

// awaitRemovals waits until processes that are being removed are gone, if their
// names are given once more: who takes a name after a removal is a new process.
func (s *Supervisor) awaitRemovals(ctx context.Context, defs []api.Definition) error {
	type question struct {
		a       *actor
		answer  <-chan outcome
		removed *bool
	}
	var asked []question
	for i := range defs {
		a, err := s.actor(defs[i].Name)
		if err != nil {
			continue // there is none
		}
		removed := new(bool)
		asked = append(asked, question{a, ask(a, message{do: func(a *actor) error { *removed = a.state.Removed; return nil }}), removed})
	}
	for _, q := range asked {
		_, err := answer(ctx, q.a, q.answer)
		switch {
		case api.CodeOf(err) == api.CodeNotFound && err != nil:
			continue
		case err != nil:
			return err
		case !*q.removed:
			continue
		}
		select {
		case <-q.a.ended:
		case <-s.end.begun:
			return s.refusal()
		case <-ctx.Done():
			return api.Errorf(api.CodeTimeout, "cannot define %q: the process that had the name is still being removed: %v", q.a.who.name, ctx.Err())
		}
	}
	return nil
}

// effect says what Apply did to one process.
type effect int

const (
	unchanged effect = iota
	added
	changed
)

// applying is the change of one process under way.
type applying struct {
	a      *actor
	answer <-chan outcome // nil: it is done
	what   *effect        // set when the answer is there
}

// wait returns what has been done.
func (p applying) wait(ctx context.Context) (*actor, effect, error) {
	if p.answer != nil {
		if _, err := answer(ctx, p.a, p.answer); err != nil {
			return nil, unchanged, err
		}
	}
	return p.a, *p.what, nil
}

// applyOne adds a process, or begins to change one.
func (s *Supervisor) applyOne(ctx context.Context, def *api.Definition, req control.ApplyRequest) (applying, error) {
	spec, what := definition.Spec(*def), unchanged
	s.mu.Lock()
	a := s.actors[def.Name]
	s.mu.Unlock()
	if a == nil {
		a = &actor{sup: s, mailbox: mailbox{ended: make(chan struct{})}, who: identity{id: newID(), name: def.Name, source: req.Source, created: time.Now().UTC()},
			state: supervise.State{Desired: api.DesiredStopped, State: api.StateIdle, Health: api.HealthUnknown}}
		what = added
		return applying{a: a, what: &what}, s.add(ctx, a, def, &spec)
	}
	return applying{a: a, what: &what, answer: ask(a, message{do: func(a *actor) error {
		restart := definition.NeedsRestart(*a.def, *def)
		if !restart && reflect.DeepEqual(*a.def, *def) {
			return nil
		}
		what = changed
		if req.Boot && a.state.Desired == api.DesiredRunning && atRest(a.state.State) {
			a.past.boot = 0 // it is begun as something else
		}
		if err := a.define(def, &spec, "process.redefined"); err != nil {
			return err
		}
		return a.step(supervise.Input{Kind: supervise.Redefine, Apply: restart && !req.Hold})
	}})}, nil
}

// add brings a new process in. It can be found before it is written down, so
// that a list never lacks what the journal has.
func (s *Supervisor) add(ctx context.Context, a *actor, def *api.Definition, spec *supervise.Spec) error {
	added := make(chan error, 1)
	s.mu.Lock()
	s.actors[a.who.name] = a
	// Under the lock, so that nothing comes before it.
	a.post(message{do: func(a *actor) error {
		err := a.define(def, spec, "process.registered")
		if err != nil {
			a.gone = api.Errorf(api.CodeNotFound, "cannot find process %q: it could not be written down", a.who.name)
			a.sup.dropped(a.who.name)
		}
		return err
	}, done: func(_ control.Record, err error) { added <- err }})
	s.mu.Unlock()
	select {
	case err := <-added:
		return err
	case <-ctx.Done():
		return api.Errorf(api.CodeTimeout, "cannot tell whether %q has been defined: %v", a.who.name, ctx.Err())
	}
}

// removeOthers ends and forgets the processes of a source that are not given.
func (s *Supervisor) removeOthers(given map[string]bool, source string) []string {
	var names []string
	s.mu.Lock()
	var others []*actor
	for name, a := range s.actors {
		if !given[name] && a.who.source == source {
			names = append(names, name)
			others = append(others, a)
		}
	}
	s.mu.Unlock()
	for _, a := range others {
		a.post(message{do: (*actor).remove})
	}
	return names
}

// atRest says that nothing is under way of a process in this state.
func atRest(s api.State) bool {
	switch s {
	case api.StateIdle, api.StateStopped, api.StateExited, api.StateFailed, api.StateDependencyFailed:
		return true
	}
	return false
}

// start carries out a start or restart that somebody asked for. What waits for
// files waits anew (N22).
func (a *actor) start(in supervise.Input) error {
	if a.state.State == api.StateDependencyFailed {
		a.sup.tree.rearm(a.who.name)
	}
	return a.step(in)
}

// newID returns a process id, proc_<unix ms>_<7 characters of base 32>.
func newID() string {
	return fmt.Sprintf("proc_%d_%s", time.Now().UnixMilli(), strings.ToLower(rand.Text()[:7]))
}
