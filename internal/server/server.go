// Package server is the composition root of `perdure up`: it finds or starts
// the supervisor, gives it the definitions, copies its journal into the event
// log, and answers the API. It holds no process: it may die at any instant and
// the next one goes on where it was.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/config"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/store/sqlite"
)

// Options says what a server serves.
type Options struct {
	// Files are the configuration files, merged in order. None is allowed:
	// then processes come from Definitions and over the API.
	Files []string
	// Only, when not empty, names the processes that are started; the others
	// are defined and left alone.
	Only []string
	// Definitions are processes that come from no file.
	Definitions []api.Definition
	// StateDir is the state directory; it is made if need be.
	StateDir string
	// Listen, TokenFile and Sync override the settings of the files.
	Listen, TokenFile, Sync string
	// Supervisor is the command that starts a supervisor. Default: this
	// program with the argument "supervisor".
	Supervisor []string
	// Again is the command, run in the same directory, by which the supervisor
	// starts the server again when it dies. Empty: nobody does.
	Again []string
	// Resume says that this server goes on where the one before it was, without
	// an operator: no definition is given to a supervisor that has some.
	Resume bool
	// Become says how the server can become another program (Upgrade).
	Become Become
	// Inherited is what the program has handed over that this process was before.
	Inherited *Inherited
	// Embedded runs the supervisor inside this process instead.
	Embedded bool
	// Reaps says that this process is Perdure's alone: it becomes the parent of
	// what a dead supervisor leaves, so that exit codes are known even where the
	// kernel does not keep them. Then no other code may start children.
	Reaps bool
	// Logger takes what concerns the server itself. Default: none.
	Logger *slog.Logger
	// Version is told by Info.
	Version string
}

// Server is a running server. It implements httpapi.Backend.
type Server struct {
	o       Options
	started time.Time

	events *event.Log
	database
	table   *table
	sampler *sampler
	att     *attachment
	finder  finder  // nil with an embedded supervisor, as is held
	held    *holder // what a dead supervisor would take with it
	closers []func() error

	move
	mu         sync.Mutex
	config     *settled
	env        *config.Watcher // of the files in force; guarded by reloading
	reloading  sync.Mutex      // one reload at a time
	closing    bool            // Close has begun; guarded by reloading
	loading    sync.Mutex      // one load at a time
	end        *ending
	cancel     context.CancelFunc
	background sync.WaitGroup
}

// database is what the events are kept in.
type database struct {
	store   *sqlite.Store               // nil when they are not in a file
	trouble atomic.Pointer[api.Trouble] // nil while it can be written

	saying sync.Mutex
	unsaid []api.Event // of the server's own, which could not be written yet; guarded by saying
}

// move is what the next program goes on with, and how it comes to it.
type move struct {
	lock      *flock.Lock
	token     string      // for TCP
	ready     atomic.Bool // it answers: from now on it is guarded
	upgrading sync.Mutex  // one at a time
	moves     chan string // the program that the server shall become
	stayed    time.Time   // of Stayed; belongs to Run
}

// newServer returns a server that has nothing yet but its options.
func newServer(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{o: o, started: time.Now().UTC(), table: newTable(), sampler: newSampler(), att: newAttachment(), end: newEnding(),
		move: move{moves: make(chan string, 1)}}
}

// Start boots a server: lock, event log, configuration, supervisor. When it
// returns, the processes have been asked to start. The caller calls Close.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	s := newServer(o)
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// A broken file is told before anything is touched.
	if s.config, err = settle(o); err != nil {
		return nil, err
	}
	if err := prepare(o.StateDir); err != nil {
		return nil, err
	}
	if s.lock, err = takeLock(o); err != nil {
		return nil, err
	}
	fault.Here("server.lock.after")
	s.closers = append(s.closers, s.lock.Release)
	if err := s.openStore(ctx); err != nil {
		return nil, err
	}
	s.events, err = event.Open(ctx, s.store)
	if err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	s.closers = append(s.closers, s.events.Close)
	fault.Here("server.store.after")
	fresh, err := s.attachFirst(ctx)
	if err != nil {
		return nil, err
	}
	// From now on the supervisor is guarded: it may die before all is asked of it.
	s.background.Go(func() {
		defer s.end.readToEnd()
		s.keepAttached(background)
	})
	resumes, err := s.resumes(ctx)
	if err == nil && !resumes {
		_, err = s.apply(ctx, s.config, true)
	}
	if err != nil {
		return nil, err
	}
	if err := s.ask(ctx, true, func(sup control.Supervisor) error { return s.load(ctx, sup) }); err != nil {
		return nil, err
	}
	fault.Here("server.boot.after")
	s.background.Go(func() { s.retain(background) })
	s.watchEnv(ctx)
	if in := o.Inherited; in != nil {
		s.say(ctx, "server.upgraded", map[string]any{"pid": os.Getpid(), "from": in.From, "to": o.Version})
	} else {
		s.say(ctx, "server.started", map[string]any{"pid": os.Getpid(), "version": o.Version, "fresh": fresh})
	}
	return s, nil
}

// databaseName is the event log's file in the state directory.
const databaseName = "perdure.db"

func checkStore(ctx context.Context, path string) error { return sqlite.Check(ctx, path) }

// takeLock takes the state directory, or takes over the lock that the program
// before has held.
func takeLock(o Options) (*flock.Lock, error) {
	path := filepath.Join(o.StateDir, "lock")
	if o.Inherited != nil {
		return flock.Inherited(path, o.Inherited.Lock)
	}
	lock, err := flock.Take(path)
	if err != nil {
		return nil, alreadyRuns(o.StateDir, err)
	}
	return lock, nil
}

