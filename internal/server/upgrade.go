package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/reexec"
	"github.com/perdure/perdure/internal/sockpath"
	"github.com/perdure/perdure/internal/supervisor"
)

// Become says how a server goes on as another program.
type Become struct {
	// Args are that program's arguments. Empty: this server cannot.
	Args []string
	// Check are the arguments with which it only tells whether it could.
	Check []string
	// Leaving is called when the streams have ended, before the server becomes
	// the other program. May be nil.
	Leaving func()
}

// inheritedKind is the word of the server's parcel.
const inheritedKind = "server"

// Handover is the version of Inherited that is written, and the only one that is
// read. The ledger is in docs/how-to/upgrade.md.
const Handover = 1

// Inherited is what the program that this process was before hands over to the
// next one: descriptors by number.
type Inherited struct {
	Version int `json:"version"`
	// From is the version of that program.
	From string `json:"from"`
	// Since is when it ended its streams.
	Since     time.Time           `json:"since"`
	Lock      int                 `json:"lock"`
	Listeners []inheritedListener `json:"listeners"`
}

// inheritedListener is the Unix socket, whose Addr is empty, or a TCP listener.
type inheritedListener struct {
	FD   int    `json:"fd"`
	Addr string `json:"addr,omitempty"`
}

// Inherit returns what the server has inherited that this process was before, nil
// if it was none. It is called once, early.
func Inherit() (*Inherited, error) {
	in := &Inherited{}
	became, err := reexec.Take(inheritedKind, in)
	if err != nil || !became {
		return nil, err
	}
	fault.Here("server.upgrade.after_exec")
	if in.Version != Handover {
		return nil, fmt.Errorf("cannot go on where the program before was: it has handed over in version %d, and this one knows version %d",
			in.Version, Handover)
	}
	return in, nil
}

// CheckOptions tells whether a server with these options could go on in the state
// directory. It changes nothing.
func CheckOptions(ctx context.Context, o Options) error {
	if _, err := settle(o); err != nil {
		return err
	}
	return checkStore(ctx, filepath.Join(o.StateDir, databaseName))
}

// upgradeTime bounds an upgrade of the supervisor, with all that it has to adopt.
const upgradeTime = time.Minute

// Upgrade implements httpapi.Backend. The program is checked before anything is
// done. The supervisor goes first: if the new one dies, the server, which is
// still the old program, starts an old one again.
func (s *Server) Upgrade(ctx context.Context, req api.UpgradeRequest) (res api.UpgradeResult, err error) {
	if err := s.upgradable(req); err != nil {
		return res, err
	}
	if !s.upgrading.TryLock() {
		return res, api.Errorf(api.CodeConflict, "cannot upgrade: another upgrade is under way")
	}
	defer s.upgrading.Unlock()
	// Half an upgrade helps nobody, so it goes on when who asked for it has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upgradeTime)
	defer cancel()
	theirs, err := s.finder.check(ctx, req.Binary, s.o.Become.Check)
	if err != nil {
		return res, api.Errorf(api.CodeFailed, "cannot upgrade: %v; nothing was changed", err)
	}
	before, _, _ := s.att.told()
	res = api.UpgradeResult{From: before.Build, To: theirs.Build, SupervisorPID: before.PID, ServerPID: os.Getpid()}
	defer func() {
		if err != nil {
			s.say(ctx, "server.upgrade_failed", map[string]any{"binary": req.Binary, "error": err.Error()})
		}
	}()
	fault.Here("server.upgrade.checked")
	err = s.ask(ctx, false, func(sup control.Supervisor) error { return sup.Upgrade(ctx, req.Binary) })
	if api.CodeOf(err) == api.CodeInvalid && err != nil {
		// It is too old to become another program. Its processes live on without it.
		res.Replaced = true
		err = s.finder.replace(before.PID, req.Binary)
	}
	if err != nil {
		return res, fmt.Errorf("cannot upgrade: %w; the old supervisor goes on", err)
	}
	if theirs.Control != control.Version {
		// Only the next server can talk to that one.
		return res, s.move.to(req.Binary)
	}
	now, err := s.att.after(ctx, before)
	switch {
	case err != nil:
		return res, err
	case now.Failed != "":
		return res, api.Errorf(api.CodeFailed, "cannot upgrade: %s; the old supervisor goes on", now.Failed)
	case now.PID != before.PID && !res.Replaced || now.Build != theirs.Build:
		return res, api.Errorf(api.CodeFailed, "cannot upgrade: the supervisor died as version %s, and version %s has adopted everything; "+
			"see supervisor.log in %s", theirs.Build, now.Build, s.o.StateDir)
	}
	fault.Here("server.upgrade.half")
	res.SupervisorPID = now.PID
	return res, s.move.to(req.Binary)
}

// to has Run go on as another program.
func (m *move) to(path string) error {
	select {
	case m.moves <- path:
		return nil
	default:
		return api.Errorf(api.CodeConflict, "cannot upgrade: another upgrade is under way")
	}
}

