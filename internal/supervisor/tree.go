package supervisor

import (
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/supervise"
)

// tree knows how processes depend on each other. Actors tell it their states;
// it tells them the word on their dependencies, and orders a shutdown. It only
// posts messages, so it never waits for an actor.
type tree struct {
	sup *Supervisor

	mu       sync.Mutex
	graph    *supervise.Graph
	deps     map[string][]supervise.Dep
	restarts map[string]map[string]bool // dependency -> who restarts with it
	states   map[string]supervise.State
	told     map[string]word
	waits    map[string]time.Time // "name\x00file" -> since when it has been waited for
	removed  map[string]bool      // to be forgotten once gone
	poll     *time.Timer          // looks for files that are waited for

	down    *supervise.Teardown // the shutdown under way
	ordered map[string]bool     // of it, who has been told
	over    func()              // called once, when nothing of it lives
	ended   bool                // it has been called
	closed  bool
}

// word is what a process was last told of its dependencies.
type word struct {
	status supervise.DepStatus
	detail string
}

// filePoll is the time between two looks for files that are waited for.
const filePoll = 250 * time.Millisecond

func newTree(s *Supervisor) *tree {
	t := &tree{sup: s, deps: map[string][]supervise.Dep{}, restarts: map[string]map[string]bool{},
		states: map[string]supervise.State{}, told: map[string]word{}, waits: map[string]time.Time{}, removed: map[string]bool{},
		ordered: map[string]bool{}}
	t.graph, _ = supervise.NewGraph(nil)
	return t
}

// define takes definitions over. Others that are leaving are kept in the graph
// until they are gone.
func (t *tree) define(defs []api.Definition) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(t.deps)
	given := make(map[string]bool, len(defs))
	for i := range defs {
		given[defs[i].Name] = true
		next[defs[i].Name] = definition.Deps(defs[i])
	}
	graph, err := supervise.NewGraph(known(next, given))
	if err != nil {
		return &api.Error{Code: api.CodeInvalid, Field: "depends_on", Message: err.Error()}
	}
	t.take(defs, next, graph)
	return nil
}

// restore takes the journaled definitions over. They were checked when they
// were given; a dependency that has been removed since is only unmet.
func (t *tree) restore(defs []api.Definition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[string][]supervise.Dep, len(defs))
	for i := range defs {
		next[defs[i].Name] = definition.Deps(defs[i])
	}
	graph, err := supervise.NewGraph(known(next, nil))
	if err != nil {
		t.sup.o.Logger.Error("Cannot order the journaled processes; they are stopped in no order", "error", err)
		graph = t.graph
	}
	t.take(defs, next, graph)
}

// known is deps without those on processes that do not exist, but for the
// processes of strict.
func known(deps map[string][]supervise.Dep, strict map[string]bool) map[string][]supervise.Dep {
	out := make(map[string][]supervise.Dep, len(deps))
	for name, ds := range deps {
		missing := func(d supervise.Dep) bool {
			_, ok := deps[d.Process]
			return d.Process != "" && !ok
		}
		if !strict[name] && slices.ContainsFunc(ds, missing) {
			ds = slices.DeleteFunc(slices.Clone(ds), missing)
		}
		out[name] = ds
	}
	return out
}

// take notes definitions that have been ordered.
func (t *tree) take(defs []api.Definition, next map[string][]supervise.Dep, graph *supervise.Graph) {
	for i := range defs {
		name := defs[i].Name
		if !slices.Equal(t.deps[name], next[name]) {
			t.forgetWaits(name)
		}
	}
	t.deps, t.graph = next, graph
	for i := range defs {
		t.noRestarts(defs[i].Name)
		for _, d := range defs[i].DependsOn {
			if d.Process == "" || !d.Restart {
				continue
			}
			if t.restarts[d.Process] == nil {
				t.restarts[d.Process] = map[string]bool{}
			}
			t.restarts[d.Process][defs[i].Name] = true
		}
	}
}

// noRestarts forgets with whom a process restarts.
func (t *tree) noRestarts(name string) {
	for dep, who := range t.restarts {
		delete(who, name)
		if len(who) == 0 {
			delete(t.restarts, dep)
		}
	}
}

// changed takes an actor's new state.
func (t *tree) changed(name string, state supervise.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.states[name]
	t.states[name] = state
	for _, d := range t.graph.Dependents(name) {
		t.evaluate(d)
	}
	if state.Desired != old.Desired || state.State == api.StateWaiting && old.State != api.StateWaiting {
		// A new wait for files begins with a new wish.
		t.forgetWaits(name)
		t.evaluate(name)
	}
	t.restartWith(name, old, state)
	if t.removed[name] && !state.Alive && !state.SpawnPending {
		t.sup.forget(name)
	}
	t.proceed(name)
}

// restartWith restarts those who asked to be when name has come back.
func (t *tree) restartWith(name string, old, now supervise.State) {
	back := now.State == api.StateRunning && now.Generation > 1 && (old.State != api.StateRunning || old.Generation != now.Generation)
	if !back {
		return
	}
	for who := range t.restarts[name] {
		if s := t.states[who]; s.PID != 0 && s.StartedAt < now.StartedAt && !t.closed && t.over == nil {
			t.sup.post(who, message{in: supervise.Input{Kind: supervise.Redefine, Apply: true}})
		}
	}
}

