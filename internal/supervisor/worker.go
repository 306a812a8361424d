package supervisor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/schema"
	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/supervise"
	"github.com/perdure/perdure/internal/supervisor/workers"
	"github.com/perdure/perdure/internal/wire"
)

// attendance is what an actor has of its process's workers.
type attendance struct {
	desk   *workers.Desk // nil: nobody can connect
	awaits bool          // the next heartbeat is told
	again  *time.Timer   // tries once more to listen
	rest   *time.Timer   // closes the desk of a process at rest
	output reading

	measure  *time.Timer // the next measurement; nil: none, or it is under way
	measured uint64      // the generation of that
	meter    workers.Meter
}

// desk is where the workers of the process are served, nil where none are.
func (a *actor) desk() *workers.Desk {
	if a.work.desk == nil && a.sup.hub != nil {
		a.openDesk(control.Worker{})
	}
	return a.work.desk
}

// openDesk makes the desk with what the journal has of it.
func (a *actor) openDesk(kept control.Worker) {
	marker := a.marker()
	a.work.desk = workers.New(workers.Options{
		Hub: a.sup.hub, Dir: a.sup.runDir, ID: a.who.id, Name: a.who.name, Server: "perdure/" + a.sup.o.Build,
		Owns: func(id *proc.Identity, pid int) bool { return a.sup.host.owns(id, marker, pid) },
		Tree: a.sup.host.tree,
		Take: func(b session.Batch, done func(error)) {
			a.post(message{do: func(a *actor) error { return a.hear(b) }, done: func(_ control.Record, err error) { done(err) }})
		},
		Beat: func() { a.post(message{do: (*actor).beat}) },
	}, kept)
}

// attend opens what the workers of a new generation connect to, and returns what
// its program is told of it. It comes before the program is executed.
func (a *actor) attend(generation uint64) (env []string, files []*os.File, err error) {
	d := a.desk()
	if d == nil {
		return nil, nil, nil
	}
	stop(a.work.again)
	changed, err := d.Begin(a.def, generation)
	if err != nil {
		return nil, nil, err
	}
	if changed {
		if err := a.keepWorker(d.Kept(), nil); err != nil {
			return nil, nil, err
		}
	}
	a.noteOutput()
	files, err = d.Descriptors()
	if err != nil {
		return nil, nil, fmt.Errorf("it could not be given the descriptor to say ready on: %w", err)
	}
	return d.Environ(a.env), files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // nothing was written; the program has a copy
		}
	}
}

// attended says who the workers of the generation belong to.
func (a *actor) attended(id proc.Identity) {
	if a.work.desk != nil {
		a.work.desk.Began(id)
	}
}

// attendAgain opens what the workers of an adopted generation connect to. While
// that cannot be done the process goes on, and its workers wait.
func (a *actor) attendAgain() error {
	d := a.desk()
	if d == nil || a.ident == nil || a.state.PID == 0 && !a.state.SpawnPending {
		return nil
	}
	err := d.Adopt(a.def, a.state.Generation, *a.ident)
	if err != nil {
		a.sup.o.Logger.Error("Cannot listen for workers; it is tried again", "process", a.who.name, "error", err)
		stop(a.work.again)
		a.work.again = time.AfterFunc(retryStorage, func() { a.post(message{do: (*actor).attendAgain}) })
	}
	return nil
}

// maxWorkerJournal is the size of the journal from which on nothing is taken from
// workers until the server has read on. What is beyond it is kept for what becomes
// of the processes: an entry of that must never be dropped for a worker's.
const maxWorkerJournal = 128 << 20

// errBehind keeps the workers waiting.
var errBehind = errors.New("the journal holds too much that no server has read")

