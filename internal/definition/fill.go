package definition

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// Fill returns d with every key set: what d says, else its preset, else the
// default that the key's comment in api tells. It is done key by key, so a
// backoff that sets only max keeps the preset's initial. An explicit empty
// list counts as set. An unknown preset is passed over: Validate refuses it.
// Fill of a filled definition changes nothing. Maps, slices and pointers may
// be shared with d.
func Fill(d api.Definition) api.Definition {
	if p, err := Preset(d.Preset); err == nil && d.Preset != "" && d.Preset != "default" {
		d = overlay(d, p)
	}
	if d.Oneshot && d.Restart == "" {
		d.Restart = api.RestartNever
	}
	base := defaults()
	if m := jitterMode(d.Backoff.Jitter); m != "" && m != "add" {
		base.Backoff.Jitter = api.Jitter{}
	}
	merge(reflect.ValueOf(&d).Elem(), reflect.ValueOf(base))
	fillBackoff(&d.Backoff)
	if d.Breaker.Cooldown == 0 {
		d.Breaker.Cooldown = d.Breaker.Window
	}
	if d.Breaker.ExitCode == 0 {
		d.Breaker.ExitCode = 1
	}
	d.Ready = fillProbe(d.Ready, readyDefaults())
	d.Health = fillProbe(d.Health, healthDefaults())
	d.DependsOn = fillFiles(d.DependsOn)
	d.Heartbeat = fillHeartbeat(d.Heartbeat)
	d.Limits = fillLimits(d.Limits)
	return d
}

// overlay lays the preset p under d.
func overlay(d, p api.Definition) api.Definition {
	p.Ready = presetProbe(d.Ready, p.Ready, d.Env["PORT"])
	p.Health = presetProbe(d.Health, p.Health, d.Env["PORT"])
	if d.Oneshot {
		// A preset speaks of services: its policy would start a finished job again.
		p.Restart = ""
	}
	if m := jitterMode(d.Backoff.Jitter); m != "" && m != p.Backoff.Jitter.Mode {
		p.Backoff.Jitter = api.Jitter{}
	}
	if d.Breaker.Window != 0 {
		p.Breaker.Cooldown = 0
	}
	merge(reflect.ValueOf(&d).Elem(), reflect.ValueOf(p))
	return d
}

// presetProbe returns what the preset's probe p adds to the definition's own
// probe own: nothing when there is no way to ask, and never a second way.
func presetProbe(own, p *api.Probe, port string) *api.Probe {
	if p == nil {
		return nil
	}
	c := *p
	if c.HTTP != nil {
		h := *c.HTTP
		c.HTTP = nil
		switch url := portURL(h.URL, port); {
		case own == nil || !asks(own):
			if url != "" {
				h.URL = url
				c.HTTP = &h
			}
		case own.HTTP != nil:
			h.URL = url
			if len(own.HTTP.Status) > 0 || len(own.HTTP.JSON) > 0 {
				h.Status, h.JSON = nil, nil
			}
			c.HTTP = &h
		}
	}
	if own == nil {
		if c.HTTP == nil {
			return nil
		}
		return &c
	}
	if own.Pause != 0 {
		c.Backoff = nil
	}
	if own.Backoff != nil {
		c.Pause = 0
	}
	return &c
}

// asks says whether a probe has a way to ask, or the process says it by itself.
func asks(p *api.Probe) bool {
	return p.HTTP != nil || p.TCP != nil || p.Exec != nil || p.Port != 0 || SaysReady(p)
}

// portURL puts the port into the address of a preset; "" when it is unknown.
func portURL(url, port string) string {
	if port == "" {
		if !strings.Contains(url, "${PORT:-8080}") {
			return ""
		}
		port = "8080"
	}
	return strings.NewReplacer("${PORT:-8080}", port, "${PORT}", port).Replace(url)
}

func readyDefaults() api.Probe {
	return api.Probe{Interval: api.Duration(500 * time.Millisecond), Timeout: api.Duration(1500 * time.Millisecond),
		Failures: 3, Successes: 1, Deadline: api.Duration(time.Minute), OnTimeout: "fail"}
}

