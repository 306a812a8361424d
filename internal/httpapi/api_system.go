package httpapi

import (
	"context"
	"time"

	"github.com/perdure/perdure/api"
)

// none is the input of routes without parameters, and the output of those
// without a body.
type none struct{}

// answer is an answer with a JSON body.
type answer[T any] struct{ Body T }

func answerWith[T any](v T, err error) (*answer[T], error) {
	if err != nil {
		return nil, err
	}
	return &answer[T]{Body: v}, nil
}

// HealthStatus is the answer of /v1/health.
type HealthStatus struct {
	// Status is "ok": a server that cannot say so does not answer.
	Status string `json:"status"`
}

// health takes no lock and asks nobody, so that it tells only whether the
// server itself lives.
func (s *server) health(context.Context, *none) (*answer[HealthStatus], error) {
	return &answer[HealthStatus]{Body: HealthStatus{Status: "ok"}}, nil
}

func (s *server) info(ctx context.Context, _ *none) (*answer[api.Info], error) {
	return answerWith(s.backend.Info(ctx))
}

func (s *server) config(ctx context.Context, _ *none) (*answer[api.Config], error) {
	return answerWith(s.backend.Config(ctx))
}

func (s *server) doctor(ctx context.Context, _ *none) (*answer[[]api.Finding], error) {
	findings, err := s.backend.Doctor(ctx)
	if findings == nil {
		findings = []api.Finding{}
	}
	return answerWith(findings, err)
}

func (s *server) reload(ctx context.Context, _ *none) (*answer[api.ReloadResult], error) {
	return answerWith(s.backend.Reload(ctx))
}

type upgradeInput struct{ Body api.UpgradeRequest }

func (s *server) upgrade(ctx context.Context, in *upgradeInput) (*answer[api.UpgradeResult], error) {
	return answerWith(s.backend.Upgrade(ctx, in.Body))
}

// ShutdownRequest is the body of /v1/shutdown.
type ShutdownRequest struct {
	// Timeout is when what is left is killed. Default: the configured one.
	Timeout api.Duration `json:"timeout,omitempty"`
}

type shutdownInput struct {
	Body *ShutdownRequest // may be left out
}

func (s *server) shutdown(ctx context.Context, in *shutdownInput) (*none, error) {
	var timeout time.Duration
	if in.Body != nil {
		timeout = in.Body.Timeout.D()
	}
	if err := waitable(api.Duration(timeout)); err != nil {
		return nil, err
	}
	return nil, s.backend.Shutdown(ctx, timeout)
}

type openapiOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *server) openapi(context.Context, *none) (*openapiOutput, error) {
	return &openapiOutput{ContentType: "application/json", Body: s.specJSON}, nil
}
