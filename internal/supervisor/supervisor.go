// Package supervisor acts on what internal/supervise decides. It holds one
// actor per process, the journal in which every state and event is written
// before its effects are executed, and the dependencies between processes. It
// implements control.Supervisor and needs no server to go on.
//
// An actor is a mailbox that is drained by at most one goroutine at a time; a
// process that rests has no goroutine. Everything that happens to a process
// (commands, exits, timers, probe answers) is a message with the generation
// that it is about.
package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/logstore"
	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/supervise"
	"github.com/perdure/perdure/internal/supervisor/workers"
)

// Options says how a supervisor works.
type Options struct {
	// Dir is the state directory (mode 0700), which must exist.
	Dir string
	// Build is the version of the program, for Info.
	Build string
	// Env is the base of the environment of all processes. Default: os.Environ.
	Env []string
	// Logger takes what concerns the supervisor itself. Default: none.
	Logger *slog.Logger
	// Embedded says that the process is not ours alone: then its other children
	// are left to it, and it does not become a subreaper.
	Embedded bool
	// NoCgroup gives no process a cgroup of its own. The environment variable
	// PERDURE_CGROUP=off does the same.
	NoCgroup bool
	// Clock and Roll are the sources of time and chance. Default: the boot
	// clock and math/rand.
	Clock func() supervise.Instant
	Roll  func() float64
	// Inherited is what the server that starts this supervisor has held of the
	// processes since the one before.
	Inherited control.HandedOver
	// OnExit is called at most once, when a process asks that Perdure end, or has
	// asked an earlier supervisor that has not done it. Then it is called before
	// Open returns, with everything adopted. It must not wait for the end.
	// Default: the supervisor shuts itself down.
	OnExit func(code int)
	// estate is what a supervisor of its own process outlives itself by; nil when
	// it is part of another program. With it Open takes no lock.
	estate *estate
}

// Supervisor keeps a set of processes alive. It is safe for concurrent use.
type Supervisor struct {
	o Options
	rooms
	tree    *tree
	started time.Time
	notes   []string
	origin  origin
	runDir  string
	bootID  string
	closers []func() error // in the order of opening

	running  sync.WaitGroup // drains under way
	spawning chan struct{}  // holds those who are spawning
	servers  *servers       // those that follow the journal, and how one is started again

	troubles *troubles // what cannot be written now

	mu     sync.Mutex
	actors map[string]*actor
	trim   *time.Timer // gives memory back after an Apply

	end end
}

// rooms are those beneath the actors.
type rooms struct {
	host   host
	out    outputs
	log    log
	probes prober
	hub    *session.Hub // nil: no worker can connect
	// awaitLine is workers.AwaitLine: a wait that outlives the message that begins it.
	awaitLine func(dir, name, pattern string, q logstore.Query, found func(), failed func(error)) (stop func())
}

// end is what belongs to the end of everything.
type end struct {
	begun chan struct{} // closed when it begins: no new work; guarded by mu
	// applying is held by whoever changes the set of processes. It is a channel
	// so that a wait for it can be given up.
	applying chan struct{}
	done     chan struct{} // closed when a Shutdown has ended
	once     sync.Once
	code     *int        // that a process has asked for; guarded by mu
	ready    bool        // recovery is over, so that the end may begin; guarded by mu
	kill     *time.Timer // the deadline; guarded by mu, as is due
	due      time.Time
}

