package server

import (
	"context"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
)

// spoken is what the supervisor knows of workers, by the name of the process.
type spoken map[string]api.Worker

// fill adds to p what is known of its workers.
func (s spoken) fill(p *api.Process) {
	if w, ok := s[p.Name]; ok {
		p.Worker = &w
	}
}

// workersTime bounds the question about workers: what is known of the processes
// themselves is not kept waiting for long.
const workersTime = time.Second

// workers asks the supervisor what it knows of the workers of one process, or of
// all. It lives in the supervisor's memory alone: without one nothing is known.
func (s *Server) workers(ctx context.Context, name string) spoken {
	sup, err := s.att.get()
	if err != nil {
		return nil
	}
	a, ok := sup.(control.Attendant)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, workersTime)
	defer cancel()
	all, err := a.Workers(ctx, name)
	if err != nil {
		return nil // it is about to be replaced, or does not know the question yet
	}
	return all
}

// Send implements httpapi.Backend. It is not sent twice: when the supervisor dies
// under it, that is told.
func (s *Server) Send(ctx context.Context, name string, req api.SendRequest) (api.SendResult, error) {
	if _, _, err := s.table.get(name); err != nil {
		return api.SendResult{}, err
	}
	var out api.SendResult
	err := s.ask(ctx, false, func(sup control.Supervisor) (err error) {
		a, ok := sup.(control.Attendant)
		if !ok {
			return api.Errorf(api.CodeConflict, "cannot send to %q: this supervisor serves no workers", name)
		}
		out.Reply, err = a.Send(ctx, name, req)
		return err
	})
	return out, err
}
