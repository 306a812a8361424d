package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/config"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/fault"
)

// The sources of definitions: a reload removes only what a file brought.
const (
	sourceFile = "file"
	sourceAPI  = "api"
)

// InvalidConfig is returned by Start and Reload when a file is refused.
type InvalidConfig struct{ Findings []api.Finding }

// Error returns every finding that refuses, a line each.
func (e *InvalidConfig) Error() string {
	msg := "the configuration is refused"
	for _, f := range e.Findings {
		if f.Level == "error" {
			msg += "\n  " + config.Text(f)
		}
	}
	return msg
}

// Unwrap makes it an api.CodeInvalid that names the first field.
func (e *InvalidConfig) Unwrap() error { return invalid(e.Findings) }

// settled is a configuration with everything filled in.
type settled struct {
	config   *config.Config // nil without files
	written  map[string]api.Definition
	filled   map[string]api.Definition
	settings api.Settings
	warnings []api.Finding
}

// settle reads the files, adds the definitions that come from none, and fills
// in all defaults.
func settle(o Options) (*settled, error) {
	out := &settled{written: map[string]api.Definition{}}
	if len(o.Files) > 0 {
		cfg, findings, err := config.Load(o.Files, config.LoadOptions{})
		if err != nil {
			return nil, err
		}
		if cfg == nil || invalid(findings) != nil {
			return nil, &InvalidConfig{findings}
		}
		out.config, out.settings = cfg, cfg.Settings
		maps.Copy(out.written, cfg.Definitions)
		out.warnings = slices.DeleteFunc(findings, func(f api.Finding) bool { return f.Level != "warning" })
	}
	for _, d := range o.Definitions {
		out.written[d.Name] = d
	}
	if o.Listen != "" {
		out.settings.Listen = o.Listen
	}
	if o.TokenFile != "" {
		out.settings.TokenFile = o.TokenFile
	}
	if o.Sync != "" {
		out.settings.Sync = o.Sync
	}
	out.filled = definition.FillAll(out.written)
	if findings := definition.ValidateAll(out.filled, out.settings); invalid(findings) != nil {
		return nil, &InvalidConfig{findings}
	}
	out.settings = definition.FillSettings(out.settings, out.filled)
	return out, nil
}

// list returns the filled definitions by name.
func (c *settled) list() []api.Definition {
	out := make([]api.Definition, 0, len(c.filled))
	for _, name := range slices.Sorted(maps.Keys(c.filled)) {
		out = append(out, c.filled[name])
	}
	return out
}

// apply gives the supervisor the definitions of a configuration.
func (s *Server) apply(ctx context.Context, c *settled, boot bool) (control.ApplyResult, error) {
	defs := c.list()
	if len(s.o.Only) > 0 {
		if err := s.only(defs); err != nil {
			return control.ApplyResult{}, err
		}
	}
	fault.Here("server.apply.before")
	var res control.ApplyResult
	err := s.ask(ctx, true, func(sup control.Supervisor) error {
		var err error
		res, err = sup.Apply(ctx, control.ApplyRequest{Definitions: defs, Full: true, Boot: boot, Source: sourceFile,
			Settings: &control.Settings{Sync: api.Duration(c.sync())}})
		return err
	})
	fault.Here("server.apply.after")
	if err == nil && s.store != nil {
		s.store.SetSynchronous(synchronous(c.sync()))
	}
	return res, err
}

// sync is how often the journal is flushed to the disk.
func (c *settled) sync() time.Duration {
	// It was checked when the files were read.
	every, _ := definition.SyncEvery(c.settings.Sync)
	return every
}

// synchronous is how the database keeps the same promise as the journal, in the
// words of SQLite.
func synchronous(every time.Duration) string {
	switch {
	case every == 0:
		return "FULL"
	case every < 0:
		return "OFF"
	}
	return "NORMAL"
}

// only keeps those from starting that are neither named nor needed by one named.
func (s *Server) only(defs []api.Definition) error {
	wanted := definition.WithDependencies(defs, s.o.Only)
	for _, name := range s.o.Only {
		if !wanted[name] {
			return notFound(name)
		}
	}
	yes, no := true, false
	for i := range defs {
		defs[i].Autostart = &no
		if wanted[defs[i].Name] {
			defs[i].Autostart = &yes
		}
	}
	return nil
}

