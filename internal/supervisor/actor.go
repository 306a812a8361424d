package supervisor

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/appendjson"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/logstore"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// message is one thing that happens to a process.
type message struct {
	in supervise.Input
	// do, when set, is run in place of a Step, for what is no decision
	// (signal, killing at a deadline, removal).
	do func(a *actor) error
	// done, when set, takes the outcome. It must not block.
	done func(control.Record, error)
}

// mailbox is what reaches an actor from anywhere.
type mailbox struct {
	mu       sync.Mutex
	inbox    []message
	draining bool
	ended    chan struct{} // closed under mu when it takes no more
}

// actor owns one process. Post is safe for all; every other method and field
// (but those of the mailbox, and calm) belongs to the goroutine that drains the
// inbox.
type actor struct {
	sup *Supervisor
	mailbox

	// calm is the generation about which a further Yes of the health probe would
	// change nothing as the state was when the last message had been handled; 0:
	// none. An answer that is dropped for it counts as come before what is in the
	// inbox.
	calm atomic.Uint64

	who    identity
	def    *api.Definition
	spec   *supervise.Spec
	env    []string // of the definition, kept for the next spawn; clipped
	state  supervise.State
	seq    uint64 // of the last entry that was persisted
	ident  *proc.Identity
	proc   live
	sink   sink
	timers [supervise.NumTimers]*alarm
	stops  []func() // ends the asking of probes
	gone   error    // why it takes no more: removed, or the supervisor is closed
	again  retries
	past   past // what resume and begin need; see revive
	work   attendance
}

// retries are what failed and is tried again, and the timers of that.
type retries struct {
	sweep, forget, open *time.Timer
	rest                *proc.Identity // the leader whose leftovers sweep ends after a recovery
	debt                *debt          // what could not be persisted yet
}

// identity is what never changes of a process.
type identity struct {
	id, name, source string
	created          time.Time
}

// post puts a message into the inbox. It never blocks. An actor that has ended
// turns the message away, so that whoever waits for its outcome gets one.
func (a *actor) post(m message) {
	a.mu.Lock()
	select {
	case <-a.ended:
		a.mu.Unlock()
		a.turnAway(m)
		return
	default:
	}
	a.inbox = append(a.inbox, m)
	if a.draining {
		a.mu.Unlock()
		return
	}
	a.draining = true
	a.mu.Unlock()
	a.sup.running.Add(1)
	go a.drain()
}

// tell posts an input that nobody waits for.
func (a *actor) tell(in supervise.Input) { a.post(message{in: in}) }

func (a *actor) turnAway(m message) {
	if m.done != nil {
		m.done(control.Record{}, a.gone)
	}
}

// drain handles messages until the inbox is empty, and ends.
func (a *actor) drain() {
	defer a.sup.running.Done()
	for {
		a.mu.Lock()
		if len(a.inbox) == 0 || a.gone != nil {
			rest := a.inbox
			a.inbox, a.draining = nil, false
			if a.gone != nil {
				close(a.ended)
			}
			a.mu.Unlock()
			for _, m := range rest {
				a.turnAway(m)
			}
			return
		}
		m := a.inbox[0]
		a.inbox = a.inbox[1:]
		a.mu.Unlock()
		a.handle(m)
	}
}

// handle takes one message and all that follows from it at once.
func (a *actor) handle(m message) {
	var err error
	if m.do != nil {
		err = m.do(a)
	} else {
		err = a.step(m.in)
	}
	a.settle()
	if m.done != nil {
		m.done(a.record(true), err)
	}
}

// settle says whether further answers of the health probe are of any interest, and
// sees to the workers.
func (a *actor) settle() {
	calm := uint64(0)
	if a.spec != nil && supervise.Calm(a.spec, &a.state) {
		calm = a.state.Generation
	}
	a.calm.Store(calm)
	a.tend()
}

