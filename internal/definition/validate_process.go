package definition

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/proc"
)

func (c *checker) environment(d api.Definition) {
	for _, key := range slices.Sorted(maps.Keys(d.Env)) {
		switch {
		case key == "" || strings.ContainsAny(key, "=\x00"):
			c.fail("env", "use letters, digits and _", "cannot set a variable named %q", key)
		case strings.ContainsRune(d.Env[key], 0):
			c.fail("env."+key, "remove the zero byte", "cannot set a variable to text with a zero byte")
		case ownVariable(key):
			c.warn("env."+key, "choose another name", "%s is set by Perdure for each process, so this value is not seen", key)
		}
	}
	for i, f := range d.EnvFile {
		if strings.TrimPrefix(f, "?") == "" {
			c.fail(fmt.Sprintf("env_file[%d]", i), "write the path of a .env file", "cannot read an env file without a name")
		}
	}
	for i, k := range d.EnvReload.OnlyRestartIfChanged {
		if k == "" {
			c.fail(fmt.Sprintf("env_reload.only_restart_if_changed[%d]", i), "write the name of a variable", "cannot watch a variable without a name")
		}
	}
}

func (c *checker) process(d api.Definition) {
	if d.Umask != "" {
		if _, err := parseUmask(d.Umask); err != nil {
			c.fail("umask", "write three or four octal digits in quotes, such as \"027\"", "cannot use %q as a umask", d.Umask)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Rlimits)) {
		if !slices.Contains(Rlimits(), name) {
			hint := "write one of " + list(Rlimits())
			if s := Suggest(name, Rlimits()); s != "" {
				hint = "did you mean " + quote(s) + "?"
			}
			c.fail("rlimits."+name, hint, "cannot find a resource limit %q", name)
			continue
		}
		if _, err := parseRlimit(name, d.Rlimits[name]); err != nil {
			c.fail("rlimits."+name, "write a number, \"soft:hard\" or \"unlimited\"", "%s", err)
		}
	}
	if d.Nice != nil && (*d.Nice < -20 || *d.Nice > 19) {
		c.fail("nice", "write -20 (first) to 19 (last)", "cannot use %d as a scheduling priority", *d.Nice)
	}
	if d.OOMScoreAdj != nil && (*d.OOMScoreAdj < -1000 || *d.OOMScoreAdj > 1000) {
		c.fail("oom_score_adj", "write -1000 (never) to 1000 (first)", "cannot use %d as an OOM score", *d.OOMScoreAdj)
	}
}

func (c *checker) dependencies(d api.Definition) {
	seen := map[string]bool{}
	for i, dep := range d.DependsOn {
		field := fmt.Sprintf("depends_on[%d]", i)
		c.word(field+".condition", "Dependency.Condition", dep.Condition)
		c.notNegative(field+".timeout", dep.Timeout)
		switch {
		case dep.Process == "" && dep.File == "":
			c.fail(field, "write the name of a process, or file: and a path", "cannot depend on nothing")
		case dep.Process != "" && dep.File != "":
			c.fail(field, "make two entries of it", "cannot depend on a process and a file in one entry")
		case dep.File != "" && (dep.Condition != "" || dep.Restart):
			c.fail(field, "remove condition and restart", "cannot ask more of a file than to exist")
		case dep.Process != "" && dep.Timeout != 0:
			c.fail(field+".timeout", "remove it, or set ready.deadline of "+quote(dep.Process), "cannot bound the wait for a process here")
		}
		key := "p " + dep.Process + "\x00" + dep.File
		if seen[key] && (dep.Process != "" || dep.File != "") {
			c.fail(field, "remove one of them", "%q is listed twice", dep.Process+dep.File)
		}
		seen[key] = true
	}
}

// relations checks what keys mean together, with preset and defaults laid under.
func (c *checker) relations(d api.Definition) {
	if _, err := Preset(d.Preset); err != nil {
		return
	}
	f := Fill(d)
	c.backoffRelations(d, f)
	c.restartRelations(d, f)
	c.probeRelations("ready", d.Ready, f.Ready)
	c.probeRelations("health", d.Health, f.Health)
	if p := f.Ready; p != nil && p.Deadline <= p.InitialDelay && p.InitialDelay > 0 {
		c.fail("ready.deadline", "make the deadline longer than initial_delay",
			"cannot become ready: the deadline of %s is over before the first ask at %s", p.Deadline, p.InitialDelay)
	}
	if f.Stable.From == "healthy" && f.Health == nil && d.Stable.From != "" {
		c.fail("stable.from", "add a health probe, or write from: start", "cannot count from healthy without a health probe")
	}
	c.presetRelations(d, f)
}

