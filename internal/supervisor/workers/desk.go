package workers

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/schema"
	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/wire"
)

// Options say whose workers a Desk has, and what it needs.
type Options struct {
	Hub *session.Hub
	// Dir is the folder of the sockets, which is ours alone.
	Dir string
	// ID and Name are the process's, Server is the name and version of Perdure.
	ID, Name, Server string
	// Owns says whether a process of the system belongs to a generation; id is
	// nil as long as its start is under way. Tree lists what belongs to it.
	Owns func(id *proc.Identity, pid int) bool
	Tree func(id *proc.Identity) []int
	// Take and Beat are those of session.Handler.
	Take func(b session.Batch, done func(error))
	Beat func()
}

// Desk is where the workers of one process are served. All its methods belong to
// the actor of the process, but for those of session.Handler.
type Desk struct {
	o     Options
	def   *api.Definition
	kept  control.Worker
	ep    *session.Endpoint // nil: closed
	spec  session.Spec      // of ep, and its files before
	reads map[string]*schema.Schema
	takes map[string]*schema.Schema
	// adopted says that the generation was started by another supervisor, and that
	// no worker of it has come back yet.
	adopted bool

	sheet atomic.Pointer[sheet]
}

// sheet is what the hub asks for, from goroutines of its own.
type sheet struct {
	welcome wire.Welcome
	ident   *proc.Identity // nil: its start is under way
}

// New returns a closed desk with what is remembered.
func New(o Options, kept control.Worker) *Desk {
	d := &Desk{o: o, kept: kept}
	d.sheet.Store(&sheet{})
	return d
}

// Kept is what is to be remembered.
func (d *Desk) Kept() control.Worker { return d.kept }

// Opened says whether workers can connect.
func (d *Desk) Opened() bool { return d.ep != nil }

// Define takes a definition over. Where workers connect changes with Open alone.
func (d *Desk) Define(def *api.Definition) {
	if def == d.def {
		return
	}
	d.def = def
	d.reads, d.takes = compile(def.Events), compile(def.Commands)
	s := *d.sheet.Load()
	s.welcome = d.welcome(s.welcome.Generation)
	d.sheet.Store(&s)
}

// compile compiles schemas, all of which have been checked; one that cannot be
// used holds nothing up.
func compile(list map[string]any) map[string]*schema.Schema {
	out := map[string]*schema.Schema{}
	for name, doc := range list {
		if s, err := schema.Compile(doc); err == nil && doc != nil && doc != true {
			out[name] = s
		}
	}
	return out
}

func (d *Desk) welcome(generation uint64) wire.Welcome {
	w := wire.Welcome{Server: d.o.Server, ProcessID: d.o.ID, Name: d.o.Name, Generation: generation}
	if h := d.def.Heartbeat; h != nil {
		w.Heartbeat = &wire.Beat{IntervalMs: h.Interval.D().Milliseconds(), TimeoutMs: h.Timeout.D().Milliseconds()}
	}
	if g := d.def.Stop.Grace; g != nil {
		w.Stop = &wire.Stop{GraceMs: g.D().Milliseconds()}
	}
	w.Metadata, _ = definition.Metadata(*d.def)
	return w
}

// Begin opens what the workers of a new generation connect to, before its program
// is executed. Changed says that what is kept is now something else, which must be
// written down first: the process will be told of it.
func (d *Desk) Begin(def *api.Definition, generation uint64) (changed bool, err error) {
	d.Define(def)
	d.sheet.Store(&sheet{welcome: d.welcome(generation)})
	d.adopted = false
	port, token := d.kept.Port, d.kept.Token
	if err := d.open(); err != nil {
		if port == 0 {
			return false, err
		}
		// Somebody else has the port now, and nothing lives that knows it as ours.
		d.kept.Port = 0
		if err := d.open(); err != nil {
			return false, err
		}
	}
	return port != d.kept.Port || token != d.kept.Token, nil
}

// Began says which process of the system has been started.
func (d *Desk) Began(id proc.Identity) {
	d.sheet.Store(&sheet{welcome: d.sheet.Load().welcome, ident: &id})
}

// Adopt opens what the workers of a generation connect to that another supervisor
// has started: the same path, or the same port.
func (d *Desk) Adopt(def *api.Definition, generation uint64, id proc.Identity) error {
	d.Define(def)
	d.adopted = true
	d.sheet.Store(&sheet{welcome: d.welcome(generation), ident: &id})
	return d.open()
}

