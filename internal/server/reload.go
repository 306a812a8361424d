package server

import (
	"context"
	"errors"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/config"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
)

// The sources of definitions: a reload removes only what a file brought.
const (
	sourceFile = "file"
	sourceAPI  = "api"
)

// InvalidConfig is returned by Start and Reload when a file is refused.
type InvalidConfig struct{ Findings []api.Finding }

// Error returns the first finding that refuses, and how many there are.
func (e *InvalidConfig) Error() string {
	msg := "the configuration is refused"
	if err := invalid(e.Findings); err != nil {
		msg = err.Error()
	}
	return msg
}

// Unwrap makes it an api.CodeInvalid.
func (e *InvalidConfig) Unwrap() error { return invalid(e.Findings) }

// loadConfig reads the files and adds the definitions that come from none.
func loadConfig(o Options) (*config.Config, []api.Finding, error) {
	cfg, findings, err := config.Load(o.Files, config.LoadOptions{Definitions: o.Definitions})
	if err != nil {
		return nil, findings, err
	}
	if invalid(findings) != nil {
		return nil, findings, &InvalidConfig{findings}
	}
	return cfg, findings, nil
}

// overridden puts what the command line says over the settings.
func overridden(s api.Settings, o Options) api.Settings {
	if o.Listen != "" {
		s.Listen = o.Listen
	}
	if o.TokenFile != "" {
		s.TokenFile = o.TokenFile
	}
	return s
}

// apply gives the supervisor the definitions of a configuration.
func (s *Server) apply(ctx context.Context, cfg *config.Config, boot bool) (control.ApplyResult, error) {
	sup, err := s.supervisor()
	if err != nil {
		return control.ApplyResult{}, err
	}
	defs := cfg.Definitions()
	if len(s.o.Only) > 0 {
		no := false
		wanted := definition.WithDependencies(defs, s.o.Only)
		for i := range defs {
			if !wanted[defs[i].Name] {
				defs[i].Autostart = &no
			}
		}
	}
	return sup.Apply(ctx, control.ApplyRequest{Definitions: defs, Full: true, Boot: boot, Source: sourceFile})
}

// Reload implements httpapi.Backend. A file that is refused changes nothing.
func (s *Server) Reload(ctx context.Context) (api.ReloadResult, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	cfg, findings, err := loadConfig(s.o)
	if err != nil {
		s.say(ctx, "config.rejected", map[string]any{"error": err.Error()})
		return api.ReloadResult{Warnings: findings}, err
	}
	res, err := s.apply(ctx, cfg, false)
	if err != nil {
		return api.ReloadResult{}, err
	}
	s.mu.Lock()
	s.config, s.settings = cfg, overridden(cfg.Settings, s.o)
	s.mu.Unlock()
	if s.env != nil {
		s.env.Update(cfg)
	}
	out := api.ReloadResult{Added: res.Added, Changed: res.Changed, Removed: res.Removed, Unchanged: res.Unchanged}
	for _, f := range findings {
		if f.Level == "warning" {
			out.Warnings = append(out.Warnings, f)
		}
	}
	s.say(ctx, "config.reloaded", map[string]any{"added": res.Added, "changed": res.Changed, "removed": res.Removed})
	return out, s.load(ctx)
}

// watchEnv applies changes of env files. Only an active process is restarted
// for one; the supervisor sees to that (N10).
func (s *Server) watchEnv(ctx context.Context) {
	w, err := config.NewWatcher(s.config, func(changed []api.Definition, err error) {
		if err != nil {
			s.o.Logger.Warn("Cannot read an env file; the old values stay", "error", err)
			s.say(ctx, "config.rejected", map[string]any{"error": err.Error()})
			return
		}
		s.envChanged(ctx, changed)
	})
	if err != nil {
		s.o.Logger.Error("Cannot watch env files", "error", err)
		return
	}
	s.mu.Lock()
	s.env = w
	s.mu.Unlock()
	<-ctx.Done()
	if err := w.Close(); err != nil {
		s.o.Logger.Warn("Cannot end the watch of env files", "error", err)
	}
}

func (s *Server) envChanged(ctx context.Context, changed []api.Definition) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	sup, err := s.supervisor()
	if err == nil {
		_, err = sup.Apply(ctx, control.ApplyRequest{Definitions: changed, Source: sourceFile})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		s.o.Logger.Error("Cannot apply a change of env files", "error", err)
		return
	}
	names := make([]string, len(changed))
	for i := range changed {
		names[i] = changed[i].Name
	}
	s.say(ctx, "config.env_changed", map[string]any{"processes": names})
}