// hear makes a batch durable: first what it means for the process, then that it
// was said. Cut off in between, the batch comes again, and a word that is said
// twice means nothing new.
func (a *actor) hear(b session.Batch) error {
	d := a.work.desk
	if d == nil || a.spec == nil {
		return session.ErrClosed
	}
	if a.sup.log.Size() > maxWorkerJournal {
		return errBehind
	}
	h := d.Hear(b)
	for _, in := range h.Said {
		if err := a.step(in); err != nil {
			return err
		}
	}
	if a.again.debt != nil {
		return errors.New("the journal cannot be written")
	}
	if err := a.keepWorker(h.Kept, h.Events); err != nil {
		return err
	}
	d.Keep(&h)
	return nil
}

// keepWorker writes down what is remembered of the workers, with what they said.
func (a *actor) keepWorker(kept control.Worker, events []control.Event) error {
	entry := control.Entry{Worker: &kept, Events: events}
	payload, err := entry.Payload()
	if err != nil {
		return err
	}
	seq, err := a.sup.log.Write(workerKey(a.who.name), payload)
	if err != nil {
		return err
	}
	return a.sup.log.Durable(seq) // an ack is a promise
}

func workerKey(name string) string { return kindWorker + "/" + name }

// kindWorker is the kind of the keys of what is remembered of workers.
const kindWorker = "worker"

// rememberWorker takes back what the journal has of the workers.
func (a *actor) rememberWorker(kept *control.Worker) {
	if kept != nil && a.sup.hub != nil {
		a.openDesk(*kept)
	}
}

// forgetWorker forgets the workers of a process that is no more.
func (a *actor) forgetWorker() error {
	d := a.work.desk
	if d == nil {
		return nil
	}
	d.Close()
	_, err := a.sup.log.WriteDelete(workerKey(a.who.name), []byte("{}"))
	return errors.Join(err, d.Remove())
}

// leaveWorkers lets go of the workers. They find the next supervisor at the same
// place.
func (a *actor) leaveWorkers() {
	for _, t := range []*time.Timer{a.work.again, a.work.rest, a.work.measure} {
		stop(t)
	}
	a.work.output.end()
	if a.work.desk != nil {
		a.work.desk.Leave()
	}
}

// tend sees to what follows for the workers from the state as it is now, and to
// what is measured.
func (a *actor) tend() {
	if a.def == nil || a.gone != nil {
		return
	}
	a.readForReady()
	a.measureNext()
	if a.work.desk != nil {
		a.work.desk.Define(a.def)
		a.awaitBeat()
		a.closeAtRest()
	}
}

// closeDesk is how long a process must be at rest until nobody listens for its
// workers any more: what the last generation has sent at its end is taken first.
const closeDesk = 5 * time.Second

// closeAtRest lets nobody listen for workers of a process that is at rest.
func (a *actor) closeAtRest() {
	resting := atRest(a.state.State) && !a.state.Alive && !a.state.SpawnPending
	if !resting || !a.work.desk.Opened() {
		stop(a.work.rest)
		a.work.rest = nil
		return
	}
	if a.work.rest == nil {
		a.work.rest = time.AfterFunc(closeDesk, func() {
			a.post(message{do: func(a *actor) error {
				if a.work.rest != nil && atRest(a.state.State) && !a.state.Alive && !a.state.SpawnPending {
					a.work.desk.Close()
				}
				return nil
			}})
		})
	}
}

// Workers implements control.Attendant.
func (s *Supervisor) Workers(ctx context.Context, name string) (map[string]api.Worker, error) {
	var actors []*actor
	s.mu.Lock()
	for _, a := range s.actors {
		if name == "" || name == a.who.name {
			actors = append(actors, a)
		}
	}
	s.mu.Unlock()
	found := make([]*api.Worker, len(actors))
	answers := make([]<-chan outcome, len(actors))
	for i, a := range actors {
		answers[i] = ask(a, message{do: func(a *actor) error { found[i] = a.worker(); return nil }})
	}
	out := map[string]api.Worker{}
	for i, a := range actors {
		_, err := answer(ctx, a, answers[i])
		switch {
		case err != nil && api.CodeOf(err) != api.CodeNotFound:
			return nil, err
		case err == nil && found[i] != nil:
			out[a.who.name] = *found[i]
		}
	}
	return out, nil
}

