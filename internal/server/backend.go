package server

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/config"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/httpapi"
)

var _ httpapi.Backend = (*Server)(nil)

// waitDefault bounds a wait that nobody gave a timeout for.
const waitDefault = time.Minute

// Info implements httpapi.Backend.
func (s *Server) Info(ctx context.Context) (api.Info, error) {
	info := api.Info{Version: s.o.Version, PID: os.Getpid(), StartedAt: s.started, StateDir: s.o.StateDir, Files: s.o.Files,
		Troubles: s.troubles(ctx)}
	sup, away, _ := s.att.told()
	if info.SupervisorAway = away; away == "" {
		info.SupervisorPID = sup.PID
	}
	return info, nil
}

// Processes implements httpapi.Backend.
func (s *Server) Processes(ctx context.Context, globs []string) ([]api.Process, error) {
	names, err := match(s.table.names(), globs)
	if err != nil {
		return nil, err
	}
	spoken := s.workers(ctx, "")
	c := readClock()
	out := make([]api.Process, 0, len(names))
	for _, name := range names {
		rec, def, err := s.table.get(name)
		if err != nil {
			continue // removed meanwhile
		}
		p := view(rec, def, c)
		s.sampler.fill(&p, rec)
		spoken.fill(&p)
		out = append(out, p)
	}
	return out, nil
}

// match returns the names that any of the globs means, in order.
func match(names, globs []string) ([]string, error) {
	if len(globs) == 0 {
		return names, nil
	}
	hit := map[string]bool{}
	for _, g := range globs {
		found := false
		for _, n := range names {
			ok, err := path.Match(g, n)
			if err != nil {
				return nil, api.Errorf(api.CodeInvalid, "cannot read %q as a glob: %v", g, err)
			}
			if ok {
				hit[n], found = true, true
			}
		}
		if !found && !strings.ContainsAny(g, "*?[") {
			return nil, notFound(g)
		}
	}
	var out []string
	for _, n := range names {
		if hit[n] {
			out = append(out, n)
		}
	}
	return out, nil
}

// Process implements httpapi.Backend.
func (s *Server) Process(ctx context.Context, name string) (api.Process, error) {
	rec, def, err := s.table.get(name)
	if err != nil {
		return api.Process{}, err
	}
	return s.show(ctx, rec, def), nil
}

func (s *Server) show(ctx context.Context, rec control.Record, def *api.Definition) api.Process {
	p := view(rec, def, readClock())
	s.sampler.fill(&p, rec)
	s.workers(ctx, rec.Name).fill(&p)
	return p
}

// Definition implements httpapi.Backend.
func (s *Server) Definition(_ context.Context, name string) (api.Definition, error) {
	_, def, err := s.table.get(name)
	if err != nil {
		return api.Definition{}, err
	}
	if def == nil {
		return api.Definition{}, api.Errorf(api.CodeUnavailable, "the definition of %q is not here yet", name)
	}
	return definition.Redact(*def), nil
}

// Check tells the first thing that is wrong with a definition, as an
// api.CodeInvalid that names the field.
func Check(def api.Definition) error {
	return invalid(append(definition.Validate(definition.Fill(def)), config.CheckSchemas(def)...))
}

// Define implements httpapi.Backend.
func (s *Server) Define(ctx context.Context, def api.Definition) (api.Process, error) {
	if row, _, err := s.table.get(def.Name); err == nil && row.Source == sourceFile {
		return api.Process{}, api.Errorf(api.CodeConflict, "cannot define %q: it stands in a file; change the file and reload", def.Name)
	}
	full, err := s.define(def)
	if err != nil {
		return api.Process{}, err
	}
	err = s.ask(ctx, true, func(sup control.Supervisor) error {
		if _, err := sup.Apply(ctx, control.ApplyRequest{Definitions: []api.Definition{full}, Source: sourceAPI}); err != nil {
			return err
		}
		return s.load(ctx, sup)
	})
	if err != nil {
		return api.Process{}, err
	}
	return s.Process(ctx, def.Name)
}

// invalid makes an error of the first finding that refuses.
func invalid(findings []api.Finding) error {
	for _, f := range findings {
		if f.Level == "error" {
			return &api.Error{Code: api.CodeInvalid, Field: f.Field, Message: f.Message}
		}
	}
	return nil
}

// Remove implements httpapi.Backend.
func (s *Server) Remove(ctx context.Context, name string) error {
	_, _, absent := s.table.get(name)
	rec, err := s.order(ctx, control.Command{Verb: "remove", Name: name})
	if api.CodeOf(err) == api.CodeNotFound && absent == nil {
		return nil // a supervisor that died has removed it already
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, waitDefault)
	defer cancel()
	// Whoever has the name next has another id.
	_, err = s.table.await(ctx, name, func(r control.Record, _ *api.Definition) (bool, error) { return r.ID != rec.ID, nil })
	if api.CodeOf(err) == api.CodeNotFound {
		return nil
	}
	return timedOut(err, "%q is still being removed", name)
}

