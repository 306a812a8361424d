package supervisor

import (
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/supervise"
)

// Apply implements control.Supervisor.
func (s *Supervisor) Apply(ctx context.Context, req control.ApplyRequest) (control.ApplyResult, error) {
	var res control.ApplyResult
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return res, api.Errorf(api.CodeConflict, "cannot apply definitions: Perdure is shutting down")
	}
	s.mu.Unlock()
	given := make(map[string]bool, len(req.Definitions))
	for i := range req.Definitions {
		given[req.Definitions[i].Name] = true
	}
	if err := s.tree.define(req.Definitions, req.Full); err != nil {
		return res, err
	}
	var begin []*actor
	for i := range req.Definitions {
		a, what, err := s.applyOne(ctx, &req.Definitions[i], req)
		if err != nil {
			return res, err
		}
		switch what {
		case added:
			res.Added = append(res.Added, a.who.name)
			begin = append(begin, a)
		case changed:
			res.Changed = append(res.Changed, a.who.name)
		default:
			res.Unchanged = append(res.Unchanged, a.who.name)
		}
		if req.Boot && what != added {
			begin = append(begin, a)
		}
	}
	if req.Full {
		res.Removed = s.removeOthers(given, req.Source)
	}
	s.tree.refresh()
	for _, a := range begin {
		a.post(message{do: (*actor).autostart})
	}
	if req.Boot {
		s.wakeOthers(given)
	}
	return res, nil
}

// outcome says what Apply did to one process.
type outcome int

const (
	unchanged outcome = iota
	added
	changed
)

// applyOne adds or changes one process.
func (s *Supervisor) applyOne(ctx context.Context, def *api.Definition, req control.ApplyRequest) (*actor, outcome, error) {
	spec := definition.Spec(*def)
	s.mu.Lock()
	a := s.actors[def.Name]
	s.mu.Unlock()
	if a == nil {
		a = &actor{sup: s, who: identity{id: newID(), name: def.Name, source: req.Source, created: time.Now().UTC()},
			state: supervise.State{Desired: api.DesiredStopped, State: api.StateIdle, Health: api.HealthUnknown}}
		_, err := await(ctx, a, message{do: func(a *actor) error { return a.define(def, &spec, "process.registered") }})
		if err != nil {
			return nil, unchanged, err
		}
		s.mu.Lock()
		s.actors[def.Name] = a
		s.mu.Unlock()
		return a, added, nil
	}
	what := unchanged
	_, err := await(ctx, a, message{do: func(a *actor) error {
		restart := definition.NeedsRestart(*a.def, *def)
		if !restart && reflect.DeepEqual(*a.def, *def) {
			return nil
		}
		what = changed
		if err := a.define(def, &spec, "process.redefined"); err != nil {
			return err
		}
		return a.step(supervise.Input{Kind: supervise.Redefine, Apply: restart && !req.Hold})
	}})
	return a, what, err
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

// wakeOthers starts, at a boot, those that came over the API before and are
// wished to run.
func (s *Supervisor) wakeOthers(given map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.actors {
		if !given[name] {
			a.post(message{do: func(a *actor) error {
				if a.state.Desired != api.DesiredRunning {
					return nil
				}
				return a.step(supervise.Input{Kind: supervise.Start, Force: true})
			}})
		}
	}
}

// autostart starts the process if its definition says so. One that was stopped
// by hand stays stopped if it is "unless-stopped".
func (a *actor) autostart() error {
	if a.def.Autostart != nil && !*a.def.Autostart {
		return nil
	}
	byHand := a.state.Desired == api.DesiredStopped && a.state.State == api.StateStopped
	if byHand && a.def.Restart == api.RestartUnlessStopped {
		return nil
	}
	return a.step(supervise.Input{Kind: supervise.Start, Force: true})
}

// newID returns a process id, proc_<unix ms>_<7 characters of base 32>.
func newID() string {
	return fmt.Sprintf("proc_%d_%s", time.Now().UnixMilli(), strings.ToLower(rand.Text()[:7]))
}
