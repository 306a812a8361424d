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
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/store/sqlite"
	"github.com/perdure/perdure/internal/supervisor"
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
	// Listen and TokenFile override the settings of the files.
	Listen, TokenFile string
	// Supervisor is the command that starts a supervisor. Default: this
	// program with the argument "supervisor".
	Supervisor []string
	// Embedded runs the supervisor inside this process instead.
	Embedded bool
	// Logger takes what concerns the server itself. Default: none.
	Logger *slog.Logger
	// Version is told by Info.
	Version string
}

// Server is a running server. It implements httpapi.Backend.
type Server struct {
	o       Options
	started time.Time

	events  *event.Log
	table   *table
	sampler *sampler
	link    *link
	closers []func() error

	heldUp atomic.Pointer[string] // why the event log cannot be written, nil while it can

	mu         sync.Mutex
	sup        control.Supervisor // nil while it is away
	supInfo    control.Info
	config     *settled
	env        *config.Watcher // of the files in force; guarded by reloading
	reloading  sync.Mutex      // one reload at a time
	closing    bool            // Close has begun; guarded by reloading
	loading    sync.Mutex      // one load at a time
	end        *ending
	cancel     context.CancelFunc
	background sync.WaitGroup
}

// Start boots a server: lock, event log, configuration, supervisor. When it
// returns, the processes have been asked to start. The caller calls Close.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, started: time.Now().UTC(), table: newTable(), sampler: newSampler(), end: newEnding()}
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
	lock, err := flock.Take(filepath.Join(o.StateDir, "lock"))
	if err != nil {
		return nil, alreadyRuns(o.StateDir, err)
	}
	s.closers = append(s.closers, lock.Release)
	store, err := sqlite.Open(ctx, filepath.Join(o.StateDir, "perdure.db"), sqlite.Options{})
	if err != nil {
		return nil, err
	}
	s.events, err = event.Open(ctx, store)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s.closers = append(s.closers, s.events.Close)
	fresh, err := s.attach(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.apply(ctx, s.config, fresh); err != nil {
		return nil, err
	}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	s.background.Go(func() {
		defer s.end.readToEnd()
		s.keepAttached(background)
	})
	s.background.Go(func() { s.retain(background) })
	s.watchEnv(ctx)
	s.say(ctx, "server.started", map[string]any{"pid": os.Getpid(), "version": o.Version, "fresh": fresh})
	return s, nil
}

// alreadyRuns explains a held lock.
func alreadyRuns(dir string, err error) error {
	if pid, held := flock.Held(filepath.Join(dir, "lock")); held {
		return api.Errorf(api.CodeConflict, "cannot start: Perdure already runs here (pid %d, %s); look with `perdure ps`, end it with `perdure down`", pid, dir)
	}
	return err
}

// attach connects to the supervisor, or opens one of our own.
func (s *Server) attach(ctx context.Context) (fresh bool, err error) {
	var sup control.Supervisor
	if s.o.Embedded {
		own, err := supervisor.Open(ctx, supervisor.Options{Dir: s.o.StateDir, Build: s.o.Version, Logger: s.o.Logger,
			Embedded: true, OnExit: func(int) {}})
		if err != nil {
			return false, err
		}
		s.closers = append(s.closers, own.Close)
		sup, fresh = own, true
	} else {
		if s.link == nil {
			host, err := proc.NewHost(proc.Options{Subreaper: os.Getpid() == 1})
			if err != nil {
				return false, err
			}
			s.closers = append(s.closers, host.Close)
			s.link = &link{dir: s.o.StateDir, command: s.command(), logger: s.o.Logger, host: host}
		}
		if sup, fresh, err = s.link.connect(ctx); err != nil {
			return false, err
		}
	}
	info, err := sup.Info(ctx)
	if err != nil {
		letGo(sup)
		return false, err
	}
	s.mu.Lock()
	s.sup, s.supInfo = sup, info
	s.mu.Unlock()
	return fresh, nil
}

func (s *Server) command() []string {
	if len(s.o.Supervisor) > 0 {
		return s.o.Supervisor
	}
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return []string{self, "supervisor"}
}

// load fills the table with what the supervisor has. The number of the last
// entry is asked for first: the list has all of it, and perhaps more.
func (s *Server) load(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	sup, err := s.supervisor()
	if err != nil {
		return err
	}
	info, err := sup.Info(ctx)
	if err != nil {
		return err
	}
	recs, _, err := sup.List(ctx)
	if err != nil {
		return err
	}
	s.table.replace(recs, info.Journal, info.LastSeq)
	return nil
}