// step decides on an input and on the inputs that its effects bring forth.
func (a *actor) step(in supervise.Input) error {
	next, changed := []supervise.Input{in}, false
	for first := true; len(next) > 0; first = false {
		in, next = next[0], next[1:]
		comes(in.Kind)
		if (in.Gone || in.Kind == supervise.Gone) && in.Generation == a.state.Generation {
			a.released()
		}
		in.Now, in.Roll = a.sup.o.Clock(), a.sup.o.Roll()
		if in.Kind == supervise.TimerFired {
			in.Beat = a.lastBeat()
		}
		r := supervise.Step(*a.spec, a.state, in)
		if r.Refused != "" {
			if first {
				return &api.Error{Code: api.CodeConflict, Message: r.Refused}
			}
			continue
		}
		if idle(in, a.state, r) {
			a.state = r.State // it goes with the next entry
			continue
		}
		changed = true
		next = append(next, a.commit(in.Kind, r)...)
	}
	if changed {
		a.sup.tree.changed(a.who.name, a.state)
	}
	return nil
}

// idle says that an input changed nothing that is worth an entry: there is
// nothing to be told or done, and what a crash would forget comes again by
// itself. That is a probe's answer below a threshold, a measurement, and the proof
// of stability of a process that has nothing to be set back.
func idle(in supervise.Input, s supervise.State, r supervise.Result) bool {
	if len(r.Events) > 0 || len(r.Effects) > 0 {
		return false
	}
	switch in.Kind {
	case supervise.ReadyAnswer, supervise.HealthAnswer, supervise.Sample:
		return true
	case supervise.TimerFired:
		return in.Timer == supervise.TimerStable && s.Failures == 0 && s.BackoffN == 0 && s.Budget == 0 && len(s.Window) == 0
	}
	return false
}

// released is called when nothing of the generation lives any more, before
// that is decided upon, so that its last output is kept before its end is told.
func (a *actor) released() {
	if a.sink != nil {
		if err := a.sink.Drain(); err != nil {
			a.sup.o.Logger.Warn("Cannot drain output", "process", a.who.name, "error", err)
		}
	}
	a.proc, a.ident = nil, nil
	fault.Here("supervisor.exit.drained")
}

// debt is what could not be persisted: the events so far and the effects that
// wait for them.
type debt struct {
	events  []control.Event
	effects []supervise.Effect
	timer   *time.Timer
}

// commit takes over a new state that an input has led to: it is persisted BEFORE
// any effect, and durable before any that begins something, where the settings
// say so. When it cannot be, effects that end things are executed all the same and
// the others wait until it can.
func (a *actor) commit(cause supervise.Kind, r supervise.Result) []supervise.Input {
	if a.spawns(r.Effects) {
		// A spawn holds its thread until the program is executed. Without a bound a
		// thousand starts at once would need a thread each, and be no faster. The turn
		// is waited for before the start is written down: of a start that is written
		// and not done nobody can tell, after our death, that it has not been.
		a.sup.spawning <- struct{}{}
		defer func() { <-a.sup.spawning }()
	}
	a.state = r.State
	if a.state.SpawnPending {
		// What lived before is no longer the generation that is recorded: a
		// recovery must look for the new one.
		a.proc, a.ident = nil, nil
	}
	if a.state.Exit != nil && a.state.Exit.Wall.IsZero() {
		e := *a.state.Exit
		e.Wall = time.Now().UTC()
		a.state.Exit = &e
	}
	events := a.events(r.Events)
	effects := r.Effects
	if a.again.debt != nil {
		events = append(a.again.debt.events, events...)
		effects = append(a.again.debt.effects, effects...)
	}
	if err := a.persist(events); err != nil {
		return a.owe(err, events, effects)
	}
	if slices.ContainsFunc(effects, supervise.Effect.Starts) {
		if err := a.sup.log.Durable(a.seq); err != nil {
			return a.owe(err, nil, effects) // the events are told
		}
	}
	recorded(cause)
	if a.again.debt != nil {
		a.again.debt.timer.Stop()
		a.again.debt = nil
		a.sup.troubles.storage(a.who.name, nil)
	}
	return a.execute(effects)
}

// spawns says that a spawn is among effects, or waits for storage.
func (a *actor) spawns(effects []supervise.Effect) bool {
	is := func(e supervise.Effect) bool { return e.Do == supervise.DoSpawn }
	return slices.ContainsFunc(effects, is) || a.again.debt != nil && slices.ContainsFunc(a.again.debt.effects, is)
}

