package client

import (
	"context"
	"net/http"
	"time"

	"github.com/perdure/perdure/api"
)

// Info tells which Perdure answers.
func (c *Client) Info(ctx context.Context) (api.Info, error) {
	var out api.Info
	err := c.call(ctx, http.MethodGet, "/v1/info", nil, nil, &out)
	return out, err
}

// Reload reads the configuration files again and applies what changed.
func (c *Client) Reload(ctx context.Context) (api.ReloadResult, error) {
	var out api.ReloadResult
	err := c.call(ctx, http.MethodPost, "/v1/reload", nil, nil, &out)
	return out, err
}

// Config returns the configuration in force, with secrets hidden.
func (c *Client) Config(ctx context.Context) (api.Config, error) {
	var out api.Config
	err := c.call(ctx, http.MethodGet, "/v1/config", nil, nil, &out)
	return out, err
}

// Doctor returns what the server finds wrong or worth knowing.
func (c *Client) Doctor(ctx context.Context) ([]api.Finding, error) {
	var out []api.Finding
	err := c.call(ctx, http.MethodGet, "/v1/doctor", nil, nil, &out)
	return out, err
}

// Upgrade puts the program at req.Binary in the place of the supervisor, and then
// of the server, while all processes live on. It returns when the supervisor is
// the new one; the server follows at once: Info tells when it has.
func (c *Client) Upgrade(ctx context.Context, req api.UpgradeRequest) (api.UpgradeResult, error) {
	var out api.UpgradeResult
	err := c.call(ctx, http.MethodPost, "/v1/upgrade", nil, req, &out)
	return out, err
}

// Shutdown stops all processes and then Perdure itself, and returns when all
// processes are proven gone. What is left after the timeout is killed; 0 means
// the configured timeout.
func (c *Client) Shutdown(ctx context.Context, timeout time.Duration) error {
	in := struct {
		Timeout api.Duration `json:"timeout,omitempty"`
	}{api.Duration(timeout)}
	return c.call(ctx, http.MethodPost, "/v1/shutdown", nil, in, nil)
}