// keepAttached ingests the journal and, when the supervisor is lost, attaches
// to the next one, until ctx ends or a shutdown is over.
func (s *Server) keepAttached(ctx context.Context) {
	for {
		sup, err := s.supervisor()
		if err == nil {
			err = s.ingest(ctx, sup)
		}
		// A supervisor ends by itself when a process asked for the end.
		if ctx.Err() != nil || s.isStopping() || isClosed(s.end.asked) {
			return
		}
		if s.o.Embedded {
			// Our own supervisor is not lost by an error of the journal or the event
			// log, and there is no other: it stays, and the reading is tried again.
			s.o.Logger.Error("Cannot read the journal into the event log; it is tried again", "error", err)
			pause(ctx, retryIngest)
			continue
		}
		s.o.Logger.Warn("Lost the supervisor", "error", err)
		s.detach()
		for ctx.Err() == nil && !s.isStopping() {
			fresh, err := s.attach(ctx)
			if err == nil {
				err = s.load(ctx)
			}
			if err == nil {
				s.say(ctx, "supervisor.lost", map[string]any{"restarted": fresh})
				break
			}
			s.o.Logger.Error("Cannot get a supervisor", "error", err)
			s.detach()
			pause(ctx, retryIngest)
		}
	}
}

// retryIngest is the wait before the journal is read again after an error.
const retryIngest = time.Second

// detach lets go of a supervisor that is lost.
func (s *Server) detach() {
	s.mu.Lock()
	sup := s.sup
	s.sup = nil
	s.mu.Unlock()
	letGo(sup)
}

// letGo closes the connection to a supervisor that is reached by one.
func letGo(sup control.Supervisor) {
	if c, ok := sup.(*control.Client); ok {
		_ = c.Close()
	}
}

// supervisor returns the supervisor, or why there is none.
func (s *Server) supervisor() (control.Supervisor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sup == nil {
		return nil, api.Errorf(api.CodeUnavailable, "the supervisor is away; it is being started again")
	}
	return s.sup, nil
}

// retain removes old events, now and every hour.
func (s *Server) retain(ctx context.Context) {
	for ctx.Err() == nil {
		if _, err := s.events.Retain(ctx, s.retention(), time.Now()); err != nil && ctx.Err() == nil {
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

// say appends an event of the server's own.
func (s *Server) say(ctx context.Context, typ string, data map[string]any) {
	if _, err := s.events.Append(ctx, newEvent(typ, data)); err != nil {
		s.o.Logger.Error("Cannot write an event", "type", typ, "error", err)
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
	if _, err := s.supervisor(); err != nil && !isClosed(s.end.asked) {
		return err
	}
	if s.end.begin() {
		s.say(ctx, "server.stopping", map[string]any{"timeout_ms": timeout.Milliseconds()})
	}
	sup, err := s.shutdown(ctx, timeout)
	if err != nil {
		return err
	}
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
	if err := s.table.awaitSeq(ctx, info.LastSeq); err != nil {
		return fmt.Errorf("everything is stopped, but the last events are not in the log: %w", err)
	}
	return nil
}

// shutdown makes the supervisor end everything, and returns it. One whose
// process asked for the end ends by itself, perhaps before it has answered: then
// its journal tells whether all is done, and if not, the next one does it.
func (s *Server) shutdown(ctx context.Context, timeout time.Duration) (control.Supervisor, error) {
	sup, err := s.supervisor()
	if err == nil {
		err = sup.Shutdown(ctx, timeout)
	}
	if err == nil || s.o.Embedded || !isClosed(s.end.asked) || api.CodeOf(err) != api.CodeUnavailable {
		return sup, err
	}
	if err := s.end.awaitRead(ctx); err != nil {
		return nil, err
	}
	if sup != nil && s.allAtRest() {
		return sup, nil
	}
	s.detach()
	if _, err := s.attach(ctx); err != nil {
		return nil, err
	}
	if sup, err = s.supervisor(); err != nil {
		return nil, err
	}
	return sup, sup.Shutdown(ctx, timeout)
}

// allAtRest says whether nothing lives, as far as the journal is read.
func (s *Server) allAtRest() bool {
	for _, name := range s.table.names() {
		if rec, _, _, err := s.table.get(name); err == nil && !atRest(rec.State) {
			return false
		}
	}
	return true
}

// lastEvents bounds the wait for the last events after everything is stopped.
const lastEvents = 10 * time.Second

func (s *Server) isStopping() bool { return isClosed(s.end.stopping) }

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
	s.detach()
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}
