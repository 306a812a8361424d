package definition

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/wire"
)

// Ways in which workers reach Perdure; the empty one is none.
const (
	TransportUnix = "unix"
	TransportTCP  = "tcp"
)

// Transport returns how the workers of d reach Perdure. Somebody else's process
// cannot reach a socket that is this user's alone, and so has TCP.
func Transport(d api.Definition) string {
	switch d.Worker {
	case "off":
		return ""
	case TransportUnix, TransportTCP:
		return d.Worker
	}
	if runtime.GOOS == "windows" || d.User != "" {
		return TransportTCP
	}
	return TransportUnix
}

// Notifies says whether the process of d gets a socket for sd_notify messages.
func Notifies(d api.Definition) bool {
	return runtime.GOOS == "linux" && (d.Heartbeat != nil || d.Ready != nil && d.Ready.Notify == "sd_notify")
}

// SaysReady says that a process itself says when it is ready, and is not asked.
func SaysReady(p *api.Probe) bool { return p != nil && (p.Notify != "" || p.FD != 0 || p.Log != "") }

// maxMetadata is the longest metadata that goes through the environment.
const maxMetadata = 32 << 10

// Metadata returns the metadata of d as JSON, nil when there is none, and
// whether it may stand in the environment of the process, where others can read
// it (proc_pid_environ(5)).
func Metadata(d api.Definition) (text json.RawMessage, open bool) {
	if len(d.Metadata) == 0 {
		return nil, false
	}
	text, err := json.Marshal(d.Metadata)
	if err != nil {
		return nil, false // Validate has refused it
	}
	return text, len(text) <= maxMetadata && reflect.DeepEqual(redactAny(d.Metadata), any(d.Metadata))
}

func fillHeartbeat(h *api.Heartbeat) *api.Heartbeat {
	if h == nil {
		return nil
	}
	c := *h
	if c.Interval == 0 {
		c.Interval = api.Duration(5 * time.Second)
	}
	if c.Timeout == 0 {
		c.Timeout = api.Duration(30 * time.Second)
	}
	if c.Grace == 0 {
		c.Grace = c.Timeout
	}
	if c.Kill == nil {
		c.Kill = new(2 * c.Timeout)
	}
	return &c
}

func fillLimits(l *api.Limits) *api.Limits {
	if l == nil {
		return nil
	}
	c := *l
	if c.Interval == 0 {
		c.Interval = api.Duration(time.Second)
	}
	if c.OnExceed == "" {
		c.OnExceed = "restart"
	}
	return &c
}

// FillWatchdog lays the settings of a watchdog under a definition as it was written.
func FillWatchdog(d api.Definition, w *api.Watchdog) api.Definition {
	if w == nil {
		return d
	}
	if w.KillGrace > 0 && d.Stop.Grace == nil {
		d.Stop.Grace = new(w.KillGrace)
	}
	if w.Interval > 0 && d.Limits != nil && d.Limits.Interval == 0 {
		l := *d.Limits
		l.Interval = w.Interval
		d.Limits = &l
	}
	return d
}

// watchdog says what becomes of the settings of a watchdog.
func (c *checker) watchdog(w *api.Watchdog) {
	if w == nil {
		return
	}
	at := "settings.watchdog"
	c.notNegative(at+".interval", w.Interval)
	c.notNegative(at+".kill_grace", w.KillGrace)
	if w.Enabled != nil {
		c.warn(at+".enabled", "remove it", "it means nothing here: the supervisor always watches, in a process of its own")
	}
	if w.Services != nil {
		c.warn(at+".services", "remove it; write heartbeat: or limits: where a process is to be watched",
			"it means nothing here: whatever has a heartbeat or limits is watched")
	}
	if w.Interval > 0 {
		c.warn(at+".interval", "write limits.interval where it matters",
			"it is the default of limits.interval; heartbeats and runtimes need no interval, they are timers")
	}
	if w.KillGrace > 0 {
		c.warn(at+".kill_grace", "write stop.grace where it matters", "it is the default of stop.grace")
	}
}

// worker checks how a process speaks to Perdure and what bounds it.
func (c *checker) worker(d api.Definition) {
	c.word("worker", "Definition.Worker", d.Worker)
	c.heartbeat(d)
	c.limits(d.Limits)
	c.declared("events", d.Events)
	c.declared("commands", d.Commands)
	c.saysReady(d)
	if _, err := json.Marshal(d.Metadata); err != nil {
		c.fail("metadata", "write text, numbers, lists and maps", "cannot pass metadata on: %v", err)
	}
}

