package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervisor"
)

// link is the server's hold on its supervisor: it finds the one that runs or
// starts one.
type link struct {
	dir     string
	path    atomic.Pointer[string] // of the supervisor's program; nil: our own
	own     string
	command []string // its command line; "--state-dir DIR" is appended
	logger  *slog.Logger
	host    *proc.Host // runs the supervisor and nothing else
	held    *holder    // what is handed over to it
	// The last two supervisors that were started here, the newest last. They
	// belong to the one goroutine that connects.
	started [2]*launched
}

// launched is a supervisor that was started here.
type launched struct {
	pid  int
	exit atomic.Pointer[proc.Exit] // nil while it lives
}

// lives implements finder.
func (l *link) lives() bool {
	_, held := flock.Held(l.lock())
	return held
}

func (l *link) lock() string { return filepath.Join(l.dir, "supervisor.lock") }

// exitOf implements finder.
func (l *link) exitOf(pid int) *proc.Exit {
	for _, c := range l.started {
		if c != nil && c.pid == pid {
			return c.exit.Load()
		}
	}
	return nil
}

// connectPatience bounds the wait for a supervisor that holds its lock but does
// not answer (yet).
const connectPatience = 10 * time.Second

// connect implements finder.
func (l *link) connect(ctx context.Context) (_ control.Supervisor, fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	path := supervisor.SocketPath(l.dir)
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		c, err := control.Dial(ctx, path)
		if err == nil {
			return c, fresh, nil
		}
		if code := api.CodeOf(err); code == api.CodeConflict || code == api.CodeDenied {
			return nil, false, err
		}
		pid, held := flock.Held(l.lock())
		switch {
		case !held:
			if err := l.start(ctx); err != nil {
				return nil, false, err
			}
			fresh = true
		default:
			// It is coming up or going down; there is no event to wait for.
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil, false, fmt.Errorf("cannot reach the supervisor (pid %d has its lock but does not answer at %s): %w", pid, path, err)
			}
		}
	}
}

// start runs a supervisor and returns when it is ready, which it says by a line
// on its standard output. It is in a session of its own and outlives the server.
func (l *link) start(ctx context.Context) error {
	out, err := os.OpenFile(filepath.Join(l.dir, "supervisor.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the supervisor's log: %w", err)
	}
	defer func() { _ = out.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	spec := proc.Spec{Path: l.program(), Argv: append(append([]string{}, l.command...), "--state-dir", l.dir), Env: os.Environ(), Stdout: w, Stderr: out}
	// Who ends from now on without being held can be adopted as a zombie; who
	// has ended before is handed over.
	l.host.KeepZombies(true)
	defer l.host.KeepZombies(false)
	handing := l.held.handOver()
	handing.add(&spec)
	c := &launched{}
	fault.Here("server.supervisor.before_start")
	p, err := l.host.Start(spec, func(n proc.Notice) {
		if n.Exited {
			c.exit.Store(&n.Exit)
			l.logger.Info("The supervisor has ended", "code", n.Exit.Code, "signal", n.Exit.Signal)
		}
	})
	_ = w.Close()
	handing.send(ctx)
	defer handing.wait()
	if err != nil {
		return fmt.Errorf("cannot start the supervisor: %w", err)
	}
	fault.Here("server.supervisor.after_start")
	c.pid = p.PID()
	l.started = [2]*launched{l.started[1], c}
	ready := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(r).ReadString('\n')
		ready <- err
	}()
	select {
	case err := <-ready:
		if err != nil {
			l.path.Store(nil) // ours has worked
			return errors.New("the supervisor ended before it was ready; see " + out.Name())
		}
		l.logger.Info("Started the supervisor", "pid", p.PID())
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the supervisor (pid %d) is not ready; see %s: %w", p.PID(), out.Name(), ctx.Err())
	}
}

// checkTime bounds the look whether a program could take over, and checkText what
// it says.
const (
	checkTime = 10 * time.Second
	checkText = 64 << 10
)

// check implements finder.
func (l *link) check(ctx context.Context, path string, server []string) (versions, error) {
	var v versions
	argv := append(append([]string{path}, l.command[1:]...), "--check", "--state-dir", l.dir)
	out, err := l.ask(ctx, argv)
	if err == nil {
		if err = json.Unmarshal(out, &v); err != nil {
			err = fmt.Errorf("%s does not say whether it could take over; is it Perdure?", path)
		}
	}
	if err != nil || len(server) == 0 {
		return v, err
	}
	if out, err = l.ask(ctx, append([]string{path}, server...)); err != nil {
		return v, err
	}
	var theirs struct {
		Handover int `json:"handover"`
	}
	if json.Unmarshal(out, &theirs) != nil || theirs.Handover != Handover {
		return v, fmt.Errorf("%s (version %s) takes a server over in version %d, and this one hands over in version %d", path, v.Build, theirs.Handover, Handover)
	}
	return v, nil
}

// ask runs a program to its end and returns what it says.
func (l *link) ask(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	exit, out, err := l.host.Run(ctx, proc.Spec{Argv: argv, Env: os.Environ()}, checkText)
	if err != nil {
		return nil, err
	}
	if exit.Code != 0 {
		return nil, fmt.Errorf("%s cannot take over: %s", argv[0], strings.TrimSpace(string(out)))
	}
	return out, nil
}

// replace implements finder.
func (l *link) replace(pid int, path string) error {
	if now, held := flock.Held(l.lock()); !held || now != pid {
		return fmt.Errorf("the supervisor (pid %d) does not have the state directory any more", pid)
	}
	l.path.Store(&path) // until this server is that program, too
	old, err := os.FindProcess(pid)
	if err == nil {
		err = old.Kill()
	}
	if err != nil {
		l.path.Store(nil)
		return fmt.Errorf("cannot end the old supervisor (pid %d): %w", pid, err)
	}
	return nil
}

// program is the one that a supervisor is.
func (l *link) program() string {
	if p := l.path.Load(); p != nil {
		return *p
	}
	return l.own
}
