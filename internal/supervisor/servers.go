package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
)

// servers is what the supervisor knows of its server: whether one follows the
// journal, and how it is started again. There is one but for moments, in which
// one goes and the next comes.
type servers struct {
	sync.WaitGroup               // those who follow
	first          chan struct{} // closed when the first one comes
	once           sync.Once
	path           string // of the file that keeps command over our death
	// passing is to the one that holds our processes, nil while none does.
	passing atomic.Pointer[passing]

	reaps   atomic.Bool // the server is the parent of what was adopted
	mu      sync.Mutex
	count   int // of those who follow
	since   time.Time
	left    time.Time
	changed chan struct{} // closed at the next change
	command control.ServerCommand
}

func newServers(dir string) *servers {
	return &servers{first: make(chan struct{}), changed: make(chan struct{}), path: filepath.Join(dir, "server.json")}
}

func (v *servers) enter() {
	v.Add(1)
	v.once.Do(func() { close(v.first) })
	v.tally(1)
}

func (v *servers) leave() {
	v.tally(-1)
	v.Done()
}

func (v *servers) tally(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.count += n; n > 0 {
		v.since = time.Now()
	} else {
		v.left = time.Now()
	}
	v.touch()
}

// touch needs mu.
func (v *servers) touch() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// here says whether a server follows, and returns a channel that is closed when
// that changes.
func (v *servers) here() (bool, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.count > 0, v.changed
}

// served is how long the last server has followed.
func (v *servers) served() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return max(0, v.left.Sub(v.since))
}

// Guard implements control.Supervisor.
func (s *Supervisor) Guard(_ context.Context, cmd control.ServerCommand) error {
	return s.servers.guard(cmd)
}

// guard keeps the command, and in the file all of it but the environment: that
// may hold secrets. A server that is started by the next supervisor has that
// one's environment, which comes from the server before.
func (v *servers) guard(cmd control.ServerCommand) error {
	v.set(cmd)
	if len(cmd.Argv) == 0 {
		return v.forget()
	}
	b, err := json.Marshal(serverFile{Version: serverFileVersion, Argv: cmd.Argv, Dir: cmd.Dir})
	if err == nil {
		err = os.WriteFile(v.path+".new", b, 0o600)
	}
	fault.Here("supervisor.guard.before_rename")
	if err == nil {
		err = os.Rename(v.path+".new", v.path)
	}
	fault.Here("supervisor.guard.after_rename")
	if err != nil {
		return fmt.Errorf("cannot write down how the server is started: %w", err)
	}
	return nil
}

func (v *servers) set(cmd control.ServerCommand) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.command = cmd
	v.touch()
}

func (v *servers) forget() error {
	if err := os.Remove(v.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", v.path, err)
	}
	return nil
}

// serverFileVersion is the version of server.json that is written, and the only
// one that is read.
const serverFileVersion = 1

// serverFile is server.json.
type serverFile struct {
	Version int      `json:"version"`
	Argv    []string `json:"argv"`
	Dir     string   `json:"dir"`
}

// remember takes over what the supervisor before has written down.
func (v *servers) remember() error {
	b, err := os.ReadFile(v.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var f serverFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Version != serverFileVersion {
		err = fmt.Errorf("it has version %d and this program knows version %d", f.Version, serverFileVersion)
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", v.path, err)
	}
	v.set(control.ServerCommand{Argv: f.Argv, Dir: f.Dir, Env: os.Environ()})
	return nil
}

// again is the command that starts the server; without arguments there is none.
func (v *servers) again() control.ServerCommand {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.command
}
