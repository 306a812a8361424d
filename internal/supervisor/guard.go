package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// serverPolicy is how the supervisor guards a server that runs in the background.
func serverPolicy() supervise.Guard {
	return supervise.Guard{Sound: time.Second, First: 50 * time.Millisecond, Max: 5 * time.Second, Deaths: 12, Open: time.Minute}
}

// serverWatch is the watch over the server. It belongs to one goroutine.
type serverWatch struct {
	sup    *Supervisor
	lock   string // the server's
	deaths supervise.GuardState
	// own is the server that was started here last; pid 0 when none was.
	own struct {
		pid  int
		exit chan proc.Exit
	}
}

// guardServer starts the server again whenever it dies, until ctx ends or the
// end of everything begins. One that belongs to a terminal is not started: its
// death is told, and the processes live on.
func (s *Supervisor) guardServer(ctx context.Context) {
	if e := s.o.estate; e != nil && e.from != nil {
		s.servers.set(e.from.Server)
	} else if err := s.servers.remember(); err != nil {
		s.o.Logger.Error("The server is not started again if it dies before it attaches", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var ending sync.WaitGroup
	defer ending.Wait()
	defer cancel()
	ending.Go(func() {
		select {
		case <-s.end.begun: // a server that dies now has nothing left to do
			cancel()
		case <-ctx.Done():
		}
	})
	w := &serverWatch{sup: s, lock: filepath.Join(s.o.Dir, "lock")}
	for ctx.Err() == nil {
		pid, died := w.death(ctx)
		if died {
			w.died(ctx, pid)
		}
	}
	if s.ending() {
		if err := s.servers.forget(); err != nil {
			s.o.Logger.Warn("Cannot forget how the server is started", "error", err)
		}
	}
}

// The first and the longest time between two looks at a lock whose owner no
// longer follows the journal. It is about to die, or to follow again; there is no
// event for that.
const (
	lookFirst = time.Millisecond
	lookLast  = time.Second
)

// death waits until no server follows, and then for its death, which its lock
// tells. It returns false when one follows again, or ctx has ended.
func (w *serverWatch) death(ctx context.Context) (pid int, died bool) {
	here, changed := w.sup.servers.here()
	for here {
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false
		}
		here, changed = w.sup.servers.here()
	}
	for wait := lookFirst; ; wait = min(2*wait, lookLast) {
		owner := flock.Read(w.lock)
		_, held := flock.Held(w.lock)
		if here, changed = w.sup.servers.here(); here {
			return 0, false
		}
		if !held {
			return owner.PID, true
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-changed:
		case <-ctx.Done():
		}
		pause.Stop()
		if ctx.Err() != nil {
			return 0, false
		}
	}
}

// died tells the death of a server and starts the next one, after the wait of the
// policy. Somebody else may be quicker: then theirs has the lock.
func (w *serverWatch) died(ctx context.Context, pid int) {
	cmd := w.sup.servers.again()
	if pid != 0 { // one that has let go in order names nobody
		w.sup.say("server.lost", map[string]any{"pid": pid, "restarted": len(cmd.Argv) > 0})
	}
	if len(cmd.Argv) == 0 {
		w.await(ctx, -1)
		return
	}
	served := w.sup.servers.served()
	if pid != w.own.pid {
		w.deaths = supervise.GuardState{} // an operator has started that one
	}
	for {
		var v supervise.Verdict
		w.deaths, v = serverPolicy().Died(w.deaths, served)
		if v.Open && w.deaths.Deaths == serverPolicy().Deaths {
			w.sup.say("server.breaker_open", map[string]any{"deaths": w.deaths.Deaths, "retry_ms": v.Wait.Milliseconds()})
		}
		if !w.await(ctx, v.Wait) {
			return
		}
		if err := w.start(cmd); err != nil {
			w.sup.o.Logger.Error("Cannot start the server", "error", err)
		} else if w.comes(ctx) {
			return
		}
		served = 0
	}
}

// await waits for d, without end if d is below 0. It returns false when a server
// has come meanwhile, or ctx has ended.
func (w *serverWatch) await(ctx context.Context, d time.Duration) bool {
	var over <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	for {
		here, changed := w.sup.servers.here()
		if here || ctx.Err() != nil {
			return false
		}
		select {
		case <-over:
			return true
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// comes waits until the server that was started follows the journal, or another
// one does. It returns false when it has ended before.
func (w *serverWatch) comes(ctx context.Context) bool {
	for {
		here, changed := w.sup.servers.here()
		if here || ctx.Err() != nil {
			return true
		}
		select {
		case e := <-w.own.exit:
			if _, held := flock.Held(w.lock); held {
				return true // somebody else was quicker
			}
			w.sup.o.Logger.Error("The server has ended before it answered; see server.log", "code", e.Code, "signal", e.Signal)
			return false
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// start starts a server in a session of its own. It is our own program, so that
// both parts are of one version, whatever has become of its file.
func (w *serverWatch) start(cmd control.ServerCommand) error {
	out, err := os.OpenFile(filepath.Join(w.sup.o.Dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the server's log: %w", err)
	}
	defer func() { _ = out.Close() }() // the server has its own copy
	exit := make(chan proc.Exit, 1)
	fault.Here("supervisor.server.before_start")
	p, err := w.sup.host.start(proc.Spec{Path: proc.OwnImage(), Argv: cmd.Argv, Dir: cmd.Dir, Env: cmd.Env, Stdout: out, Stderr: out}, func(n proc.Notice) {
		if n.Exited {
			exit <- n.Exit
		}
	})
	if err != nil {
		return err
	}
	fault.Here("supervisor.server.after_start")
	w.own.pid, w.own.exit = p.Identity().PID, exit
	w.sup.o.Logger.Info("Started the server", "pid", w.own.pid)
	return nil
}
