package httpapi

import (
	"context"

	"github.com/danielgtaylor/huma/v2"
	"github.com/perdure/perdure/api"
)

// Named is the input of routes about one process. (Huma sees parameters of
// exported embedded types only.) The pattern keeps anything
// that is no name, such as "..", away from what lies behind.
type Named struct {
	Name string `path:"name" pattern:"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$" patternDescription:"name of a process" doc:"Name of the process"`
}

type processesInput struct {
	Names []string `query:"name,explode" doc:"Names or globs; none means all"`
}

func (s *server) processes(ctx context.Context, in *processesInput) (*answer[[]api.Process], error) {
	list, err := s.backend.Processes(ctx, in.Names)
	if list == nil {
		list = []api.Process{}
	}
	return answerWith(list, err)
}

func (s *server) process(ctx context.Context, in *Named) (*answer[api.Process], error) {
	return answerWith(s.backend.Process(ctx, in.Name))
}

func (s *server) definition(ctx context.Context, in *Named) (*answer[api.Definition], error) {
	return answerWith(s.backend.Definition(ctx, in.Name))
}

type defineInput struct {
	Named
	Body api.Definition
}

func (s *server) define(ctx context.Context, in *defineInput) (*answer[api.Process], error) {
	if in.Body.Name != "" && in.Body.Name != in.Name {
		e := api.Errorf(api.CodeInvalid, "cannot define %s under the path of %s; leave the name out or make them equal", in.Body.Name, in.Name)
		e.Field = "name"
		return nil, e
	}
	in.Body.Name = in.Name
	return answerWith(s.backend.Define(ctx, in.Body))
}

func (s *server) remove(ctx context.Context, in *Named) (*none, error) {
	return nil, s.backend.Remove(ctx, in.Name)
}

type commandInput struct {
	Named
	Body api.CommandRequest
}

func (s *server) command(ctx context.Context, in *commandInput) (*answer[api.Process], error) {
	switch in.Body.Verb {
	case "start", "stop", "restart", "reset", "kill":
	case "signal":
		if in.Body.Signal == "" {
			return nil, &api.Error{Code: api.CodeInvalid, Message: "cannot send a signal without its name, such as HUP", Field: "signal"}
		}
	default:
		e := api.Errorf(api.CodeInvalid, "cannot %q a process: the verbs are start, stop, restart, reset, signal and kill", in.Body.Verb)
		e.Field = "verb"
		return nil, e
	}
	if err := waitable(in.Body.Timeout); err != nil {
		return nil, err
	}
	return answerWith(s.backend.Command(ctx, in.Name, in.Body))
}

// VerbRequest is the body of the routes that have a command's verb in their
// path; it may be left out.
type VerbRequest struct {
	// Signal is for signal, such as "HUP".
	Signal string `json:"signal,omitempty"`
	// Force is for start: even if the breaker is open.
	Force bool `json:"force,omitempty"`
	// Wait says to answer only when the command has come true.
	Wait bool `json:"wait,omitempty"`
	// Timeout bounds Wait. Default 1m.
	Timeout api.Duration `json:"timeout,omitempty"`
}

type verbInput struct {
	Named
	Body *VerbRequest // may be left out
}

// verb binds a route whose path says the verb.
func verb(name string) func(*server, huma.API, huma.Operation) {
	return typed(func(s *server, ctx context.Context, in *verbInput) (*answer[api.Process], error) {
		var b VerbRequest
		if in.Body != nil {
			b = *in.Body
		}
		return s.command(ctx, &commandInput{Named: in.Named, Body: api.CommandRequest{
			Verb: name, Signal: b.Signal, Force: b.Force, Wait: b.Wait, Timeout: b.Timeout,
		}})
	})
}

// waitable refuses a time that nobody can wait.
func waitable(timeout api.Duration) error {
	if timeout < 0 {
		return &api.Error{Code: api.CodeInvalid, Message: "cannot wait a negative time", Field: "timeout"}
	}
	return nil
}

type waitInput struct {
	Named
	Body api.WaitRequest
}

func (s *server) wait(ctx context.Context, in *waitInput) (*answer[api.Process], error) {
	if err := waitable(in.Body.Timeout); err != nil {
		return nil, err
	}
	return answerWith(s.backend.Wait(ctx, in.Name, in.Body))
}

type sendInput struct {
	Named
	Body api.SendRequest
}

func (s *server) send(ctx context.Context, in *sendInput) (*answer[api.SendResult], error) {
	if err := waitable(in.Body.Timeout); err != nil {
		return nil, err
	}
	return answerWith(s.backend.Send(ctx, in.Name, in.Body))
}