// upgradable says why a server cannot become what is asked for, if it cannot.
func (s *Server) upgradable(req api.UpgradeRequest) error {
	refuse := func(format string, args ...any) error {
		return api.Errorf(api.CodeConflict, "cannot upgrade: "+format, args...)
	}
	switch {
	case !filepath.IsAbs(req.Binary):
		return &api.Error{Code: api.CodeInvalid, Field: "binary", Message: fmt.Sprintf("cannot use %q: an absolute path is needed", req.Binary)}
	case s.o.Embedded, len(s.o.Become.Args) == 0:
		return refuse("this server is part of another program, or ends with its one command")
	case isClosed(s.end.stopping), isClosed(s.end.asked):
		return refuse("Perdure is shutting down")
	}
	return nil
}

// after waits until the supervisor that is attached is another one than before,
// or the same as another program.
func (a *attachment) after(ctx context.Context, before control.Info) (control.Info, error) {
	for {
		a.mu.Lock()
		info, away, changed := a.info, a.sup == nil, a.changed
		a.mu.Unlock()
		if !away && !info.StartedAt.Equal(before.StartedAt) {
			return info, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return info, api.Errorf(api.CodeTimeout, "cannot tell what became of the upgrade: the supervisor has not answered in time; see supervisor.log")
		}
	}
}

// hand makes descriptors of the listeners for the next program.
func (s *Server) hand(listeners []listener) (*Inherited, error) {
	in := &Inherited{Version: Handover, From: s.o.Version, Lock: s.lock.FD(), Since: time.Now()}
	for _, l := range listeners {
		fd, err := sockpath.Hand(l.Listener)
		if err != nil {
			in.close()
			return nil, err
		}
		in.Listeners = append(in.Listeners, inheritedListener{FD: fd, Addr: l.addr})
	}
	return in, nil
}

func (in *Inherited) close() {
	for _, l := range in.Listeners {
		sockpath.CloseHand(l.FD)
	}
}

// become goes on as another program. Everything else is left as it is, as when
// the server is killed: what was told is in the event log, and the next server
// reads on from the cursor. It returns only if that fails, with the listeners for
// going on as before.
func (s *Server) become(ctx context.Context, path string, in *Inherited) ([]listener, error) {
	fds := []int{in.Lock}
	for _, l := range in.Listeners {
		fds = append(fds, l.FD)
	}
	if s.o.Become.Leaving != nil {
		s.o.Become.Leaving()
	}
	fault.Here("server.upgrade.before_exec")
	failed := reexec.Exec(path, append([]string{path}, s.o.Become.Args...), inheritedKind, in, fds)
	s.stayed = in.Since
	s.o.Logger.Error("Cannot become another program; the old server goes on", "error", failed)
	s.say(ctx, "server.upgrade_failed", map[string]any{"binary": path, "error": failed.Error()})
	var out []listener
	for _, l := range in.Listeners {
		n, err := s.inherited(l)
		if err != nil {
			return out, errors.Join(failed, err)
		}
		out = append(out, n)
	}
	return out, nil
}

// Stayed is when the streams ended of a server that has tried to become another
// program in vain; zero if it has not.
func (s *Server) Stayed() time.Time { return s.stayed }

// inherited makes a listener of one that was handed over.
func (s *Server) inherited(l inheritedListener) (listener, error) {
	path := ""
	if l.Addr == "" {
		path = SocketPath(s.o.StateDir)
	}
	n, err := sockpath.Inherited(path, l.FD)
	return listener{Listener: n, addr: l.Addr}, err
}

// inheritedAt returns the listener for an address that was inherited, nil if none was.
func (s *Server) inheritedAt(addr string) net.Listener {
	if s.o.Inherited == nil {
		return nil
	}
	for i, l := range s.o.Inherited.Listeners {
		if l.FD < 0 || l.Addr != addr {
			continue
		}
		s.o.Inherited.Listeners[i].FD = -1
		n, err := s.inherited(l)
		if err == nil {
			return n.Listener
		}
		// Such as a socket whose file was removed: another one is made.
		s.o.Logger.Warn("Cannot take a listener over", "error", err)
	}
	return nil
}

// resumes says that this server goes on where one before it was: it gives the
// supervisor no definitions, because a file that was changed meanwhile, or a new
// program with other defaults, is no reason to touch a process. Only where the
// supervisor has none it does.
func (s *Server) resumes(ctx context.Context) (bool, error) {
	if !s.o.Resume && s.o.Inherited == nil {
		return false, nil
	}
	var recs []control.Record
	err := s.ask(ctx, true, func(sup control.Supervisor) (err error) {
		recs, _, err = sup.List(ctx)
		return err
	})
	return len(recs) > 0, err
}

// versions is what a program says when it is asked whether it could take over.
type versions = supervisor.Versions
