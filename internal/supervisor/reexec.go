package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/reexec"
	"github.com/perdure/perdure/internal/sockpath"
)

// Versions is what `perdure supervisor --check` says, as JSON: the versions of
// what a supervisor shares with the one before it and with its server.
type Versions struct {
	// Build is the version of the program.
	Build string `json:"build"`
	// Reexec is the version of what a supervisor hands over to the next program.
	Reexec int `json:"reexec"`
	// Control and Journal are those of the control protocol and of the journal.
	Control int `json:"control"`
	Journal int `json:"journal"`
}

// reexecVersion is the version of parcel that is written, and the only one that
// is read. The ledger is in docs/how-to/upgrade.md.
const reexecVersion = 1

// parcelKind is the word of the supervisor's parcel.
const parcelKind = "supervisor"

// parcel is what a supervisor hands over to the program that it becomes, besides
// the journal. Descriptors are given by number.
type parcel struct {
	Version  int       `json:"version"`
	From     string    `json:"from"` // the version of the program
	Lock     int       `json:"lock"`
	Listener int       `json:"listener"`
	Began    time.Time `json:"began"`
	// Held are the live generations, and Reaps says that the server is the parent
	// of those that were adopted.
	Held  []handed `json:"held,omitempty"`
	Reaps bool     `json:"reaps,omitempty"`
	// Server is how the server is started again. Its environment may hold secrets;
	// a parcel is only ever in memory.
	Server control.ServerCommand `json:"server"`
}

// handed is a control.Held with the numbers of its descriptors.
type handed struct {
	control.Held
	FDs []int `json:"fds"`
}

// fds are all descriptors of a parcel.
func (p *parcel) fds() []int {
	out := []int{p.Lock, p.Listener}
	for _, h := range p.Held {
		out = append(out, h.FDs...)
	}
	return out
}

// inherited is what a parcel holds for Open.
func (p *parcel) inherited() control.HandedOver {
	out := control.HandedOver{Reaps: p.Reaps}
	for _, h := range p.Held {
		h.Held.FDs = h.FDs
		out.Held = append(out.Held, h.Held)
	}
	return out
}

// check is `perdure supervisor --check`: it says whether this program could go on
// with a state directory, and changes nothing.
func check(dir, build string) error {
	if err := journal.Check(filepath.Join(dir, "journal")); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(Versions{Build: build, Reexec: reexecVersion, Control: control.Version, Journal: journal.FormatVersion})
}

// errMoving ends what is asked of a supervisor that becomes another program.
var errMoving = errors.New("the supervisor becomes another program; ask again")

// errBusy says that the supervisor is about to become another program already.
var errBusy = api.Errorf(api.CodeConflict, "cannot upgrade: another upgrade is under way")

// Upgrade implements control.Supervisor. The program is run once, to see that it
// can be, and that it can read what we have written.
func (s *Supervisor) Upgrade(ctx context.Context, path string) error {
	e := s.o.estate
	switch {
	case e == nil:
		return api.Errorf(api.CodeFailed, "this supervisor is part of another program")
	case runtime.GOOS != "linux":
		// As one that does not know of upgrades: the server replaces it then.
		return api.Errorf(api.CodeInvalid, "on %s a supervisor cannot become another program", runtime.GOOS)
	}
	if s.ending() {
		return api.Errorf(api.CodeConflict, "cannot upgrade: Perdure is shutting down")
	}
	if err := s.couldBecome(ctx, path); err != nil {
		return api.Errorf(api.CodeFailed, "%v", err)
	}
	select {
	case e.next <- path:
		return nil
	default:
		return errBusy
	}
}

// checkTime bounds the check of another program.
const checkTime = 10 * time.Second

