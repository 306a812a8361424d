package supervise

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// The conditions of a dependency on a process.
const (
	CondStarted   = "started"
	CondHealthy   = "healthy"
	CondReady     = "ready"
	CondCompleted = "completed"
)

// Dep is one dependency with its defaults filled in: on a process (Process and
// Condition) or on a file that must exist (File and Timeout).
type Dep struct {
	Process   string
	Condition string // started | healthy | ready | completed
	File      string
	Timeout   time.Duration
}

// Target is what Eval is shown of a dependency. State is for a process. Exists
// and TimedOut are for a file: whether it is there, and whether its Timeout has
// passed since the dependent began to wait.
type Target struct {
	State            *State
	Exists, TimedOut bool
}

// FileKey is the name by which Eval asks its view for a file. No process can
// have such a name.
func FileKey(path string) string { return "file:" + path }

// Eval says whether deps are met, and in a sentence why not. The status is
// failed as soon as one dependency can no longer be met without somebody's
// help, else unmet as soon as one is not met, and none for no dependency at
// all. Files are asked for by FileKey.
func Eval(deps []Dep, view func(name string) (Target, bool)) (DepStatus, string) {
	status, detail := DepsNone, ""
	for _, d := range deps {
		st, why := evalOne(d, view)
		switch {
		case st == DepsFailed:
			return DepsFailed, why
		case st == DepsUnmet && status != DepsUnmet:
			status, detail = DepsUnmet, why
		case status == DepsNone:
			status = DepsMet
		}
	}
	return status, detail
}

func evalOne(d Dep, view func(name string) (Target, bool)) (DepStatus, string) {
	if d.File != "" {
		t, _ := view(FileKey(d.File))
		switch {
		case t.Exists:
			return DepsMet, ""
		case t.TimedOut:
			return DepsFailed, fmt.Sprintf("the file %s has not appeared within %s", d.File, d.Timeout)
		default:
			return DepsUnmet, fmt.Sprintf("waits for the file %s", d.File)
		}
	}
	t, ok := view(d.Process)
	if !ok || t.State == nil {
		return DepsFailed, fmt.Sprintf("depends on %s, which does not exist", d.Process)
	}
	s := t.State
	if holds(d.Condition, s) {
		return DepsMet, ""
	}
	if why := hopeless(d.Condition, s); why != "" {
		return DepsFailed, fmt.Sprintf("depends on %s, which %s", d.Process, why)
	}
	why := fmt.Sprintf("waits for %s to be %s; it is %s", d.Process, d.Condition, s.State)
	if s.State == api.StateStopped {
		why += " by hand until it is started"
	}
	return DepsUnmet, why
}

// holds says whether the condition is true now.
func holds(condition string, s *State) bool {
	live := s.State == api.StateRunning || s.State == api.StateStarting && s.PID != 0
	// A later generation than that of the last exit takes its word back.
	success := s.Exit != nil && s.Exit.Generation == s.Generation && s.Exit.Cause == "exit" &&
		!s.Exit.Failure && s.Exit.Signal == "" && s.Exit.Code == 0
	switch condition {
	case CondReady:
		return s.Ready && s.State == api.StateRunning
	case CondHealthy:
		return s.Health == api.HealthHealthy && s.State == api.StateRunning
	case CondCompleted:
		return success
	default:
		return live || success
	}
}

// hopeless says why the condition cannot become true without somebody's help, or nothing.
func hopeless(condition string, s *State) string {
	switch s.State {
	case api.StateFailed:
		return "is failed: " + s.Detail
	case api.StateDependencyFailed:
		return "cannot start: " + s.Detail
	case api.StateExited:
		// An end that counts as a success without being code 0, such as a
		// signal where that is no failure, never completes.
		if condition == CondCompleted || condition == CondStarted {
			return "has ended and is not restarted: " + s.Detail
		}
	}
	return ""
}

// Graph is who depends on whom. It is immutable and may be read by many at once.
type Graph struct {
	order      []string
	deps       map[string][]Dep
	dependents map[string][]string // direct
}

// NewGraph checks and orders the dependencies of each process. The keys are
// all processes. A dependency on a process that is not a key, and a circle, are
// errors that name the processes; all of them are told at once.
func NewGraph(all map[string][]Dep) (*Graph, error) {
	g := &Graph{deps: make(map[string][]Dep, len(all)), dependents: map[string][]string{}}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		g.deps[name] = slices.Clone(all[name])
		for _, d := range all[name] {
			if d.Process == "" {
				continue
			}
			if _, ok := all[d.Process]; !ok {
				errs = append(errs, fmt.Errorf("process %q depends on %q, which does not exist", name, d.Process))
				continue
			}
			if !slices.Contains(g.dependents[d.Process], name) {
				g.dependents[d.Process] = append(g.dependents[d.Process], name)
			}
		}
	}
	v := visitor{g: g, mark: map[string]int{}}
	for _, name := range names {
		v.visit(name)
	}
	if errs = append(errs, v.errs...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	g.order = v.done
	return g, nil
}

// visitor walks depth first; done receives each process after all it depends on.
type visitor struct {
	g    *Graph
	mark map[string]int // 1: on the path, 2: done
	path []string
	done []string
	errs []error
}

func (v *visitor) visit(name string) {
	switch v.mark[name] {
	case 1:
		at := slices.Index(v.path, name)
		circle := append(slices.Clone(v.path[at:]), name)
		v.errs = append(v.errs, fmt.Errorf("circular dependency: %s", strings.Join(circle, " -> ")))
		return
	case 2:
		return
	}
	v.mark[name] = 1
	v.path = append(v.path, name)
	for _, d := range v.g.deps[name] {
		if _, ok := v.g.deps[d.Process]; ok {
			v.visit(d.Process)
		}
	}
	v.path = v.path[:len(v.path)-1]
	v.mark[name] = 2
	v.done = append(v.done, name)
}

// Order returns all processes, each after everything that it depends on, and
// by name where the dependencies leave it open.
func (g *Graph) Order() []string { return slices.Clone(g.order) }

// Deps returns what a process depends on.
func (g *Graph) Deps(name string) []Dep { return slices.Clone(g.deps[name]) }

// Dependents returns the processes that name name in their dependencies, sorted.
func (g *Graph) Dependents(name string) []string { return slices.Clone(g.dependents[name]) }
