package cli

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/perdure/perdure/api"
)

// Client is what the commands ask of a running Perdure; *client.Client does it.
type Client interface {
	Info(ctx context.Context) (api.Info, error)
	Processes(ctx context.Context, globs ...string) ([]api.Process, error)
	Process(ctx context.Context, name string) (api.Process, error)
	Definition(ctx context.Context, name string) (api.Definition, error)
	Command(ctx context.Context, name string, req api.CommandRequest) (api.Process, error)
	Wait(ctx context.Context, name string, req api.WaitRequest) (api.Process, error)
	Send(ctx context.Context, name string, req api.SendRequest) (api.SendResult, error)
	Events(ctx context.Context, q api.EventQuery) (api.EventPage, error)
	FollowEvents(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error]
	Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogLine, error]
	Reload(ctx context.Context) (api.ReloadResult, error)
	Upgrade(ctx context.Context, req api.UpgradeRequest) (api.UpgradeResult, error)
	Config(ctx context.Context) (api.Config, error)
	Doctor(ctx context.Context) ([]api.Finding, error)
	Shutdown(ctx context.Context, timeout time.Duration) error
}

// DialOptions say where a running Perdure is reached: by Socket or by URL.
type DialOptions struct{ Socket, URL, Token string }

// ServeOptions say what a server in this process keeps alive.
type ServeOptions struct {
	Files     []string
	StateDir  string
	Listen    string
	TokenFile string
	Logger    *slog.Logger
	// Ephemeral are definitions without a file (`perdure run`).
	Ephemeral []api.Definition
	// Resume gives a supervisor that has definitions none: the server goes on
	// where the one before it was.
	Resume bool
	// Become says how the server can become another program.
	Become Become
	// Leaving is called when the server has ended its streams and is about to
	// become another program. May be nil.
	Leaving func()
	// Again, when set, starts a server that has died once more.
	Again []string
	// Only, when set, starts these processes and what they depend on, and no other.
	Only []string
}

// Become are the arguments with which another program goes on as this server, and
// those with which it tells whether it could.
type Become struct{ Args, Check []string }

// Started tells of a server that answers.
type Started struct {
	Socket string
	// Hurry kills whatever still lives, and returns when it is gone.
	Hurry func()
	// Reload reads the files again, as the command does.
	Reload func() error
	// Upgrade puts the program at a path in the place of both parts.
	Upgrade func(path string) error
	// Since is when the streams of this server ended, if it has tried to become
	// another program in vain; zero at the start.
	Since time.Time
}

// Seams are the parts of Perdure that the commands reach into. They stand
// together here so that the commands can be tested without them.
type Seams struct {
	Version string
	Dial    func(o DialOptions) (Client, error)
	// StateDir finds the state directory; SocketPath is where the API is in it.
	StateDir   func(files []string, dir, flag string) (string, error)
	SocketPath func(stateDir string) string
	// Running tells which parts of a state directory are alive; 0 means none.
	Running func(stateDir string) (serverPID, supervisorPID int)
	// Serve runs a server until everything is stopped. The end of ctx stops
	// everything in reverse order. Started is called once the API answers.
	Serve func(ctx context.Context, o ServeOptions, started func(Started)) (exitCode int, err error)
	// CheckServer tells whether a server with these options could go on in the
	// state directory; it changes nothing.
	CheckServer func(ctx context.Context, o ServeOptions) error
	// Handover is the version of what a server hands over to the next program.
	Handover int
	// Since is when the program ended its streams that this process was before,
	// zero if it was none.
	Since time.Time
	// Supervisor is the hidden `perdure supervisor`.
	Supervisor func(args []string) int
	// Find finds the configuration file of dir or of one above it.
	Find func(dir string) (string, error)
	// LoadConfig reads files without starting anything.
	LoadConfig func(files []string) (api.Config, []api.Finding, error)
	Schema     func() []byte
	Presets    func() []string
	Preset     func(name string) (api.Definition, error)
	// Complete fills in the defaults of definitions and hides their secrets.
	Complete func(defs map[string]api.Definition) map[string]api.Definition
	// NeedsRestart says whether a change is one that a running program cannot follow.
	NeedsRestart func(old, changed api.Definition) bool
}
