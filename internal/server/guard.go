package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
	"github.com/perdure/perdure/internal/supervisor"
)

// finder finds or starts the supervisor of a state directory; *link does it.
type finder interface {
	// connect returns the supervisor. Fresh says that it was started now.
	connect(ctx context.Context) (sup control.Supervisor, fresh bool, err error)
	// lives says whether some supervisor has the state directory.
	lives() bool
	// exitOf says how a supervisor has ended that was started here; nil when it
	// has not, or that is not known.
	exitOf(pid int) *proc.Exit
	// check asks the program at a path whether it could take over as supervisor,
	// and, with these arguments, as server.
	check(ctx context.Context, path string, server []string) (versions, error)
	// replace ends the supervisor of a pid without its processes, and has the next
	// one be the program at path.
	replace(pid int, path string) error
}

// supervisorGuard is how the server guards its supervisor.
func supervisorGuard() supervise.Guard {
	return supervise.Guard{Sound: time.Second, First: 50 * time.Millisecond, Max: time.Second, Deaths: 12, Open: 30 * time.Second}
}

// attach connects to the supervisor, or opens one of our own.
func (s *Server) attach(ctx context.Context) (fresh bool, err error) {
	var sup control.Supervisor
	switch {
	case s.o.Embedded:
		own, err := supervisor.Open(ctx, supervisor.Options{Dir: s.o.StateDir, Build: s.o.Version, Logger: s.o.Logger,
			Embedded: true, OnExit: func(int) {}})
		if err != nil {
			return false, err
		}
		s.closers = append(s.closers, own.Close)
		sup, fresh = own, true
	default:
		if s.finder == nil {
			reaps := s.o.Reaps || os.Getpid() == 1
			s.held = newHolder(s.o.Logger, reaps)
			host, err := proc.NewHost(proc.Options{Subreaper: reaps, OnOrphan: s.held.reaped})
			if err != nil {
				return false, err
			}
			s.closers = append(s.closers, host.Close, s.held.close)
			own, command := s.command()
			s.finder = &link{dir: s.o.StateDir, own: own, command: command, logger: s.o.Logger, host: host, held: s.held}
		}
		s.held.finish() // with the supervisor before
		if sup, fresh, err = s.finder.connect(ctx); err != nil {
			return false, err
		}
	}
	info, err := sup.Info(ctx)
	if err != nil {
		letGo(sup)
		return false, err
	}
	if s.ready.Load() {
		s.beGuarded(ctx, sup)
	}
	fault.Here("server.attach.before")
	s.att.set(sup, info)
	s.held.follow(ctx, sup, s.table)
	return fresh, nil
}

// firstTries bounds the tries of attachFirst.
const firstTries = 3

// attachFirst attaches the first supervisor, and knows what it has before its
// journal is read on. Where one dies meanwhile, the next one is attached: if this
// server gave up, nobody would be left to start one.
func (s *Server) attachFirst(ctx context.Context) (fresh bool, err error) {
	for try := 1; ; try++ {
		fresh, err = s.attach(ctx)
		if err == nil {
			err = s.loadNow(ctx)
		}
		if err == nil || api.CodeOf(err) != api.CodeUnavailable || try == firstTries || ctx.Err() != nil {
			return fresh, err
		}
		s.o.Logger.Warn("Lost the supervisor", "error", err)
		s.lose(err.Error(), false)
		pause(ctx, retryAttach)
	}
}

// beGuarded tells the supervisor how this server is started again. It is no
// reason not to serve if that fails.
func (s *Server) beGuarded(ctx context.Context, sup control.Supervisor) {
	cmd := control.ServerCommand{Argv: s.o.Again}
	var err error
	if len(cmd.Argv) > 0 {
		cmd.Env = os.Environ()
		cmd.Dir, err = os.Getwd()
	}
	fault.Here("server.guarded.before")
	if err == nil {
		err = sup.Guard(ctx, cmd)
	}
	if err != nil {
		s.o.Logger.Warn("The supervisor does not start this server again if it dies", "error", err)
	}
}

// command is how a supervisor is started. By default it is our own program, so
// that both parts are of one version, whatever has become of its file.
func (s *Server) command() (path string, argv []string) {
	if len(s.o.Supervisor) > 0 {
		return "", s.o.Supervisor
	}
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return proc.OwnImage(), []string{self, "supervisor"}
}

// load fills the table with what the supervisor has. The number of the last
// entry is asked for first: the list has all of it, and perhaps more.
func (s *Server) load(ctx context.Context, sup control.Supervisor) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	info, err := sup.Info(ctx)
	if err != nil {
		return err
	}
	recs, _, err := sup.List(ctx)
	if err != nil {
		return err
	}
	s.table.replace(recs, info.Journal, info.LastSeq)
	s.held.prune(s.table)
	return nil
}

// loadNow is load of the supervisor that is attached.
func (s *Server) loadNow(ctx context.Context) error {
	sup, err := s.att.get()
	if err != nil {
		return err
	}
	return s.load(ctx, sup)
}