// Reload implements httpapi.Backend. A file that is refused changes nothing.
func (s *Server) Reload(ctx context.Context) (api.ReloadResult, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	c, err := settle(s.o)
	if err != nil {
		s.say(ctx, "config.rejected", map[string]any{"error": err.Error()})
		return api.ReloadResult{}, err
	}
	res, err := s.apply(ctx, c, false)
	if err != nil {
		return api.ReloadResult{}, err
	}
	s.mu.Lock()
	before := s.config
	s.config = c
	s.mu.Unlock()
	var settings []string
	if before.config != nil && c.config != nil {
		settings = config.Diff(before.config, c.config).Settings
	}
	s.watchEnv(ctx)
	fault.Here("server.reload.before_event")
	s.say(ctx, "config.reloaded", map[string]any{"added": res.Added, "changed": res.Changed, "removed": res.Removed, "settings": settings})
	return api.ReloadResult{Added: res.Added, Changed: res.Changed, Removed: res.Removed, Unchanged: res.Unchanged,
		Settings: settings, Warnings: c.warnings}, s.ask(ctx, true, func(sup control.Supervisor) error { return s.load(ctx, sup) })
}

// watchEnv begins to watch the env files of the configuration in force, and
// ends the watch of the one before. It is called with reloading held or before
// anybody else can call.
func (s *Server) watchEnv(ctx context.Context) {
	if s.env != nil {
		if err := s.env.Close(); err != nil {
			s.o.Logger.Warn("Cannot end the watch of env files", "error", err)
		}
		s.env = nil
	}
	if s.config.config == nil {
		return
	}
	// The watch outlives the request that began it.
	ctx = context.WithoutCancel(ctx)
	w, err := config.NewWatcher(s.config.config, func(c config.EnvChange) { s.background.Go(func() { s.envChanged(ctx, c) }) })
	if err != nil {
		s.o.Logger.Error("Cannot watch env files; reload by hand after a change", "error", err)
		return
	}
	s.env = w
}

// envChanged takes a change of env files over. Only what is active is restarted
// for it; the supervisor sees to that (N10).
func (s *Server) envChanged(ctx context.Context, change config.EnvChange) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if s.closing {
		return
	}
	for _, f := range change.Findings {
		s.o.Logger.Warn("Cannot take an env file over; the old values stay", "finding", config.Text(f))
	}
	if len(change.Definitions) == 0 {
		return
	}
	s.mu.Lock()
	c := *s.config
	s.mu.Unlock()
	c.written = maps.Clone(c.written)
	maps.Copy(c.written, change.Definitions)
	c.filled = definition.FillAll(c.written)
	var restart, hold []api.Definition
	for _, name := range change.Names {
		if slices.Contains(change.Restart, name) {
			restart = append(restart, c.filled[name])
		} else {
			hold = append(hold, c.filled[name])
		}
	}
	err := s.ask(ctx, true, func(sup control.Supervisor) error {
		_, err := sup.Apply(ctx, control.ApplyRequest{Definitions: restart, Source: sourceFile})
		if err == nil {
			_, err = sup.Apply(ctx, control.ApplyRequest{Definitions: hold, Source: sourceFile, Hold: true})
		}
		return err
	})
	if err != nil {
		s.o.Logger.Error("Cannot apply a change of env files", "error", err)
		return
	}
	s.mu.Lock()
	s.config = &c
	s.mu.Unlock()
	s.say(ctx, "config.env_changed", map[string]any{"processes": change.Names, "restarted": change.Restart})
}

// define completes a definition that came over the API: the default of a
// dependency's condition depends on the process that it names.
func (s *Server) define(def api.Definition) (api.Definition, error) {
	all := map[string]api.Definition{}
	for _, name := range s.table.names() {
		if _, d, err := s.table.get(name); err == nil && d != nil {
			all[name] = *d
		}
	}
	all[def.Name] = def
	full := definition.FillAll(all)[def.Name]
	if err := invalid(append(definition.Validate(full), config.CheckSchemas(full)...)); err != nil {
		return full, err
	}
	for _, d := range full.DependsOn {
		if _, ok := all[d.Process]; d.Process != "" && !ok {
			return full, &api.Error{Code: api.CodeInvalid, Field: "depends_on", Message: fmt.Sprintf("there is no process %q", d.Process)}
		}
	}
	return full, nil
}
