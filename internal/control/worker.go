package control

import (
	"context"
	"encoding/json"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/session"
)

// Worker is what is remembered of the workers of one process, in journal entries
// of a key of their own. The events of such an entry are what they have said.
type Worker struct {
	// Generation is the one that Status, Progress and MainPID are of.
	Generation uint64        `json:"generation,omitempty"`
	Status     string        `json:"status,omitempty"`
	Progress   *api.Progress `json:"progress,omitempty"`
	MainPID    int           `json:"main_pid,omitempty"`
	// Marks say up to which id the messages of each instance are settled.
	Marks []session.Mark `json:"marks,omitempty"`
	// Port and Token are for workers on TCP: a process that lives goes on with
	// those that it was given.
	Port  int    `json:"port,omitempty"`
	Token string `json:"token,omitempty"`
}

// Attendant is a Supervisor that the workers of processes connect to.
type Attendant interface {
	// Workers tells what is known of the workers of one process, or of all when
	// the name is empty, by the name of the process. Processes that never had one
	// are left out.
	Workers(ctx context.Context, name string) (map[string]api.Worker, error)
	// Send gives a command to a process's worker and returns its reply, or sends
	// it a value and returns null.
	Send(ctx context.Context, name string, req api.SendRequest) (json.RawMessage, error)
}

// workersParams are the parameters of workers.
type workersParams struct {
	Name string `json:"name,omitempty"`
}

// sendParams are the parameters of send.
type sendParams struct {
	Name    string          `json:"name"`
	Request api.SendRequest `json:"request"`
}

// attend answers the methods of an Attendant.
func (c *serverConn) attend(ctx context.Context, req request) outcome {
	a, ok := c.sup.(Attendant)
	if !ok {
		return noSuchMethod(req.Method)
	}
	if req.Method == methodWorkers {
		return call(req, func(p workersParams) (any, error) { return a.Workers(ctx, p.Name) })
	}
	return call(req, func(p sendParams) (any, error) { return a.Send(ctx, p.Name, p.Request) })
}

// Workers implements Attendant.
func (c *Client) Workers(ctx context.Context, name string) (map[string]api.Worker, error) {
	return ask[map[string]api.Worker](ctx, c, methodWorkers, workersParams{Name: name})
}

// Send implements Attendant.
func (c *Client) Send(ctx context.Context, name string, req api.SendRequest) (json.RawMessage, error) {
	return ask[json.RawMessage](ctx, c, methodSend, sendParams{Name: name, Request: req})
}

var _ Attendant = (*Client)(nil)