// newSupervisor returns a supervisor over its rooms; Open fills them with the real
// ones, which may tell of troubles before.
func newSupervisor(o Options, h host, out outputs, l log, p prober, t *troubles) *Supervisor {
	s := &Supervisor{o: o, rooms: rooms{host: h, out: out, log: l, probes: p, awaitLine: workers.AwaitLine}, started: time.Now().UTC(),
		actors: map[string]*actor{}, troubles: t,
		servers:  newServers(o.Dir),
		end:      end{begun: make(chan struct{}), done: make(chan struct{}), applying: make(chan struct{}, 1)},
		spawning: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
	s.tree = newTree(s)
	t.begin(l)
	return s
}

var _ control.Supervisor = (*Supervisor)(nil)

// Info implements control.Supervisor.
func (s *Supervisor) Info(context.Context) (control.Info, error) {
	info := control.Info{Version: control.Version, Build: s.o.Build, PID: os.Getpid(), StartedAt: s.started, Journal: s.origin.journal,
		LastSeq: s.log.LastSeq(), OpenSeq: s.origin.seq, Notes: slices.Clone(s.notes),
		Damage: s.origin.damage, Troubles: s.troubles.list()}
	if e := s.o.estate; e != nil && e.failed != nil {
		info.Failed = e.failed.Error()
	}
	return info, nil
}

// Command implements control.Supervisor.
func (s *Supervisor) Command(ctx context.Context, cmd control.Command) (control.Record, error) {
	a, err := s.actor(cmd.Name)
	if err != nil {
		return control.Record{}, err
	}
	m, err := s.message(cmd)
	if err != nil {
		return control.Record{}, err
	}
	if cmd.Verb == "remove" {
		// A new definition of that name comes wholly before it or after it.
		if err := s.enter(ctx); err != nil {
			return control.Record{}, err
		}
		defer s.leave()
	}
	return await(ctx, a, m)
}

// enter waits for the right to change the set of processes. It is refused once
// the end has begun.
func (s *Supervisor) enter(ctx context.Context) error {
	select {
	case s.end.applying <- struct{}{}:
		if s.ending() {
			s.leave()
			return s.refusal()
		}
		return nil
	case <-s.end.begun:
		return s.refusal()
	case <-ctx.Done():
		return api.Errorf(api.CodeTimeout, "cannot change the set of processes: another change is under way: %v", ctx.Err())
	}
}

func (s *Supervisor) leave() { <-s.end.applying }

func (s *Supervisor) refusal() error {
	return api.Errorf(api.CodeConflict, "cannot change the set of processes: Perdure is shutting down")
}

// ending says that the end has begun.
func (s *Supervisor) ending() bool {
	select {
	case <-s.end.begun:
		return true
	default:
		return false
	}
}

// finishChanges begins the end and returns when no change of the set of
// processes is under way, and none will be.
func (s *Supervisor) finishChanges() {
	s.mu.Lock()
	if !s.ending() {
		close(s.end.begun)
	}
	s.mu.Unlock()
	s.end.applying <- struct{}{}
	s.leave()
}

// message translates an operator's command.
func (s *Supervisor) message(cmd control.Command) (message, error) {
	switch cmd.Verb {
	case "start", "restart":
		if s.ending() {
			return message{}, api.Errorf(api.CodeConflict, "cannot %s %q: Perdure is shutting down", cmd.Verb, cmd.Name)
		}
		kind := supervise.Start
		if cmd.Verb == "restart" {
			kind = supervise.Restart
		}
		return message{do: func(a *actor) error { return a.start(supervise.Input{Kind: kind, Force: cmd.Force}) }}, nil
	case "stop":
		return message{in: supervise.Input{Kind: supervise.Stop}}, nil
	case "reset":
		return message{in: supervise.Input{Kind: supervise.Reset}}, nil
	case "kill":
		return message{in: supervise.Input{Kind: supervise.Kill}}, nil
	case "remove":
		return message{do: func(a *actor) error { return a.remove() }}, nil
	case "signal":
		return message{do: func(a *actor) error {
			if a.proc == nil {
				return api.Errorf(api.CodeConflict, "cannot signal %q: it is %s, not running", a.who.name, a.state.State)
			}
			if err := a.proc.Signal(cmd.Signal); err != nil {
				return api.Errorf(api.CodeFailed, "cannot signal %q: %v", a.who.name, err)
			}
			return nil
		}}, nil
	}
	return message{}, api.Errorf(api.CodeInvalid, "cannot do %q to a process (verbs: start, stop, restart, reset, signal, kill, remove)", cmd.Verb)
}

// outcome is what became of a message.
type outcome struct {
	rec control.Record
	err error
}

// ask posts a message; its outcome comes over the channel.
func ask(a *actor, m message) <-chan outcome {
	ch := make(chan outcome, 1)
	m.done = func(r control.Record, err error) { ch <- outcome{r, err} }
	a.post(m)
	return ch
}

// answer waits for what was asked. The message is carried out even if ctx ends
// first.
func answer(ctx context.Context, a *actor, ch <-chan outcome) (control.Record, error) {
	select {
	case o := <-ch:
		return o.rec, o.err
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errMoving) {
			return control.Record{}, api.Errorf(api.CodeUnavailable, "%v", errMoving)
		}
		return control.Record{}, api.Errorf(api.CodeTimeout, "cannot tell what became of the command to %q: %v", a.who.name, ctx.Err())
	}
}