func (c *checker) heartbeat(d api.Definition) {
	h := d.Heartbeat
	if h == nil {
		return
	}
	c.notNegative("heartbeat.interval", h.Interval)
	c.notNegative("heartbeat.timeout", h.Timeout)
	c.notNegative("heartbeat.grace", h.Grace)
	f := fillHeartbeat(h)
	if h.Kill != nil {
		c.notNegative("heartbeat.kill", *h.Kill)
		if *h.Kill > 0 && *h.Kill < f.Timeout {
			c.fail("heartbeat.kill", "write "+f.Timeout.String()+" or more, or 0s for never",
				"cannot end a process after %s without a heartbeat: it is stale only after %s", *h.Kill, f.Timeout)
		}
	}
	if f.Timeout > 0 && f.Timeout <= f.Interval {
		c.warn("heartbeat.timeout", "make it at least twice the interval",
			"a heartbeat each %s comes too late for a timeout of %s", f.Interval, f.Timeout)
	}
	if d.Worker == "off" {
		c.warn("heartbeat", "write worker: on, unless the program speaks sd_notify",
			"workers cannot connect (worker: off), so only WATCHDOG=1 of sd_notify is a heartbeat")
	}
}

func (c *checker) limits(l *api.Limits) {
	if l == nil {
		return
	}
	c.word("limits.on_exceed", "Limits.OnExceed", l.OnExceed)
	c.notNegative("limits.runtime", l.Runtime)
	c.notNegative("limits.dwell", l.Dwell)
	c.notNegative("limits.interval", l.Interval)
	if l.Interval > 0 && l.Interval < api.Duration(100*time.Millisecond) {
		c.fail("limits.interval", "write 100ms or more", "cannot measure every %s", l.Interval)
	}
	if l.Memory < 0 {
		c.fail("limits.memory", "write a size such as 512MiB", "cannot allow %d bytes", l.Memory)
	}
	if !(l.CPU >= 0 && l.CPU <= 1e6) {
		c.fail("limits.cpu", "write a number of cores such as 1.5", "cannot allow %v cores", l.CPU)
	}
	if l.PIDs < 0 {
		c.fail("limits.pids", "write 1 or more", "cannot allow %d processes", l.PIDs)
	}
	if l.OpenFiles < 0 {
		c.fail("limits.open_files", "write 1 or more", "cannot allow %d open files", l.OpenFiles)
	}
	if l.Runtime == 0 && l.Memory == 0 && l.CPU == 0 && l.PIDs == 0 && l.OpenFiles == 0 {
		c.warn("limits", "write runtime, memory, cpu, pids or open_files", "there is no limit in it")
	}
}

// declared checks the names of events and commands, and that what stands by them
// may be a schema. Whether it is one, internal/schema says.
func (c *checker) declared(field string, m map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		at := field + "." + name
		if !wire.ValidName([]byte(name)) {
			c.fail(at, "use letters, digits and _ - . : with a letter or digit first, 128 at most", "cannot use %q as a name here", name)
		}
		switch m[name].(type) {
		case map[string]any, bool, nil:
		case string:
			c.fail(at, "write the schema itself", "cannot read the schema from a file here")
		default:
			c.fail(at, "write a JSON Schema, the path of a file that holds one, or true", "cannot use this as a schema")
		}
	}
}

// saysReady checks the ways in which a process itself says that it is ready.
func (c *checker) saysReady(d api.Definition) {
	if h := d.Health; SaysReady(h) {
		c.fail("health", "move notify, fd and log to ready; for health write heartbeat:", "cannot ask for health by notify, fd or log")
	}
	for _, p := range []struct {
		field string
		*api.Probe
	}{{"ready", d.Ready}, {"health", d.Health}} {
		if p.Probe != nil && (p.Port < 0 || p.Port > 65535) {
			c.fail(p.field+".port", "write 1 to 65535", "cannot connect to port %d", p.Port)
		}
	}
	p := d.Ready
	if p == nil {
		return
	}
	c.word("ready.notify", "Probe.Notify", p.Notify)
	if p.Notify == "worker" && d.Worker == "off" {
		c.fail("ready.notify", "write worker: on", "cannot hear a worker: workers cannot connect (worker: off)")
	}
	if p.FD != 0 && (p.FD < 3 || p.FD > 9) {
		c.fail("ready.fd", "write 3 to 9", "cannot give the process the descriptor %d", p.FD)
	}
	if p.Log != "" {
		if _, err := regexp.Compile(p.Log); err != nil {
			c.fail("ready.log", "write a regular expression such as \"listening on\"", "%s", strings.TrimPrefix(fmt.Sprint(err), "error parsing regexp: "))
		}
	}
}