// keepAttached ingests the journal and guards the supervisor: when it is lost,
// the next one is attached, until ctx ends or everything has been ended.
func (s *Server) keepAttached(ctx context.Context) {
	var deaths supervise.GuardState
	for {
		sup, err := s.att.get()
		if err == nil {
			err = s.watch(ctx, sup)
		}
		switch {
		case ctx.Err() != nil || s.over():
			return
		case s.o.Embedded:
			// Our own supervisor is not lost by an error of the journal or the event
			// log, and there is no other: it stays, and the reading is tried again.
			s.o.Logger.Error("Cannot read the journal into the event log; it is tried again", "error", err)
			pause(ctx, retryIngest)
		default:
			s.o.Logger.Warn("Lost the supervisor", "error", err)
			s.reattach(ctx, &deaths)
		}
	}
}

// retryIngest is the wait before the journal is read again after an error.
const retryIngest = time.Second

// over says that a supervisor that is gone has done all that it was there for. That
// nothing lives is not enough: one that dies before it has written that the boot is
// over leaves it under way, and the next up would take it for that.
func (s *Server) over() bool {
	if isClosed(s.end.done) {
		return true
	}
	return (isClosed(s.end.stopping) || isClosed(s.end.asked)) && s.end.over.Load() && s.allAtRest()
}

var errLost = errors.New("its connection is closed")

// lastEntries bounds the reading of what a supervisor has sent before it was
// lost. When the event log is slow, the next supervisor sends it again.
const lastEntries = 50 * time.Millisecond

// watch ingests the journal of a supervisor until that is lost.
func (s *Server) watch(ctx context.Context, sup control.Supervisor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lostOf(sup):
			grace := lastEntries
			if isClosed(s.end.stopping) || isClosed(s.end.asked) {
				grace = lastEvents // it ends in order, and there may be no next one
			}
			pause(ctx, grace)
			cancel(errLost)
		case <-ctx.Done():
		}
	}()
	err := s.ingest(ctx, sup)
	s.lastAnswers(ctx, sup)
	if errors.Is(context.Cause(ctx), errLost) {
		err = errLost
	}
	cancel(nil)
	<-watched
	return err
}

// lastAnswers waits, for a short time, for the end of the connection on which a
// supervisor answers, after that of its journal: one that becomes another program
// still answers what was asked before.
func (s *Server) lastAnswers(ctx context.Context, sup control.Supervisor) {
	lost := lostOf(sup)
	if lost == nil {
		return
	}
	t := time.NewTimer(lastEntries)
	defer t.Stop()
	select {
	case <-lost:
	case <-t.C:
	case <-ctx.Done():
	}
}

// reattach attaches the next supervisor after the one that was lost: at once
// after a first death, later and later when it keeps dying.
func (s *Server) reattach(ctx context.Context, deaths *supervise.GuardState) {
	guard, lost := supervisorGuard(), time.Now()
	was, _, since := s.att.told()
	served, counted := lost.Sub(since), false
	s.lose("it has died and is being started again", false)
	for ctx.Err() == nil && !s.over() {
		// One that has taken another program, or lost only the connection, lives.
		if !s.finder.lives() {
			var v supervise.Verdict
			*deaths, v = guard.Died(*deaths, served)
			served, counted = 0, true
			s.hold(ctx, *deaths, v)
		}
		fresh, err := s.attach(ctx)
		if err == nil {
			err = s.loadNow(ctx)
		}
		if err != nil {
			s.o.Logger.Error("Cannot get a supervisor", "error", err)
			s.lose(err.Error(), false)
			pause(ctx, retryAttach)
			continue
		}
		if now, _, _ := s.att.told(); now.PID != was.PID {
			if !counted {
				*deaths, _ = guard.Died(*deaths, served)
			}
			s.sayLost(ctx, was.PID, fresh, time.Since(lost))
		}
		return
	}
}

// retryAttach paces the tries to attach, besides what the guard decides.
const retryAttach = 50 * time.Millisecond

// lose lets go of a supervisor that is lost.
func (s *Server) lose(why string, rare bool) { letGo(s.att.drop(why, rare)) }

// hold waits as the guard says, and tells why.
func (s *Server) hold(ctx context.Context, deaths supervise.GuardState, v supervise.Verdict) {
	if v.Wait <= 0 {
		return
	}
	s.lose(fmt.Sprintf("it has died %d times in a row and is tried again at %s; see supervisor.log in %s", deaths.Deaths,
		time.Now().Add(v.Wait).Format(time.TimeOnly), s.o.StateDir), v.Open)
	if v.Open && deaths.Deaths == supervisorGuard().Deaths {
		s.say(ctx, "supervisor.breaker_open", map[string]any{"deaths": deaths.Deaths, "retry_ms": v.Wait.Milliseconds()})
	}
	pause(ctx, v.Wait)
}

// sayLost tells that a supervisor has died and that there is another.
func (s *Server) sayLost(ctx context.Context, pid int, fresh bool, after time.Duration) {
	data := map[string]any{"pid": pid, "restarted": fresh, "after_ms": after.Milliseconds()}
	if e := s.finder.exitOf(pid); e != nil {
		data["code"], data["signal"] = e.Code, e.Signal
	}
	s.say(ctx, "supervisor.lost", data)
}
