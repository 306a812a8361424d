package definition

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/api"
)

// Levels of findings.
const (
	levelError   = "error"
	levelWarning = "warning"
)

// checker collects findings under a path.
type checker struct {
	found []api.Finding
}

func (c *checker) add(level, field, hint, format string, args ...any) {
	c.found = append(c.found, api.Finding{Level: level, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *checker) fail(field, hint, format string, args ...any) {
	c.add(levelError, field, hint, format, args...)
}

func (c *checker) warn(field, hint, format string, args ...any) {
	c.add(levelWarning, field, hint, format, args...)
}

// word checks a key with a closed list; "" means not set.
func (c *checker) word(field, key, value string) {
	words := Words(key)
	if value == "" || slices.Contains(words, value) {
		return
	}
	hint := "write one of " + list(words)
	if s := Suggest(value, words); s != "" {
		hint = "did you mean " + quote(s) + "? " + hint
	}
	c.fail(field, hint, "cannot use %q here", value)
}

func (c *checker) notNegative(field string, d api.Duration) {
	if d < 0 {
		c.fail(field, "write a duration of 0s or more", "cannot use the negative duration %s", d)
	}
}

func (c *checker) signal(field, name string) {
	if _, ok := Signal(name); ok {
		return
	}
	hint := "write a name of signal(7), such as TERM, INT or HUP"
	if s := Suggest(strings.TrimPrefix(strings.ToUpper(name), "SIG"), signals()); s != "" {
		hint = "did you mean " + quote(s) + "?"
	}
	c.fail(field, hint, "cannot find a signal %q", name)
}

// Validate checks one definition as it was written (not filled) and returns
// all that is wrong with it, and what is worth a warning, at once. Fields are
// paths in the definition, such as "backoff.max". What concerns other
// definitions is in ValidateAll.
func Validate(d api.Definition) []api.Finding {
	c := &checker{}
	if !ValidName(d.Name) {
		c.fail("name", "use letters, digits, - and _, a letter or digit first, 63 at most", "cannot use %q as the name of a process", d.Name)
	}
	c.word("preset", "Definition.Preset", d.Preset)
	c.command("command", d.Command)
	c.words(d)
	c.restarts(d)
	c.backoff("backoff", d.Backoff)
	c.breaker(d.Breaker)
	c.stable(d)
	c.probe("ready", d.Ready)
	c.probe("health", d.Health)
	c.probeKinds(d)
	c.stop(d.Stop)
	c.logs(d.Logs)
	c.environment(d)
	c.process(d)
	c.dependencies(d)
	c.worker(d)
	c.relations(d)
	return c.found
}

func (c *checker) command(field string, cmd api.Command) {
	if len(cmd) == 0 || cmd[0] == "" {
		c.fail(field, "write the program to run, such as: command: [\"./server\", \"--port\", \"8080\"]", "cannot run a process without a command")
	}
	for i, arg := range cmd {
		if strings.ContainsRune(arg, 0) {
			c.fail(fmt.Sprintf("%s[%d]", field, i), "remove the zero byte", "cannot pass a zero byte to a program")
		}
	}
}

func (c *checker) words(d api.Definition) {
	c.word("restart", "Definition.Restart", string(d.Restart))
	c.word("on_no_restart", "Definition.OnNoRestart", d.OnNoRestart)
	c.word("max_restarts_scope", "Definition.MaxRestartsScope", d.MaxRestartsScope)
	c.word("reap_group_on_exit", "Definition.ReapGroupOnExit", d.ReapGroupOnExit)
	c.word("env_reload.mode", "EnvReload.Mode", d.EnvReload.Mode)
	c.notNegative("env_reload.debounce", d.EnvReload.Debounce)
}

func (c *checker) restarts(d api.Definition) {
	for i, code := range d.NoRestartCodes {
		if code < 0 || code > 255 {
			c.fail(fmt.Sprintf("no_restart_codes[%d]", i), "exit codes are 0 to 255", "cannot meet an exit code %d", code)
		}
	}
	switch n := d.NoRestartCodeMin; {
	case n < 0:
		c.fail("no_restart_code_min", "write 1 to 127, or leave it out", "cannot use the negative exit code %d", n)
	case n > 127:
		c.fail("no_restart_code_min", "write 1 to 127; use no_restart_signals for deaths by a signal",
			"cannot use %d: codes from 128 mean \"ended by a signal\" and are not concerned", n)
	}
	for i, s := range d.NoRestartSignals {
		c.signal(fmt.Sprintf("no_restart_signals[%d]", i), s)
	}
	if d.MaxRestarts != nil && *d.MaxRestarts < -1 {
		c.fail("max_restarts", "write -1 for no limit, 0 for none", "cannot allow %d restarts", *d.MaxRestarts)
	}
}

func (c *checker) backoff(field string, b api.Backoff) {
	c.word(field+".kind", "Backoff.Kind", b.Kind)
	c.word(field+".jitter.mode", "Jitter.Mode", b.Jitter.Mode)
	if b.Initial != nil {
		c.notNegative(field+".initial", *b.Initial)
	}
	c.notNegative(field+".max", b.Max)
	c.notNegative(field+".reset_after", b.ResetAfter)
	// Zero means not set; the comparison is false for a NaN.
	if b.Multiplier != 0 && !(b.Multiplier >= 1 && b.Multiplier <= 1000) {
		c.fail(field+".multiplier", "write 1 to 1000; 2 doubles the wait each time", "cannot use %v as the factor between waits", b.Multiplier)
	}
	if b.FirstExponent != 0 && b.FirstExponent != 1 {
		c.fail(field+".first_exponent", "write 0 or 1", "cannot use %d as the first exponent", b.FirstExponent)
	}
	j := b.Jitter
	if !(j.Frac >= 0 && j.Frac <= 10) {
		c.fail(field+".jitter.frac", "write a fraction of the wait, such as 0.1", "cannot add %v of the wait", j.Frac)
	}
	switch {
	case !(j.Lo >= 0 && j.Lo <= 100):
		c.fail(field+".jitter.lo", "write a factor such as 0.5", "cannot scale a wait by %v", j.Lo)
	case !(j.Hi >= 0 && j.Hi <= 100):
		c.fail(field+".jitter.hi", "write a factor such as 1.5", "cannot scale a wait by %v", j.Hi)
	case j.Lo > j.Hi:
		c.fail(field+".jitter.lo", "write lo <= hi", "cannot scale a wait between %v and %v: lo is above hi", j.Lo, j.Hi)
	}
}

func (c *checker) breaker(b api.Breaker) {
	c.word("breaker.mode", "Breaker.Mode", b.Mode)
	c.word("breaker.count", "Breaker.Count", b.Count)
	c.word("breaker.on_open", "Breaker.OnOpen", b.OnOpen)
	if b.Failures < -1 {
		c.fail("breaker.failures", "write 1 or more, or -1 to turn the breaker off", "cannot count %d failures", b.Failures)
	}
	c.notNegative("breaker.window", b.Window)
	c.notNegative("breaker.cooldown", b.Cooldown)
	if b.ExitCode < 0 || b.ExitCode > 255 {
		c.fail("breaker.exit_code", "exit codes are 0 to 255", "cannot end with exit code %d", b.ExitCode)
	}
}

func (c *checker) stable(d api.Definition) {
	c.word("stable.from", "Stable.From", d.Stable.From)
	if d.Stable.After != nil {
		c.notNegative("stable.after", *d.Stable.After)
	}
	for i, r := range d.Stable.Resets {
		field := fmt.Sprintf("stable.resets[%d]", i)
		c.word(field, "Stable.Resets", r)
		if r == "" {
			c.fail(field, "write one of "+list(Words("Stable.Resets")), "cannot reset nothing")
		}
	}
}

func (c *checker) probe(field string, p *api.Probe) {
	if p == nil {
		return
	}
	c.word(field+".on_timeout", "Probe.OnTimeout", p.OnTimeout)
	c.word(field+".on_fail", "Probe.OnFail", p.OnFail)
	for _, k := range []struct {
		key string
		d   api.Duration
	}{{"interval", p.Interval}, {"timeout", p.Timeout}, {"initial_delay", p.InitialDelay}, {"deadline", p.Deadline}, {"pause", p.Pause}} {
		c.notNegative(field+"."+k.key, k.d)
	}
	if p.Failures < 0 {
		c.fail(field+".failures", "write 1 or more", "cannot count %d noes", p.Failures)
	}
	if p.Successes < 0 {
		c.fail(field+".successes", "write 1 or more", "cannot count %d yeses", p.Successes)
	}
	if p.Backoff != nil {
		c.backoff(field+".backoff", *p.Backoff)
		if p.Pause != 0 {
			c.fail(field+".pause", "keep one of pause and backoff", "cannot wait both by pause and by backoff")
		}
	}
	c.httpProbe(field+".http", p.HTTP)
	if p.TCP != nil {
		c.tcpProbe(field+".tcp.address", p.TCP.Address)
	}
	if p.Exec != nil {
		c.command(field+".exec.command", p.Exec.Command)
	}
}

func (c *checker) httpProbe(field string, p *api.HTTPProbe) {
	if p == nil {
		return
	}
	// An absent address may come from the preset; relations looks again after Fill.
	if p.URL != "" {
		u, err := url.Parse(p.URL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			c.fail(field+".url", "write it like http://127.0.0.1:8080/health", "cannot ask %q: it is not an http or https address", redactURL(p.URL))
		}
	}
	for i, s := range p.Status {
		n, err := strconv.Atoi(s)
		class := len(s) == 3 && s[0] >= '1' && s[0] <= '5' && s[1:] == "xx"
		if !class && (err != nil || n < 100 || n > 599) {
			c.fail(fmt.Sprintf("%s.status[%d]", field, i), "write a status such as 200, or a class such as 2xx", "cannot expect the status %q", s)
		}
	}
}

func (c *checker) tcpProbe(field, addr string) {
	hint := "write it like 127.0.0.1:5432 or unix:/run/app.sock"
	if sock, ok := strings.CutPrefix(addr, "unix:"); ok {
		if sock == "" || !path.IsAbs(sock) {
			c.fail(field, hint, "cannot connect to %q: the path of the socket is not absolute", addr)
		}
		return
	}
	_, port, err := net.SplitHostPort(addr)
	if n, e := strconv.Atoi(port); err != nil || e != nil || n < 1 || n > 65535 {
		c.fail(field, hint, "cannot connect to %q: it is not a host and a port", addr)
	}
}

// probeKinds warns of keys that the other kind of probe owns.
func (c *checker) probeKinds(d api.Definition) {
	if p := d.Ready; p != nil {
		if p.OnFail != "" || p.Pause != 0 || p.Backoff != nil {
			c.warn("ready", "move it to health", "on_fail, pause and backoff do nothing in ready")
		}
	}
	if p := d.Health; p != nil {
		if p.OnTimeout != "" || p.Deadline != 0 {
			c.warn("health", "move it to ready", "deadline and on_timeout do nothing in health")
		}
	}
	if d.Backoff.ResetAfter != 0 {
		c.warn("backoff.reset_after", "use stable.after", "reset_after applies to health.backoff only")
	}
}

func (c *checker) stop(s api.StopPolicy) {
	if s.Signal != "" {
		c.signal("stop.signal", s.Signal)
	}
	if s.Grace != nil {
		c.notNegative("stop.grace", *s.Grace)
	}
	c.notNegative("stop.kill_wait", s.KillWait)
}

func (c *checker) logs(l api.Logs) {
	if l.MaxSize != 0 && l.MaxSize < 4096 {
		c.fail("logs.max_size", "write 4KiB or more", "cannot keep log segments of %d bytes", l.MaxSize)
	}
	c.word("logs.on_full", "Logs.OnFull", l.OnFull)
	c.notNegative("logs.max_age", l.MaxAge)
	if l.MaxFiles < 0 {
		c.fail("logs.max_files", "write 1 or more", "cannot keep %d files", l.MaxFiles)
	}
}
