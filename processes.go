package perdure

import (
	"context"
	"crypto/rand"
	"iter"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/server"
)

// Processes defines, starts and stops processes.
type Processes struct {
	server *server.Server

	mu   sync.Mutex
	defs map[string]api.Definition
}

func newProcesses(s *server.Server) *Processes {
	return &Processes{server: s, defs: map[string]api.Definition{}}
}

// Define keeps a definition under its name for Spawn. It starts nothing. A
// definition that is wrong is api.CodeInvalid and names the field.
func (p *Processes) Define(def api.Definition) error {
	if err := server.Check(def); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.defs[def.Name] = def
	return nil
}

// SpawnOptions says how one process differs from its definition.
type SpawnOptions struct {
	// Name is the process's name. Default: the definition's name if no process
	// has it, else that name with a random suffix.
	Name string
	// Args are added to the command.
	Args []string
	// Env is laid over the definition's.
	Env map[string]string
	// Metadata is kept with the process and shown with it.
	Metadata map[string]any
}

// Spawn makes a process of a definition and starts it. It returns when the
// start is decided and persisted; Wait waits for more.
func (p *Processes) Spawn(ctx context.Context, definition string, o SpawnOptions) (api.Process, error) {
	p.mu.Lock()
	def, ok := p.defs[definition]
	p.mu.Unlock()
	if !ok {
		return api.Process{}, api.Errorf(api.CodeNotFound, "cannot find definition %q; call Define first", definition)
	}
	def.Origin = definition
	def.Name = o.Name
	if def.Name == "" {
		def.Name = definition
		if _, err := p.server.Process(ctx, definition); err == nil {
			def.Name = definition + "-" + strings.ToLower(rand.Text()[:6])
		}
	}
	def.Command = append(append(api.Command{}, def.Command...), o.Args...)
	def.Env = laidOver(def.Env, o.Env)
	def.Metadata = laidOver(def.Metadata, o.Metadata)
	return p.server.Define(ctx, def)
}

// laidOver is base with the keys of over put in.
func laidOver[V any](base, over map[string]V) map[string]V {
	if len(over) == 0 {
		return base
	}
	out := make(map[string]V, len(base)+len(over))
	maps.Copy(out, base)
	maps.Copy(out, over)
	return out
}

// Get returns a process by name, or api.CodeNotFound.
func (p *Processes) Get(ctx context.Context, name string) (api.Process, error) {
	return p.server.Process(ctx, name)
}

// List returns the processes whose names match any of the globs, all without one.
func (p *Processes) List(ctx context.Context, globs ...string) ([]api.Process, error) {
	return p.server.Processes(ctx, globs)
}

// Start starts a process and returns when it is ready.
func (p *Processes) Start(ctx context.Context, name string) (api.Process, error) {
	return p.command(ctx, name, "start")
}

// Stop stops a process and returns when it is proven gone.
func (p *Processes) Stop(ctx context.Context, name string) (api.Process, error) {
	return p.command(ctx, name, "stop")
}

// Restart ends a process and starts its next generation, and returns when that
// is ready.
func (p *Processes) Restart(ctx context.Context, name string) (api.Process, error) {
	return p.command(ctx, name, "restart")
}

// Reset zeroes the counters of a process and takes it out of failed. It starts
// nothing.
func (p *Processes) Reset(ctx context.Context, name string) (api.Process, error) {
	return p.command(ctx, name, "reset")
}

// Signal sends a signal, such as "HUP", to the process's group.
func (p *Processes) Signal(ctx context.Context, name, signal string) error {
	_, err := p.server.Command(ctx, name, api.CommandRequest{Verb: "signal", Signal: signal})
	return err
}

// Wait waits until a process is something (see api.WaitRequest), at most for
// the timeout (0: one minute).
func (p *Processes) Wait(ctx context.Context, name, what string, timeout time.Duration) (api.Process, error) {
	return p.server.Wait(ctx, name, api.WaitRequest{For: what, Timeout: api.Duration(timeout)})
}

// Remove stops a process and forgets it.
func (p *Processes) Remove(ctx context.Context, name string) error { return p.server.Remove(ctx, name) }

// Logs yields log lines of processes.
func (p *Processes) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogLine, error] {
	return p.server.Logs(ctx, q)
}

func (p *Processes) command(ctx context.Context, name, verb string) (api.Process, error) {
	return p.server.Command(ctx, name, api.CommandRequest{Verb: verb, Wait: true})
}

// Events reads the event log.
type Events struct{ server *server.Server }

// Subscribe yields the events that match a pattern ("process.*.exited" style;
// "*" stands for any text; empty for all) with a greater place than after, then
// goes on with new ones until ctx ends. No event is lost or doubled, however
// slow the reader is, and no reader slows anything.
func (e *Events) Subscribe(ctx context.Context, pattern string, after uint64) iter.Seq2[api.Event, error] {
	return e.server.FollowEvents(ctx, api.EventQuery{Pattern: pattern, After: after})
}

// Query returns a page of events.
func (e *Events) Query(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	return e.server.Events(ctx, q)
}