// worker is what is known of the workers; nil when there was none.
func (a *actor) worker() *api.Worker {
	d := a.work.desk
	if d == nil {
		return nil
	}
	look, kept := d.Look(), d.Kept()
	w := api.Worker{Connections: look.Conns, Stats: slices.Clone(look.Stats), Stale: a.state.Worker.Stale}
	if look.LastBeat != 0 {
		at := time.Now().Add(-a.sup.o.Clock().Sub(supervise.Instant(look.LastBeat))).UTC().Truncate(time.Millisecond)
		w.LastHeartbeat = &at
	}
	if kept.Generation == a.state.Generation {
		w.Status, w.Progress = kept.Status, kept.Progress
	}
	if w.Connections == 0 && w.Status == "" && w.Progress == nil && w.LastHeartbeat == nil && len(kept.Marks) == 0 && !w.Stale {
		return nil
	}
	return &w
}

var _ control.Attendant = (*Supervisor)(nil)

// sendTimeout is the default of api.SendRequest.Timeout.
const sendTimeout = 30 * time.Second

// Send implements control.Attendant.
func (s *Supervisor) Send(ctx context.Context, name string, req api.SendRequest) (json.RawMessage, error) {
	a, err := s.actor(name)
	if err != nil {
		return nil, err
	}
	if len(req.Data) == 0 {
		req.Data = json.RawMessage("{}")
	}
	to := make(chan *session.Endpoint, 1)
	if _, err := await(ctx, a, message{do: func(a *actor) error {
		e, err := a.commanded(&req)
		to <- e
		return err
	}}); err != nil {
		return nil, err
	}
	e := <-to
	if req.Command == "" {
		return json.RawMessage("null"), sendError(name, e.Send(req.Data))
	}
	timeout := req.Timeout.D()
	if timeout <= 0 {
		timeout = sendTimeout
	}
	reply, err := e.Command(ctx, wire.Command{ID: newCommandID(), Command: req.Command, Data: req.Data, TimeoutMs: timeout.Milliseconds()})
	return reply, sendError(name, err)
}

// newCommandID returns an id of the form cmd_<unix ms>_<random>.
func newCommandID() string {
	return fmt.Sprintf("cmd_%d_%s", time.Now().UnixMilli(), strings.ToLower(rand.Text()[:7]))
}

// commanded returns where a command goes, if the definition lets it.
func (a *actor) commanded(req *api.SendRequest) (*session.Endpoint, error) {
	if a.work.desk == nil {
		return nil, sendError(a.who.name, session.ErrNoWorker)
	}
	if req.Command != "" {
		if !wire.ValidName([]byte(req.Command)) {
			return nil, &api.Error{Code: api.CodeInvalid, Field: "command", Message: fmt.Sprintf(
				"cannot send the command %.140q: a name has letters, digits and _ - . : with a letter or digit first", req.Command)}
		}
		if bad := a.work.desk.CheckCommand(req.Command, bytes.TrimSpace(req.Data)); bad != nil {
			return nil, &api.Error{Code: api.CodeInvalid, Field: "data", Message: fmt.Sprintf(
				"cannot send %s to %q: %s", req.Command, a.who.name, schema.Join(bad))}
		}
	}
	e, err := a.work.desk.Endpoint()
	return e, sendError(a.who.name, err)
}

// sendError makes an error for people.
func sendError(name string, err error) error {
	var replied *session.RepliedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &replied):
		return api.Errorf(api.CodeFailed, "the worker of %q refused: %s", name, replied.Text)
	case errors.Is(err, session.ErrNoWorker), errors.Is(err, session.ErrClosed):
		return api.Errorf(api.CodeConflict, "cannot send to %q: no worker of it is connected", name)
	case errors.Is(err, session.ErrOutcomeUnknown):
		return api.Errorf(api.CodeFailed, "%q: %v", name, err)
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.CodeTimeout, "%q: %v", name, err)
	}
	return api.Errorf(api.CodeInvalid, "cannot send to %q: %v", name, err)
}
