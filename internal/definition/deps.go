package definition

import (
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/supervise"
)

// Deps returns the dependencies of d for the pure machine. Conditions must have
// been filled in: their defaults depend on the other definitions (FillAll).
func Deps(d api.Definition) []supervise.Dep {
	if len(d.DependsOn) == 0 {
		return nil
	}
	out := make([]supervise.Dep, 0, len(d.DependsOn))
	for _, dep := range d.DependsOn {
		out = append(out, supervise.Dep{Process: dep.Process, Condition: dep.Condition, File: dep.File, Timeout: dep.Timeout.D()})
	}
	return out
}

// WithDependencies returns the names and all that they depend on, directly or
// through others.
func WithDependencies(defs []api.Definition, names []string) map[string]bool {
	byName := make(map[string]*api.Definition, len(defs))
	for i := range defs {
		byName[defs[i].Name] = &defs[i]
	}
	out := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		d := byName[name]
		if d == nil || out[name] {
			return
		}
		out[name] = true
		for _, dep := range d.DependsOn {
			add(dep.Process)
		}
	}
	for _, n := range names {
		add(n)
	}
	return out
}