func healthDefaults() api.Probe {
	return api.Probe{Interval: api.Duration(10 * time.Second), Timeout: api.Duration(5 * time.Second),
		Failures: 3, Successes: 1, OnFail: "restart"}
}

func fillProbe(p *api.Probe, base api.Probe) *api.Probe {
	if p == nil {
		return nil
	}
	c := *p
	merge(reflect.ValueOf(&c).Elem(), reflect.ValueOf(base))
	if c.Port != 0 && c.TCP == nil {
		c.TCP, c.Port = &api.TCPProbe{Address: "127.0.0.1:" + strconv.Itoa(c.Port)}, 0
	}
	if c.HTTP != nil && len(c.HTTP.Status) == 0 {
		h := *c.HTTP
		h.Status = api.Strings{"2xx"}
		c.HTTP = &h
	}
	if c.Backoff != nil {
		b := *c.Backoff
		merge(reflect.ValueOf(&b).Elem(), reflect.ValueOf(api.Backoff{Kind: "exponential", Initial: dur(time.Second),
			Max: api.Duration(30 * time.Second), Multiplier: 2}))
		fillBackoff(&b)
		c.Backoff = &b
	}
	return &c
}

// jitterMode is the mode that is set, or that the other keys imply.
func jitterMode(j api.Jitter) string {
	switch {
	case j.Mode != "":
		return j.Mode
	case j.Lo != 0 || j.Hi != 0:
		return "scale"
	case j.Frac != 0:
		return "add"
	}
	return ""
}

// fillBackoff fills in what depends on the mode of the jitter.
func fillBackoff(b *api.Backoff) {
	j := &b.Jitter
	if j.Mode = jitterMode(*j); j.Mode == "" {
		j.Mode = "add"
	}
	if j.Mode == "scale" && j.Lo == 0 && j.Hi == 0 {
		j.Lo, j.Hi = 0.5, 1.5
	}
	if j.Mode == "add" && j.Frac == 0 {
		j.Frac = 0.1
	}
}

func fillFiles(deps []api.Dependency) []api.Dependency {
	out := deps
	for i, dep := range deps {
		if dep.File != "" && dep.Timeout == 0 {
			if &out[0] == &deps[0] {
				out = append([]api.Dependency(nil), deps...)
			}
			out[i].Timeout = api.Duration(time.Minute)
		}
	}
	return out
}

// FillAll fills a set of definitions by name, and the condition of each
// dependency, which depends on the one it names: completed for a oneshot,
// ready or healthy where it has such a probe, else started. Definitions with a
// pidnap preset keep its rule: completed where the other never restarts, else
// started.
func FillAll(defs map[string]api.Definition) map[string]api.Definition {
	out := make(map[string]api.Definition, len(defs))
	for name, d := range defs {
		d.Name = name
		out[name] = Fill(d)
	}
	for name, d := range out {
		deps := append([]api.Dependency(nil), d.DependsOn...)
		for i, dep := range deps {
			target, ok := out[dep.Process]
			if dep.Process == "" || dep.Condition != "" || !ok {
				continue
			}
			deps[i].Condition = condition(d, target)
		}
		d.DependsOn = deps
		out[name] = d
	}
	return out
}

func condition(d, target api.Definition) string {
	switch {
	case strings.HasPrefix(d.Preset, "pidnap"):
		if target.Restart == api.RestartNever {
			return "completed"
		}
		return "started"
	case target.Oneshot:
		return "completed"
	case target.Ready != nil:
		return "ready"
	case target.Health != nil:
		return "healthy"
	}
	return "started"
}

// merge sets the zero fields of dst to those of src, into structs and pointers
// to structs. It never writes through a pointer of dst: it replaces it by a
// copy first, because definitions are shared.
func merge(dst, src reflect.Value) {
	for i := range dst.NumField() {
		d, s := dst.Field(i), src.Field(i)
		switch {
		case d.Kind() == reflect.Struct:
			merge(d, s)
		case d.IsZero():
			d.Set(s)
		case d.Kind() == reflect.Pointer && d.Type().Elem().Kind() == reflect.Struct && !s.IsNil():
			c := reflect.New(d.Type().Elem())
			c.Elem().Set(d.Elem())
			merge(c.Elem(), s.Elem())
			d.Set(c)
		}
	}
}