// persist writes the state as it is now with events that led to it.
func (a *actor) persist(events []control.Event) error {
	rec := a.record(false)
	entry := control.Entry{Record: &rec, Events: events}
	payload, err := entry.Payload()
	if err != nil {
		return err
	}
	seq, err := a.sup.log.Write(processKey(a.who.name), payload)
	if err != nil {
		return err
	}
	a.seq = seq
	return nil
}

// retryStorage is the time between two tries to persist.
const retryStorage = time.Second

// maxOwed bounds the events that wait for storage, per process; the oldest go.
const maxOwed = 1000

// owe keeps what could not be persisted and executes what need not wait.
func (a *actor) owe(cause error, events []control.Event, effects []supervise.Effect) []supervise.Input {
	a.sup.troubles.storage(a.who.name, cause)
	if len(events) > maxOwed {
		events = events[len(events)-maxOwed:]
	}
	for i := range events {
		if events[i].Time.IsZero() {
			events[i].Time = time.Now().UTC() // the entry will have a later one
		}
	}
	d := &debt{events: events}
	var now []supervise.Effect
	var follow []supervise.Input
	wanted := a.state.Desired == api.DesiredRunning && !a.state.Barrier
	for _, e := range effects {
		switch {
		case !e.Starts():
			now = append(now, e)
			if e.Do == supervise.DoProbeStop {
				// Asking that has not begun is not to begin after its end.
				d.effects = slices.DeleteFunc(d.effects, func(e supervise.Effect) bool { return e.Do != supervise.DoSpawn })
			}
		case e.Do == supervise.DoSpawn && !wanted:
			// A spawn that waited is no longer wanted: it has not happened.
			follow = append(follow, supervise.Input{Kind: supervise.SpawnFailed, Generation: e.Generation,
				Error: "cannot start: the journal cannot be written: " + cause.Error()})
		default:
			d.effects = append(d.effects, e)
		}
	}
	if a.again.debt != nil {
		a.again.debt.timer.Stop()
	}
	d.timer = time.AfterFunc(retryStorage, func() { a.post(message{do: (*actor).repay}) })
	a.again.debt = d
	return append(follow, a.execute(now)...)
}

// repay tries once more to persist what is owed.
func (a *actor) repay() error {
	if a.again.debt == nil {
		return nil
	}
	for _, in := range a.commit(supervise.NumKinds, supervise.Result{State: a.state}) {
		if err := a.step(in); err != nil {
			return err
		}
	}
	return nil
}

// events completes events with whom they are about.
func (a *actor) events(in []supervise.Event) []control.Event {
	if len(in) == 0 {
		return nil
	}
	out := make([]control.Event, 0, len(in))
	for _, e := range in {
		ce := control.Event{Type: e.Type, ProcessID: a.who.id, Name: a.who.name, Generation: e.Generation}
		if len(e.Data) > 0 {
			// The data is made of JSON's own types, so this cannot fail.
			ce.Data, _ = appendjson.Map(nil, e.Data)
		}
		out = append(out, ce)
	}
	return out
}

// record is the process as it is now.
func (a *actor) record(whole bool) control.Record {
	r := control.Record{Seq: a.seq, ID: a.who.id, Name: a.who.name, Source: a.who.source, CreatedAt: a.who.created,
		State: a.state, BootID: a.sup.bootID, Boot: a.past.boot, Identity: a.ident}
	if whole {
		r.Definition = a.def
	}
	return r
}

// define takes a new definition over and writes it down.
func (a *actor) define(def *api.Definition, spec *supervise.Spec, event string) error {
	data, err := json.Marshal(map[string]any{"hash": a.sup.hash(def)})
	if err != nil {
		return err
	}
	rec := a.record(false)
	rec.Definition = def
	entry := control.Entry{Record: &rec, Events: []control.Event{{
		Type: event, ProcessID: a.who.id, Name: a.who.name, Generation: a.state.Generation, Data: data}}}
	payload, err := entry.Payload()
	if err != nil {
		return err
	}
	fault.Here("supervisor.define.before")
	seq, err := a.sup.log.Write(definitionKey(a.who.name), payload)
	if err != nil {
		return api.Errorf(api.CodeUnavailable, "cannot write the definition of %q to the journal: %v", a.who.name, err)
	}
	fault.Here("supervisor.define.after")
	a.seq, a.def, a.spec = seq, def, spec
	a.env = nil // it was of the definition before
	if a.sink != nil {
		a.sink.Configure(retention(def))
	}
	return nil
}

