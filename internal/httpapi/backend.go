package httpapi

import (
	"context"
	"iter"
	"time"

	"github.com/perdure/perdure/api"
)

// Backend is what the routes ask; internal/server fills it. All errors are
// *api.Error or become api.CodeInternal.
type Backend interface {
	Info(ctx context.Context) (api.Info, error)
	// Processes returns the processes whose names match any of the globs, by
	// name; none means all. A name without a glob that matches nothing is
	// CodeNotFound.
	Processes(ctx context.Context, globs []string) ([]api.Process, error)
	Process(ctx context.Context, name string) (api.Process, error)
	// Definition returns a definition with secrets hidden.
	Definition(ctx context.Context, name string) (api.Definition, error)
	// Define adds a process or changes it, and starts it unless autostart is false.
	Define(ctx context.Context, def api.Definition) (api.Process, error)
	// Remove stops a process and forgets it.
	Remove(ctx context.Context, name string) error
	Command(ctx context.Context, name string, req api.CommandRequest) (api.Process, error)
	Wait(ctx context.Context, name string, req api.WaitRequest) (api.Process, error)
	// Send gives a command to the worker of a process and waits for its reply, or
	// sends it a value.
	Send(ctx context.Context, name string, req api.SendRequest) (api.SendResult, error)

	Events(ctx context.Context, q api.EventQuery) (api.EventPage, error)
	// FollowEvents replays after q.After (or q.Since, or the last q.Last) and
	// goes on with new events until ctx ends. It never loses one: a reader that
	// is too slow reads from the store again.
	FollowEvents(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error]
	Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogLine, error]

	Reload(ctx context.Context) (api.ReloadResult, error)
	Config(ctx context.Context) (api.Config, error)
	Doctor(ctx context.Context) ([]api.Finding, error)
	// Upgrade puts another program in the place of the supervisor, and then of the
	// server. It returns before the latter.
	Upgrade(ctx context.Context, req api.UpgradeRequest) (api.UpgradeResult, error)
	// Shutdown stops everything, the server last. It returns when all
	// processes are proven gone.
	Shutdown(ctx context.Context, timeout time.Duration) error
}