// alreadyRuns explains a held lock.
func alreadyRuns(dir string, err error) error {
	if pid, held := flock.Held(filepath.Join(dir, "lock")); held {
		return api.Errorf(api.CodeConflict, "cannot start: Perdure already runs here (pid %d, %s); look with `perdure ps`, end it with `perdure down`", pid, dir)
	}
	return err
}

// retain removes old events, now and every hour.
func (s *Server) retain(ctx context.Context) {
	for ctx.Err() == nil {
		// Counted on from the start, so that a wall clock that is set forward takes
		// no events with it.
		now := s.started.Add(time.Since(s.started))
		if _, err := s.events.Retain(ctx, s.retention(), now); err != nil && ctx.Err() == nil {
			s.o.Logger.Error("Cannot remove old events", "error", err)
		}
		pause(ctx, time.Hour)
	}
}

func (s *Server) retention() api.Retention {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config.settings.Events
}

// say appends an event of the server's own, as soon as that can be done.
func (s *Server) say(ctx context.Context, typ string, data map[string]any) {
	if err := s.sayAll(ctx, newEvent(typ, data)); err != nil {
		s.o.Logger.Error("Cannot write an event yet", "type", typ, "error", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Stop ends all processes in reverse order of dependency, kills what is left
// after the timeout (0: the settings'), and returns when all are proven gone.
// It may be called again with a shorter timeout to hurry.
func (s *Server) Stop(ctx context.Context, timeout time.Duration) error {
	if timeout <= 0 {
		timeout = s.shutdownTimeout()
	}
	if _, err := s.att.await(ctx, nil); err != nil && !isClosed(s.end.asked) {
		return err
	}
	if s.end.begin() {
		s.say(ctx, "server.stopping", map[string]any{"timeout_ms": timeout.Milliseconds()})
		fault.Here("server.stop.begun")
	}
	sup, err := s.shutdown(ctx, timeout)
	if err != nil {
		return err
	}
	fault.Here("server.stop.done")
	s.end.finish()
	defer s.end.reach()
	// The last events are in the log before the end is told. A log that cannot
	// be written does not hold the end up: the journal keeps them.
	ctx, cancel := context.WithTimeout(ctx, lastEvents)
	defer cancel()
	info, err := sup.Info(ctx)
	if err != nil {
		// It is gone already; it went only after the journal was read to its end.
		return s.end.awaitRead(ctx)
	}
	// Of a supervisor that has died since they come with the next one.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		_ = s.end.awaitRead(ctx) // either way there is nothing more to wait for
	}()
	if err := s.table.awaitSeq(ctx, info.LastSeq); err != nil {
		return fmt.Errorf("everything is stopped, but the last events are not in the log: %w", err)
	}
	return nil
}

// shutdown makes the supervisor end everything, and returns the one that has. If
// it dies on the way, the next one that is attached goes on with it. One whose
// process asked for the end ends by itself, perhaps before it has answered: then
// its journal tells that all is done, and no next one comes.
func (s *Server) shutdown(ctx context.Context, timeout time.Duration) (control.Supervisor, error) {
	due := time.Now().Add(timeout)
	var sup control.Supervisor
	for {
		next, err := s.successor(ctx, sup)
		if err != nil || next == nil {
			return sup, err
		}
		sup = next
		lost := lostOf(sup)
		err = sup.Shutdown(ctx, max(time.Until(due), time.Millisecond))
		if err == nil || !isClosed(lost) || ctx.Err() != nil {
			return sup, err
		}
	}
}

// successor waits for a supervisor other than before, however long the guard
// takes. It returns nil when none comes, because all is done.
func (s *Server) successor(ctx context.Context, before control.Supervisor) (control.Supervisor, error) {
	for {
		s.att.mu.Lock()
		sup, changed := s.att.sup, s.att.changed
		s.att.mu.Unlock()
		if sup != nil && sup != before {
			return sup, nil
		}
		select {
		case <-changed:
		case <-s.end.read:
			if before == nil {
				return nil, api.Errorf(api.CodeUnavailable, "the supervisor has ended")
			}
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// allAtRest says whether nothing lives, as far as the journal is read.
func (s *Server) allAtRest() bool {
	for _, name := range s.table.names() {
		if rec, _, err := s.table.get(name); err == nil && !atRest(rec.State) {
			return false
		}
	}
	return true
}

// lastEvents bounds the wait for the last events after everything is stopped.
const lastEvents = 10 * time.Second

// Stopped is closed when a Stop has ended.
func (s *Server) Stopped() <-chan struct{} { return s.end.stopped }

// ExitAsked is closed when a process has asked that Perdure end.
func (s *Server) ExitAsked() <-chan struct{} { return s.end.asked }

// ExitCode is the code that was asked for, if any.
func (s *Server) ExitCode() (int, bool) { return s.end.code() }

// Close lets go of everything. The processes live on under the supervisor,
// unless Stop has ended them or the supervisor is embedded.
func (s *Server) Close() error {
	s.cancel()
	s.reloading.Lock()
	s.closing = true
	if s.env != nil {
		if err := s.env.Close(); err != nil {
			s.o.Logger.Warn("Cannot end the watch of env files", "error", err)
		}
		s.env = nil
	}
	s.reloading.Unlock()
	s.background.Wait()
	s.lose("the server is closed", true)
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}