// refresh evaluates everything.
func (t *tree) refresh() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.deps {
		t.evaluate(name)
	}
}

// evaluate tells a process the word on its dependencies if it is a new one.
func (t *tree) evaluate(name string) {
	deps := t.deps[name]
	if len(deps) == 0 && t.states[name].Deps == supervise.DepsNone && t.told[name].status == supervise.DepsNone {
		return
	}
	status, detail := supervise.Eval(deps, func(key string) (supervise.Target, bool) { return t.target(name, key, deps) })
	w := word{status, detail}
	if old, told := t.told[name]; told && old == w {
		return
	}
	// Only what has been told counts as told: a process that is being defined
	// may have no actor yet.
	if t.sup.post(name, message{in: supervise.Input{Kind: supervise.DepsChanged, Deps: status, Detail: detail}}) {
		t.told[name] = w
	}
}

// target shows Eval a process or a file.
func (t *tree) target(name, key string, deps []supervise.Dep) (supervise.Target, bool) {
	for _, d := range deps {
		if d.File != "" && supervise.FileKey(d.File) == key {
			return t.file(name, d), true
		}
	}
	s, ok := t.states[key]
	if !ok {
		if _, defined := t.deps[key]; !defined {
			return supervise.Target{}, false
		}
		s = supervise.State{State: api.StateIdle, Desired: api.DesiredStopped}
	}
	return supervise.Target{State: &s}, true
}

// file looks for a sentinel, and goes on looking while it is not there.
func (t *tree) file(name string, d supervise.Dep) supervise.Target {
	key := name + "\x00" + d.File
	if _, err := os.Stat(d.File); err == nil {
		delete(t.waits, key)
		return supervise.Target{Exists: true}
	}
	s := t.states[name]
	if s.Desired != api.DesiredRunning || s.PID != 0 {
		return supervise.Target{} // nobody waits
	}
	since, waiting := t.waits[key]
	if !waiting {
		since = time.Now()
		t.waits[key] = since
	}
	if t.poll == nil && !t.closed {
		t.poll = time.AfterFunc(filePoll, t.look)
	}
	return supervise.Target{TimedOut: time.Since(since) >= d.Timeout}
}

// look evaluates those who wait for files.
func (t *tree) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.poll = nil
	if t.closed {
		return
	}
	for name, deps := range t.deps {
		if slices.ContainsFunc(deps, func(d supervise.Dep) bool { return d.File != "" }) {
			t.evaluate(name)
		}
	}
}

func (t *tree) forgetWaits(name string) {
	for _, d := range t.deps[name] {
		if d.File != "" {
			delete(t.waits, name+"\x00"+d.File)
		}
	}
}

// rearm begins a new wait for the files that a process depends on.
func (t *tree) rearm(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetWaits(name)
	t.evaluate(name)
}

// removing marks a process to be forgotten once it is gone.
func (t *tree) removing(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removed[name] = true
}

// dropped takes a forgotten process out of the graph. Who depended on it
// is told that it does not exist.
func (t *tree) dropped(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	dependents := t.graph.Dependents(name)
	t.forgetWaits(name)
	t.noRestarts(name)
	delete(t.deps, name)
	delete(t.states, name)
	delete(t.told, name)
	delete(t.removed, name)
	if g, err := supervise.NewGraph(known(t.deps, nil)); err == nil {
		t.graph = g
	} else {
		t.sup.o.Logger.Error("Cannot order the processes that are left", "error", err)
	}
	for _, d := range dependents {
		t.evaluate(d)
	}
	t.proceed(name)
}

// shutdown ends everything: what does not live at once, the rest in reverse
// order of dependency. Over is called when nothing lives any more.
func (t *tree) shutdown(over func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = over
	names := slices.Collect(maps.Keys(t.deps))
	down, due := t.graph.Teardown(names)
	t.down = down
	for _, name := range names {
		if s := t.states[name]; !s.Alive && !s.SpawnPending {
			t.order(name) // it must take the barrier before it counts as gone
		}
	}
	for _, name := range due {
		t.order(name)
	}
	t.proceed("")
}

// order tells one process of the shutdown, once.
func (t *tree) order(name string) {
	if !t.ordered[name] {
		t.ordered[name] = true
		t.sup.post(name, message{in: supervise.Input{Kind: supervise.Shutdown, Reason: api.ReasonShutdown}})
	}
}

// proceed goes on with a shutdown after a change of one process.
func (t *tree) proceed(name string) {
	if t.down == nil {
		return
	}
	s, known := t.states[name]
	_, defined := t.deps[name]
	// One that has not yet taken the barrier may still come to life.
	if !defined || known && !s.Alive && !s.SpawnPending && s.Barrier {
		for _, next := range t.down.Gone(name) {
			t.order(next)
		}
	}
	if t.down.Left() == 0 && !t.ended {
		t.ended = true
		t.over()
	}
}

func (t *tree) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.poll != nil {
		t.poll.Stop()
	}
}
