package definition

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/journal"
)

// ValidateAll checks a set of definitions by name, as they were written, with
// the settings beside them: each by itself (Validate), then what they say of
// each other. Fields begin with "processes.NAME." or "settings.". The order is
// by name, then settings.
func ValidateAll(defs map[string]api.Definition, s api.Settings) []api.Finding {
	c := &checker{}
	names := slices.Sorted(maps.Keys(defs))
	filled := FillAll(defs)
	for _, name := range names {
		d := defs[name]
		d.Name = name
		for _, f := range Validate(d) {
			f.Field = "processes." + name + "." + f.Field
			c.found = append(c.found, f)
		}
		for i, dep := range filled[name].DependsOn {
			if dep.Process != "" {
				c.dependency(name, i, dep, filled, names)
			}
		}
	}
	for _, cycle := range cycles(names, filled) {
		c.fail("processes."+cycle[0]+".depends_on", "remove one of these dependencies",
			"cannot start a circle of dependencies: %s", strings.Join(cycle, " -> "))
	}
	c.settings(s, filled, names)
	return c.found
}

func (c *checker) dependency(name string, i int, dep api.Dependency, defs map[string]api.Definition, names []string) {
	field := fmt.Sprintf("processes.%s.depends_on[%d]", name, i)
	target, ok := defs[dep.Process]
	switch {
	case dep.Process == name:
		c.fail(field, "remove it", "%q cannot depend on itself", name)
	case !ok:
		hint := "define it under processes, or remove it here"
		if s := Suggest(dep.Process, names); s != "" && s != name {
			hint = "did you mean " + quote(s) + "?"
		}
		c.fail(field, hint, "cannot find a process %q to depend on", dep.Process)
	case dep.Condition == "healthy" && target.Health == nil:
		c.fail(field, "add a health probe to "+quote(dep.Process)+", or use the condition started",
			"%q can never be healthy: it has no health probe", dep.Process)
	case dep.Condition == "completed" && !target.Oneshot && restartsAlways(target.Restart):
		c.fail(field, "make "+quote(dep.Process)+" a oneshot, or use the condition started",
			"%q can never be completed: it is started again after every exit", dep.Process)
	}
}

func restartsAlways(r api.RestartPolicy) bool {
	return r == api.RestartAlways || r == api.RestartUnlessStopped || r == api.RestartOnSuccess
}

// cycles finds circles of dependencies, each once, as names from the first one
// by alphabet back to itself. A dependency on itself is told elsewhere.
func cycles(names []string, defs map[string]api.Definition) [][]string {
	const (
		onPath = 1
		done   = 2
	)
	mark := make(map[string]int, len(names))
	var found [][]string
	var path []string
	var visit func(string)
	visit = func(name string) {
		mark[name] = onPath
		path = append(path, name)
		for _, dep := range defs[name].DependsOn {
			next := dep.Process
			if _, known := defs[next]; !known || next == name {
				continue
			}
			switch mark[next] {
			case onPath:
				found = append(found, rotate(path[slices.Index(path, next):]))
			case 0:
				visit(next)
			}
		}
		path = path[:len(path)-1]
		mark[name] = done
	}
	for _, name := range names {
		if mark[name] == 0 {
			visit(name)
		}
	}
	return found
}

func rotate(circle []string) []string {
	at := slices.Index(circle, slices.Min(circle))
	out := append(slices.Clone(circle[at:]), circle[:at]...)
	return append(out, out[0])
}

func (c *checker) settings(s api.Settings, filled map[string]api.Definition, names []string) {
	c.notNegative("settings.shutdown_timeout", s.ShutdownTimeout)
	for _, name := range names {
		st := filled[name].Stop
		if need := *st.Grace + st.KillWait; s.ShutdownTimeout > 0 && s.ShutdownTimeout <= need {
			c.fail("settings.shutdown_timeout", "write more than "+need.String()+", or leave it out",
				"cannot stop everything in %s: %q alone may take %s (stop.grace and stop.kill_wait)", s.ShutdownTimeout, name, need)
			break
		}
	}
	if s.Listen != "" {
		if _, _, err := net.SplitHostPort(s.Listen); err != nil {
			c.fail("settings.listen", "write it like 127.0.0.1:7070", "cannot listen on %q: it is not a host and a port", s.Listen)
		}
		if s.TokenFile == "" {
			c.fail("settings.listen", "set settings.token_file", "cannot listen on TCP without a token: whoever can connect can run programs") // N17
		}
	}
	if _, err := SyncEvery(s.Sync); err != nil {
		c.fail("settings.sync", "write a duration such as 100ms, 0s or off", "%v", err)
	}
	c.watchdog(s.Watchdog)
	c.notNegative("settings.events.max_age", s.Events.MaxAge)
	if s.Events.MaxCount < 0 {
		c.fail("settings.events.max_count", "write 1 or more", "cannot keep %d events", s.Events.MaxCount)
	}
}

// FillSettings returns s with its defaults. The set of definitions decides how
// long the stop of everything may take: the longest chain of dependencies, each
// with its grace and kill_wait, plus 5s, so that the deadline is never before
// the last SIGKILL (N11).
func FillSettings(s api.Settings, defs map[string]api.Definition) api.Settings {
	if s.ShutdownTimeout == 0 {
		s.ShutdownTimeout = api.Duration(longestStop(FillAll(defs)) + 5*time.Second)
	}
	if s.Sync == "" {
		s.Sync = journal.DefaultSyncEvery.String()
	}
	if s.Events.MaxAge == 0 {
		s.Events.MaxAge = api.Duration(720 * time.Hour)
	}
	if s.Events.MaxCount == 0 {
		s.Events.MaxCount = 1_000_000
	}
	return s
}

// SyncEvery reads settings.sync: the interval of the journal's fsync, which is
// below 0 for none.
func SyncEvery(text string) (time.Duration, error) {
	switch text {
	case "":
		return journal.DefaultSyncEvery, nil
	case "off":
		return -1, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("cannot read %q as the interval of a flush", text)
	}
	return d, nil
}

func longestStop(defs map[string]api.Definition) time.Duration {
	known := make(map[string]time.Duration, len(defs))
	var chain func(string) time.Duration
	chain = func(name string) time.Duration {
		if d, ok := known[name]; ok {
			return d
		}
		known[name] = 0 // a circle ends here; ValidateAll refuses it
		d := defs[name]
		var below time.Duration
		for _, dep := range d.DependsOn {
			if _, ok := defs[dep.Process]; ok {
				below = max(below, chain(dep.Process))
			}
		}
		known[name] = below + d.Stop.Grace.D() + d.Stop.KillWait.D()
		return known[name]
	}
	var longest time.Duration
	for name := range defs {
		longest = max(longest, chain(name))
	}
	return longest
}