// Command implements httpapi.Backend.
func (s *Server) Command(ctx context.Context, name string, req api.CommandRequest) (api.Process, error) {
	before, _, err := s.table.get(name)
	if err != nil {
		return api.Process{}, err
	}
	rec, err := s.order(ctx, control.Command{Verb: req.Verb, Name: name, Signal: req.Signal, Force: req.Force})
	if err != nil {
		return api.Process{}, err
	}
	if req.Wait {
		ctx, cancel := within(ctx, req.Timeout)
		defer cancel()
		if rec, err = s.table.await(ctx, name, outcome(req.Verb, before, rec)); err != nil {
			return api.Process{}, timedOut(err, "%q is %s: %s", name, rec.State.State, because(rec.State))
		}
	} else {
		s.shown(ctx, rec)
	}
	_, def, err := s.table.get(name)
	if err != nil {
		def = rec.Definition
	}
	return s.show(ctx, rec, def), nil
}

// showTime bounds the wait for what a command has done to be shown.
const showTime = time.Second

// shown waits until whoever looks sees what a command has done. That takes as long
// as the event log takes the entry; where it cannot, the command is done all the same.
func (s *Server) shown(ctx context.Context, rec control.Record) {
	ctx, cancel := context.WithTimeout(ctx, showTime)
	defer cancel()
	_, _ = s.table.await(ctx, rec.Name, func(r control.Record, _ *api.Definition) (bool, error) { return r.Seq >= rec.Seq, nil }) //ok: see above
}

// order gives a command to the supervisor. A restart and a signal are not given
// twice: when the supervisor dies under them, that is told.
func (s *Server) order(ctx context.Context, cmd control.Command) (rec control.Record, err error) {
	again := cmd.Verb != "restart" && cmd.Verb != "signal"
	err = s.ask(ctx, again, func(sup control.Supervisor) error {
		rec, err = sup.Command(ctx, cmd)
		return err
	})
	return rec, err
}

// outcome says when a command has come true. It judges only records that are
// at least as new as the one the command left.
func outcome(verb string, before, after control.Record) func(control.Record, *api.Definition) (bool, error) {
	fresh := func(r control.Record) bool { return r.Seq >= after.Seq }
	superseded := func(r control.Record, by string) error {
		return api.Errorf(api.CodeConflict, "the %s of %q was overtaken by a %s", verb, r.Name, by)
	}
	switch verb {
	case "start", "restart":
		ready, _ := condition("ready")
		return func(r control.Record, d *api.Definition) (bool, error) {
			switch {
			case !fresh(r):
				return false, nil
			case r.State.Desired == api.DesiredStopped && r.State.State != api.StateExited:
				return false, superseded(r, "stop")
			case verb == "restart" && before.State.Alive && r.State.Generation <= before.State.Generation:
				return false, nil
			}
			return ready(r, d)
		}
	case "stop", "kill":
		return func(r control.Record, _ *api.Definition) (bool, error) {
			if !fresh(r) {
				return false, nil
			}
			if r.State.Desired == api.DesiredRunning {
				return false, superseded(r, "start")
			}
			return atRest(r.State), nil
		}
	}
	return func(r control.Record, _ *api.Definition) (bool, error) { return fresh(r), nil }
}

// Wait implements httpapi.Backend.
func (s *Server) Wait(ctx context.Context, name string, req api.WaitRequest) (api.Process, error) {
	ok, err := condition(req.For)
	if err != nil {
		return api.Process{}, err
	}
	ctx, cancel := within(ctx, req.Timeout)
	defer cancel()
	rec, err := s.table.await(ctx, name, ok)
	if err != nil {
		return api.Process{}, timedOut(err, "%q is not %s, it is %s: %s", name, req.For, rec.State.State, because(rec.State))
	}
	_, def, _ := s.table.get(name)
	return s.show(ctx, rec, def), nil
}

func within(ctx context.Context, d api.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		d = api.Duration(waitDefault)
	}
	return context.WithTimeout(ctx, d.D())
}

// timedOut makes an error for people of the end of a wait.
func timedOut(err error, format string, args ...any) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return api.Errorf(api.CodeTimeout, "timed out: "+format, args...)
	}
	return err
}

// Events implements httpapi.Backend.
func (s *Server) Events(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	return s.events.Query(ctx, q)
}

// FollowEvents implements httpapi.Backend.
func (s *Server) FollowEvents(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error] {
	return s.events.Follow(ctx, q)
}

// Config implements httpapi.Backend.
func (s *Server) Config(context.Context) (api.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := api.Config{Files: s.o.Files, Settings: s.config.settings, Definitions: map[string]api.Definition{}}
	for name, d := range s.config.filled {
		out.Definitions[name] = definition.Redact(d)
	}
	return out, nil
}

// Shutdown implements httpapi.Backend.
func (s *Server) Shutdown(ctx context.Context, timeout time.Duration) error {
	return s.Stop(ctx, timeout)
}

// shutdownTimeout is the settings', or, with processes that came over the API,
// enough for all of them.
func (s *Server) shutdownTimeout() time.Duration {
	all := map[string]api.Definition{}
	for _, name := range s.table.names() {
		if _, def, err := s.table.get(name); err == nil && def != nil {
			all[name] = *def
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	enough := definition.FillSettings(api.Settings{}, all).ShutdownTimeout
	if s.config.written != nil && len(all) == len(s.config.written) {
		enough = s.config.settings.ShutdownTimeout
	}
	return max(enough, s.config.settings.ShutdownTimeout).D()
}

// newEvent makes an event of the server's own.
func newEvent(typ string, data map[string]any) api.Event {
	e := api.Event{Time: time.Now().UTC(), Type: typ}
	if len(data) > 0 {
		// The data is made of JSON's own types, so this cannot fail.
		e.Data, _ = json.Marshal(data)
	}
	return e
}