func (s *Supervisor) couldBecome(ctx context.Context, path string) error {
	if s.troubles.unwritten() {
		return errors.New("the journal cannot be written now: what happens could not be handed over")
	}
	if err := s.o.estate.lock.Check(); err != nil {
		return fmt.Errorf("the state directory is not ours any more: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	argv := append([]string{path}, s.o.estate.args...)
	exit, out, err := s.host.run(ctx, proc.Spec{Argv: append(argv, "--check"), Env: s.o.Env}, 1<<16)
	if err != nil {
		return err
	}
	var v Versions
	switch {
	case exit.Code != 0:
		return fmt.Errorf("%s cannot take over: %s", path, strings.TrimSpace(string(out)))
	case json.Unmarshal(out, &v) != nil:
		return fmt.Errorf("%s does not say whether it could take over; is it Perdure?", path)
	case v.Reexec != reexecVersion:
		return fmt.Errorf("%s (version %s) takes over in version %d, and this supervisor hands over in version %d", path, v.Build, v.Reexec, reexecVersion)
	}
	return nil
}

// estate is what outlives a supervisor that becomes another program, or tries to.
type estate struct {
	dir      string
	args     []string    // of this program, and of the next one
	next     chan string // the program that the supervisor shall become
	lock     *flock.Lock
	listener net.Listener
	// inherited is what a server has held, or the program before.
	inherited control.HandedOver
	from      *parcel // nil: this process was started as a supervisor
	failed    error   // why it has not become another program
}

// settle takes the state directory, or what the program before hands over. The
// socket comes later, because nobody may knock before all is adopted.
func settle(dir string, args []string) (*estate, error) {
	e := &estate{dir: dir, args: args, next: make(chan string, 1)}
	path := lockPath(dir)
	var p parcel
	became, err := reexec.Take(parcelKind, &p)
	if err == nil && became && p.Version != reexecVersion {
		err = fmt.Errorf("the program before has handed over in version %d, and this one knows version %d", p.Version, reexecVersion)
	}
	switch {
	case err != nil:
	case became:
		e.from, e.inherited = &p, p.inherited()
		if e.lock, err = flock.Inherited(path, p.Lock); err == nil {
			e.inherit(p.Listener)
		}
		fault.Here("supervisor.upgrade.after_exec")
	default:
		e.lock, err = flock.Take(path)
		fault.Here("supervisor.lock.after")
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// inherit takes the socket over. Without its file nobody could connect: then
// listen makes another one.
func (e *estate) inherit(fd int) {
	l, err := sockpath.Inherited(SocketPath(e.dir), fd)
	if err == nil {
		e.listener = l
	}
}

// listen opens the socket, unless it was inherited.
func (e *estate) listen() (err error) {
	if e.listener == nil {
		e.listener, err = sockpath.Listen(SocketPath(e.dir))
	}
	return err
}

// hand prepares a parcel. From now on who connects waits for the next program.
func (e *estate) hand(s *Supervisor) (*parcel, error) {
	fd, err := sockpath.Hand(e.listener)
	if err != nil {
		return nil, err
	}
	return &parcel{Version: reexecVersion, From: s.o.Build, Lock: e.lock.FD(), Listener: fd, Began: time.Now(), Server: s.servers.again(),
		Reaps: s.servers.reaps.Load()}, nil
}

// became says that this process was another program before, or has tried to be
// another one since.
func (e *estate) became() bool { return e != nil && e.from != nil }

// hand gives away what could be lost of the live generation.
func (a *actor) hand(to func(control.Held)) {
	if a.proc == nil || a.ident == nil {
		return
	}
	fd, err := a.proc.PidFD()
	if err != nil {
		return // it has ended, and that is written down
	}
	h := control.Held{Name: a.who.name, ID: a.who.id, Generation: a.state.Generation, Seq: a.seq, Identity: *a.ident, FDs: []int{fd}}
	if a.sink != nil {
		fifos, err := a.sink.FIFOs()
		if err != nil {
			a.sup.o.Logger.Warn("The last output of a process may be lost if it ends now", "process", a.who.name, "error", err)
		}
		h.FDs = append(h.FDs, fifos...)
	}
	to(h)
}

// parcel prepares what is handed over; nil says that the supervisor stays what it
// is, because it ends, or cannot hand over.
func (s *Supervisor) parcel() *parcel {
	if s.ending() {
		return nil
	}
	p, err := s.o.estate.hand(s)
	if err != nil {
		s.o.Logger.Error("Cannot become another program", "error", err)
		return nil
	}
	return p
}

// upgradeInPlace is what SIGUSR2 asks for.
func (s *Supervisor) upgradeInPlace(ctx context.Context) {
	path, err := os.Executable()
	if err == nil {
		err = s.Upgrade(ctx, path)
	}
	if err != nil {
		s.o.Logger.Error("Cannot upgrade", "error", err)
		s.say("supervisor.upgrade_failed", map[string]any{"error": err.Error()})
	}
}

// become goes on as another program, after the supervisor is closed. When that
// fails, the estate is as after settle, and the same program goes on by it.
func (e *estate) become(path string, p *parcel) {
	fault.Here("supervisor.upgrade.before_exec")
	failed := reexec.Exec(path, append([]string{path}, e.args...), parcelKind, p, p.fds())
	e.listener, e.failed, e.from, e.inherited = nil, failed, p, p.inherited()
	e.inherit(p.Listener)
}

// told tells how the supervisor came about.
func (e *estate) told(s *Supervisor, data map[string]any) {
	switch {
	case e == nil || e.from == nil:
		s.say("supervisor.started", data)
	case e.failed != nil:
		s.say("supervisor.upgrade_failed", map[string]any{"error": e.failed.Error()})
	default:
		s.say("supervisor.upgraded", map[string]any{"pid": os.Getpid(), "from": e.from.From, "to": s.o.Build,
			"took_ms": time.Since(e.from.Began).Milliseconds()})
	}
}