// await asks and waits for the answer. Who has something for many processes asks
// all of them first: one whose start waits for its turn then holds up no other.
func await(ctx context.Context, a *actor, m message) (control.Record, error) {
	return answer(ctx, a, ask(a, m))
}

// remove ends the process for good and forgets it once it is gone.
func (a *actor) remove() error {
	a.sup.tree.removing(a.who.name)
	err := a.step(supervise.Input{Kind: supervise.Shutdown, Reason: api.ReasonRemoved})
	if err != nil || a.state.Alive || a.state.SpawnPending {
		return err
	}
	return a.forget()
}

// List implements control.Supervisor.
func (s *Supervisor) List(ctx context.Context) ([]control.Record, uint64, error) {
	s.mu.Lock()
	actors := slices.SortedFunc(maps.Values(s.actors), func(a, b *actor) int {
		if a.who.name < b.who.name {
			return -1
		}
		return 1
	})
	s.mu.Unlock()
	answers := make([]<-chan outcome, len(actors))
	for i, a := range actors {
		answers[i] = ask(a, message{do: func(*actor) error { return nil }})
	}
	recs := make([]control.Record, 0, len(actors))
	var last uint64
	for i, a := range actors {
		r, err := answer(ctx, a, answers[i])
		if err != nil {
			if api.CodeOf(err) == api.CodeNotFound {
				continue
			}
			return nil, 0, err
		}
		last = max(last, r.Seq)
		recs = append(recs, r)
	}
	return recs, last, nil
}

// Ack implements control.Supervisor.
func (s *Supervisor) Ack(_ context.Context, seq uint64) error { return s.log.Ack(seq) }

// actor returns the actor of a name.
func (s *Supervisor) actor(name string) (*actor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.actors[name]; a != nil {
		return a, nil
	}
	return nil, api.Errorf(api.CodeNotFound, "cannot find process %q", name)
}

// post puts a message into the inbox of a process, and says whether there is
// one of that name.
func (s *Supervisor) post(name string, m message) bool {
	s.mu.Lock()
	a := s.actors[name]
	s.mu.Unlock()
	if a != nil {
		a.post(m)
	}
	return a != nil
}

// forget has a process that is gone forgotten.
func (s *Supervisor) forget(name string) { s.post(name, message{do: (*actor).forget}) }

// dropped is called by an actor that has forgotten its process.
func (s *Supervisor) dropped(name string) {
	s.mu.Lock()
	delete(s.actors, name)
	s.mu.Unlock()
	s.troubles.forget(name)
	s.tree.dropped(name)
}

// say writes an event of the supervisor's own, as soon as the journal can be
// written.
func (s *Supervisor) say(event string, data map[string]any) {
	e := control.Event{Type: event}
	if len(data) > 0 {
		e.Data, _ = json.Marshal(data)
	}
	s.troubles.write(supervisorKey, control.Entry{Events: []control.Event{e}})
}

// exit is asked for by a process: everything is stopped and Perdure ends with
// the code. The first one wins.
func (s *Supervisor) exit(code int, name string) {
	s.mu.Lock()
	first, ready := s.end.code == nil, s.end.ready
	if first {
		s.end.code = &code
	}
	s.mu.Unlock()
	if !first {
		return
	}
	data, _ := json.Marshal(map[string]any{"code": code, "by": name})
	fault.Here("supervisor.exit_asked.before")
	s.troubles.write(supervisorKey, control.Entry{Exit: &code, Events: []control.Event{{Type: "supervisor.exit", Data: data}}})
	fault.Here("supervisor.exit_asked.after")
	if ready {
		s.leaveWith(code)
	}
}

// recovered is called when everything is adopted. Whoever asked for the end
// before is heard now.
func (s *Supervisor) recovered() {
	s.mu.Lock()
	s.end.ready = true
	code := s.end.code
	s.mu.Unlock()
	if code != nil {
		s.leaveWith(*code)
	}
}

func (s *Supervisor) leaveWith(code int) {
	if s.o.OnExit == nil {
		s.begin(shutdownDefault)
		return
	}
	s.o.OnExit(code)
}

// hash identifies what a restart depends on.
func (s *Supervisor) hash(d *api.Definition) string { return definition.Hash(*d) }