// open listens, unless it does so already in the way that the definition wants.
func (d *Desk) open() error {
	want := d.wanted()
	if d.ep != nil {
		if same(want, d.spec) {
			return nil
		}
		d.Close()
	}
	d.spec = want
	if want.NoWorkers && want.Notify == "" && want.Newline == "" {
		return nil
	}
	want.Marks = d.kept.Marks
	ep, err := d.o.Hub.Listen(want, (*desk)(d))
	if err != nil {
		return fmt.Errorf("its workers could not connect: %w", err)
	}
	d.ep, d.kept.Port = ep, ep.Port()
	d.spec.Port = ep.Port()
	return nil
}

// same compares what a process was told at its start.
func same(a, b session.Spec) bool {
	return a.Path == b.Path && a.NoWorkers == b.NoWorkers && a.Port == b.Port && a.Token == b.Token &&
		a.AnyMessage == b.AnyMessage && a.Notify == b.Notify && a.Newline == b.Newline
}

// wanted is what the definition asks for.
func (d *Desk) wanted() session.Spec {
	s := session.Spec{ProcessID: d.o.ID, AnyMessage: d.def.Heartbeat != nil && d.def.Heartbeat.Any}
	switch definition.Transport(*d.def) {
	case definition.TransportUnix:
		s.Path = d.path(".sock")
		d.kept.Port, d.kept.Token = 0, ""
	case definition.TransportTCP:
		if d.kept.Token == "" {
			d.kept.Token = rand.Text()
		}
		s.Port, s.Token = d.kept.Port, d.kept.Token
	default:
		s.NoWorkers = true
		d.kept.Port, d.kept.Token = 0, ""
	}
	if definition.Notifies(*d.def) {
		s.Notify = d.notifyPath()
	}
	if d.def.Ready != nil && d.def.Ready.FD != 0 {
		s.Newline = d.path(".ready")
	}
	return s
}

// Close hangs up on all workers and removes the files. The same desk can be
// opened again.
func (d *Desk) Close() {
	d.Leave()
	for _, path := range []string{d.spec.Path, d.spec.Notify, d.spec.Newline} {
		if path != "" && path[0] != '@' {
			// One that is left is replaced at the next start.
			_ = os.Remove(path)
		}
	}
}

// Leave hangs up on all workers and leaves the files, so that they find the next
// supervisor there.
func (d *Desk) Leave() {
	if d.ep != nil {
		d.ep.Close()
		d.ep = nil
	}
}

// LastBeat is the time of the last heartbeat on the clock of the hub, 0 for none.
func (d *Desk) LastBeat() int64 {
	if d.ep == nil {
		return 0
	}
	return d.ep.LastBeat()
}

// AwaitBeat has Options.Beat called at the next heartbeat.
func (d *Desk) AwaitBeat() {
	if d.ep != nil {
		d.ep.AwaitBeat()
	}
}

// Look is what is known now; Conns is how many workers are connected.
func (d *Desk) Look() session.Look {
	if d.ep == nil {
		return session.Look{}
	}
	return d.ep.Look()
}

// Endpoint is what commands go through, and an error when workers cannot connect.
func (d *Desk) Endpoint() (*session.Endpoint, error) {
	if d.ep == nil {
		return nil, session.ErrNoWorker
	}
	return d.ep, nil
}

// CheckCommand says what is wrong with the data of a command; nil when it fits or
// is not declared.
func (d *Desk) CheckCommand(name string, data []byte) []schema.Problem {
	if s := d.takes[name]; s != nil {
		return s.Check(data)
	}
	return nil
}

// desk is a Desk as its hub sees it.
type desk Desk

// Owns implements session.Handler.
func (d *desk) Owns(pid int) bool { return d.o.Owns(d.sheet.Load().ident, pid) }

// Tree implements session.Handler.
func (d *desk) Tree() []int { return d.o.Tree(d.sheet.Load().ident) }

// Welcome implements session.Handler.
func (d *desk) Welcome() wire.Welcome { return d.sheet.Load().welcome }

// Take implements session.Handler.
func (d *desk) Take(b session.Batch, done func(error)) { d.o.Take(b, done) }

// Beat implements session.Handler.
func (d *desk) Beat() { d.o.Beat() }

var _ session.Handler = (*desk)(nil)

// Remove removes the files of a process of which nothing is left.
func (d *Desk) Remove() error {
	var errs []error
	for _, ending := range []string{".sock", ".notify", ".ready"} {
		if err := os.Remove(d.path(ending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// clone keeps a list of marks that nobody else writes to.
func clone(marks []session.Mark) []session.Mark { return slices.Clone(marks) }