// forget removes the process, which must be gone. Until the journal has taken
// that, it is tried again: a removal is never lost.
func (a *actor) forget() error {
	if !a.state.Removed || a.state.Alive || a.state.SpawnPending {
		return api.Errorf(api.CodeConflict, "cannot remove %q: it still lives", a.who.name)
	}
	// What it has left on the system goes first: the wish is written down, so the
	// next supervisor goes on with it. Of what is forgotten nobody would know.
	a.clear()
	rec := a.record(false)
	entry := control.Entry{Record: &rec, Removed: true, Events: []control.Event{{
		Type: "process.removed", ProcessID: a.who.id, Name: a.who.name, Generation: a.state.Generation}}}
	payload, err := entry.Payload()
	if err != nil {
		return err
	}
	fault.Here("supervisor.remove.before")
	err0 := a.forgetWorker()
	_, err1 := a.sup.log.WriteDelete(definitionKey(a.who.name), []byte("{}"))
	fault.Here("supervisor.remove.half")
	_, err2 := a.sup.log.WriteDelete(processKey(a.who.name), payload)
	if err := errors.Join(err0, err1, err2); err != nil {
		a.sup.troubles.storage(a.who.name, err)
		stop(a.again.forget)
		a.again.forget = time.AfterFunc(retryStorage, func() { a.post(message{do: (*actor).forget}) })
		return api.Errorf(api.CodeUnavailable, "cannot write the removal of %q to the journal; it is tried again: %v", a.who.name, err)
	}
	fault.Here("supervisor.remove.recorded")
	a.gone = api.Errorf(api.CodeNotFound, "cannot find process %q: it has been removed", a.who.name)
	a.close()
	a.sup.dropped(a.who.name)
	return nil
}

// clear removes what a process that is gone has left: its log, its FIFOs and its
// cgroup.
func (a *actor) clear() {
	a.closeSink()
	if err := a.sup.out.remove(a.who.name); err != nil {
		a.sup.o.Logger.Warn("Cannot remove the log", "process", a.who.name, "error", err)
	}
	fault.Here("supervisor.remove.files")
	if err := a.sup.host.release(a.who.name); err != nil {
		a.sup.o.Logger.Warn("Cannot remove the cgroup", "process", a.who.name, "error", err)
	}
}

// close lets go of everything but the process itself.
func (a *actor) close() {
	for i, t := range a.timers {
		if t != nil {
			t.stop()
			a.timers[i] = nil
		}
	}
	if a.again.debt != nil {
		a.again.debt.timer.Stop()
	}
	stop(a.again.sweep)
	stop(a.again.forget)
	stop(a.again.open)
	a.letGo()
	a.leaveWorkers()
	a.stopProbes()
	a.closeSink()
}

func (a *actor) closeSink() {
	if a.sink == nil {
		return
	}
	if err := a.sink.Close(); err != nil {
		a.sup.o.Logger.Warn("Cannot close the log", "process", a.who.name, "error", err)
	}
	a.sink = nil
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// supervisorKey is the key of what concerns no single process.
const supervisorKey = "supervisor"

func processKey(name string) string    { return "process/" + name }
func definitionKey(name string) string { return "definition/" + name }

// retention translates the log keys of a definition.
func retention(d *api.Definition) logstore.Retention {
	return logstore.Retention{MaxSize: int64(d.Logs.MaxSize), MaxAge: d.Logs.MaxAge.D(), MaxFiles: d.Logs.MaxFiles,
		Compress: d.Logs.Compress == nil || *d.Logs.Compress, Drop: d.Logs.OnFull == "drop"}
}