func (c *checker) backoffRelations(d, f api.Definition) {
	for _, b := range []struct {
		field    string
		own, all *api.Backoff
	}{{"backoff", &d.Backoff, &f.Backoff}, {"health.backoff", healthBackoff(d), healthBackoff(f)}} {
		if b.own == nil || b.all == nil || b.all.Kind == "fixed" || b.all.Initial == nil {
			continue
		}
		if *b.all.Initial > b.all.Max && b.all.Max > 0 && *b.all.Initial > 0 {
			field, hint := b.field+".max", "write a max of "+b.all.Initial.String()+" or more"
			if b.own.Max == 0 {
				field, hint = b.field+".initial", "set "+b.field+".max too"
			}
			c.fail(field, hint, "cannot wait %s at first and %s at most", b.all.Initial, b.all.Max)
		}
	}
	after := f.Stable.After
	if after != nil && *after == 0 && f.Stable.From == "start" && f.Backoff.Kind == "exponential" &&
		slices.Contains(f.Stable.Resets, "backoff") {
		c.warn("stable.after", "set stable.after to a time such as 10s",
			"every exit counts as a stable one, so the wait never grows beyond its first value") // N1
	}
}

func healthBackoff(d api.Definition) *api.Backoff {
	if d.Health == nil {
		return nil
	}
	return d.Health.Backoff
}

func (c *checker) restartRelations(d, f api.Definition) {
	if f.Restart == api.RestartNever && d.MaxRestarts != nil && *d.MaxRestarts != 0 {
		c.warn("max_restarts", "remove it, or set restart", "max_restarts does nothing: restart is never")
	}
	if d.SignalIsFailure == nil && !*f.SignalIsFailure {
		c.warn("preset", "set signal_is_failure: true to treat it as a failure",
			"with this preset a process that is killed or crashes by a signal counts as a success") // N2
	}
	if f.Oneshot && f.Restart == api.RestartAlways {
		c.warn("restart", "use on-failure or never", "a oneshot that restarts always is never completed")
	}
	if d.Breaker.ExitCode != 0 && f.Breaker.OnOpen != "exit" {
		c.warn("breaker.exit_code", "write on_open: exit", "exit_code does nothing unless on_open is exit")
	}
	if d.Breaker.Cooldown != 0 && f.Breaker.OnOpen != "retry" && f.Breaker.OnOpen != "cooldown" {
		c.warn("breaker.cooldown", "write on_open: retry or cooldown", "cooldown does nothing when on_open is %s", f.Breaker.OnOpen)
	}
}

func (c *checker) probeRelations(field string, own, p *api.Probe) {
	if p == nil {
		return
	}
	n := 0
	for _, set := range []bool{p.HTTP != nil, p.TCP != nil, p.Exec != nil, p.Port != 0, p.Notify != "", p.FD != 0, p.Log != ""} {
		if set {
			n++
		}
	}
	ways := "http, tcp, port and exec"
	if field == "ready" {
		ways = "http, tcp, port, exec, notify, fd and log"
	}
	switch n {
	case 0:
		c.fail(field, "write exactly one of "+ways, "cannot ask without a way to ask")
	case 1:
	default:
		c.fail(field, "write exactly one of "+ways, "cannot ask in %d ways at once", n)
	}
	if p.HTTP != nil && p.HTTP.URL == "" {
		c.fail(field+".http.url", "write it like http://127.0.0.1:8080/health", "cannot ask without an address")
	}
	if own != nil && (own.Timeout != 0 || own.Interval != 0) && p.Timeout > p.Interval && p.Interval > 0 {
		at := field + ".timeout"
		if own.Timeout == 0 {
			at = field + ".interval"
		}
		c.warn(at, "make the timeout shorter than the interval", "one ask may take %s, longer than the %s between two of them", p.Timeout, p.Interval)
	}
}

func (c *checker) presetRelations(d, f api.Definition) {
	switch d.Preset {
	case "ploinky-container-doc":
		if f.Health == nil {
			c.warn("preset", "set env.PORT, or write health.http.url", "this preset asks http://127.0.0.1:PORT/health, but the port is unknown: no health probe")
		}
	case "shogo":
		if f.Ready == nil {
			c.warn("preset", "set env.PORT, or write ready.http.url", "this preset asks http://127.0.0.1:PORT/health, but the port is unknown: no ready probe")
		}
	}
}

func parseUmask(s string) (int, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || len(s) > 4 {
		return 0, fmt.Errorf("cannot use %q as a umask", s)
	}
	return int(n), nil
}

// parseRlimit reads "n", "soft:hard" and "unlimited" (setrlimit(2)).
func parseRlimit(name, value string) (proc.Rlimit, error) {
	soft, hard, two := strings.Cut(value, ":")
	lim := proc.Rlimit{Name: name}
	var err error
	if lim.Soft, err = parseLimit(soft); err != nil {
		return lim, fmt.Errorf("cannot use %q as the limit of %s", value, name)
	}
	lim.Hard = lim.Soft
	if two {
		if lim.Hard, err = parseLimit(hard); err != nil {
			return lim, fmt.Errorf("cannot use %q as the limit of %s", value, name)
		}
	}
	if lim.Soft > lim.Hard {
		return lim, fmt.Errorf("cannot use %q as the limit of %s: the soft limit is above the hard one", value, name)
	}
	return lim, nil
}

func parseLimit(s string) (uint64, error) {
	if s == "unlimited" {
		return proc.Unlimited, nil
	}
	return strconv.ParseUint(s, 10, 64)
}
