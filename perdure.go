// Package perdure keeps work alive inside a Go program: it supervises
// long-running processes, and tells what happens through one event log. It is
// what the command perdure is made of.
//
//	func main() {
//		perdure.Init() // first: this program is its own supervisor, too
//		sys, err := perdure.New(ctx, perdure.Options{})
//		…
//		err = sys.Processes.Define(api.Definition{Name: "worker", Command: api.Command{"./worker"}})
//		p, err := sys.Processes.Spawn(ctx, "worker", perdure.SpawnOptions{})
//	}
//
// The supervisor is a process of its own, so that the managed processes outlive
// the program: when it is started again over the same state directory it finds
// them alive. Options.InProcess keeps the supervisor inside the program, for
// tests and small uses.
package perdure

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/server"
	"github.com/perdure/perdure/internal/supervisor"
)

// Version is the version of this library and of the command.
const Version = "0.1.0"

// Options says how an embedded Perdure works. The zero value is a good start.
type Options struct {
	// StateDir is where everything is kept: journal, logs, events, sockets.
	// Default: .perdure in the working directory.
	StateDir string
	// Files are configuration files whose processes are started at once.
	Files []string
	// InProcess keeps the supervisor inside this program: no second process,
	// and the managed processes are adopted only when the program comes back.
	InProcess bool
	// Supervisor is the command that starts the supervisor. Default: this
	// program itself, which must then call Init first in main.
	Supervisor []string
	// Sync says what a power cut may lose, as settings.sync in a file. Default: what
	// the files say, else "100ms".
	Sync string
	// Logger takes what concerns Perdure itself. Default: none.
	Logger *slog.Logger
}

// System is an embedded Perdure. Its methods are safe for concurrent use.
type System struct {
	// Processes defines, starts and stops processes.
	Processes *Processes
	// Events reads the event log.
	Events *Events

	server *server.Server
}

// supervisorWord is the argument by which a program knows that it has been
// started as its own supervisor.
const supervisorWord = "perdure-supervisor"

// Init turns this program into its own supervisor when it has been started as
// such; then it does not return. Call it first in main.
func Init() {
	proc.Shim(os.Args)
	if len(os.Args) > 1 && os.Args[1] == supervisorWord {
		os.Exit(supervisor.Main(os.Args[2:], Version)) //ok: this process is the supervisor and no longer the program

	}
}

// New starts Perdure over a state directory. It fails with api.CodeConflict when
// another Perdure has the directory. The caller calls Stop or Close.
func New(ctx context.Context, o Options) (*System, error) {
	if o.StateDir == "" {
		o.StateDir = ".perdure"
	}
	dir, err := filepath.Abs(o.StateDir)
	if err != nil {
		return nil, err
	}
	command := o.Supervisor
	if len(command) == 0 && !o.InProcess {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		command = []string{self, supervisorWord}
	}
	srv, err := server.Start(ctx, server.Options{Files: o.Files, StateDir: dir, Supervisor: command, Embedded: o.InProcess, Sync: o.Sync,
		Logger: o.Logger, Version: Version})
	if err != nil {
		return nil, err
	}
	return &System{server: srv, Processes: newProcesses(srv), Events: &Events{srv}}, nil
}

// Stop ends all processes in reverse order of dependency, kills what is left
// after the timeout (0: enough for every grace), and closes the system when all
// are proven gone.
func (s *System) Stop(ctx context.Context, timeout time.Duration) error {
	if err := s.server.Stop(ctx, timeout); err != nil {
		return err
	}
	return s.server.Close()
}

// Close lets go without ending any process: they go on under the supervisor,
// and the next New over the same state directory finds them.
func (s *System) Close() error { return s.server.Close() }
