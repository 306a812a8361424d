package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/perdure/perdure/api"
)

// Processes returns the processes whose names match any of the globs, by name;
// without globs all. A plain name that does not exist is CodeNotFound.
func (c *Client) Processes(ctx context.Context, globs ...string) ([]api.Process, error) {
	var out []api.Process
	err := c.call(ctx, http.MethodGet, "/v1/processes", url.Values{"name": globs}, nil, &out)
	return out, err
}

// Process returns one process, or CodeNotFound.
func (c *Client) Process(ctx context.Context, name string) (api.Process, error) {
	var out api.Process
	err := c.call(ctx, http.MethodGet, processPath(name, ""), nil, nil, &out)
	return out, err
}

// Definition returns the definition of a process, complete with defaults and
// with secrets hidden.
func (c *Client) Definition(ctx context.Context, name string) (api.Definition, error) {
	var out api.Definition
	err := c.call(ctx, http.MethodGet, processPath(name, "/definition"), nil, nil, &out)
	return out, err
}

// Define adds the process def.Name or changes it, and starts it unless its
// autostart is false. It returns when the change is persisted.
func (c *Client) Define(ctx context.Context, def api.Definition) (api.Process, error) {
	var out api.Process
	err := c.call(ctx, http.MethodPut, processPath(def.Name, ""), nil, def, &out)
	return out, err
}

// Remove stops a process and forgets it.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, processPath(name, ""), nil, nil, nil)
}

// Command gives a command to a process and returns the process as it is then.
// With req.Wait it returns when the command has come true.
func (c *Client) Command(ctx context.Context, name string, req api.CommandRequest) (api.Process, error) {
	var out api.Process
	err := c.call(ctx, http.MethodPost, processPath(name, "/command"), nil, req, &out)
	return out, err
}

// Wait returns when the process is what req says, or CodeTimeout. When it can
// no longer become so the code is CodeFailed.
func (c *Client) Wait(ctx context.Context, name string, req api.WaitRequest) (api.Process, error) {
	var out api.Process
	err := c.call(ctx, http.MethodPost, processPath(name, "/wait"), nil, req, &out)
	return out, err
}

// Send gives a command to the worker of a process and returns its reply, or, when
// req names no command, sends it a value. A worker that replies with an error is
// CodeFailed, and no worker CodeConflict.
func (c *Client) Send(ctx context.Context, name string, req api.SendRequest) (api.SendResult, error) {
	var out api.SendResult
	err := c.call(ctx, http.MethodPost, processPath(name, "/send"), nil, req, &out)
	return out, err
}
