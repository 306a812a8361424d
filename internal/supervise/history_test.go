package supervise

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// check compares a Step with what must always hold of it.
func (w *world) check(before *State, in *Input, r *Result, wasFresh bool) error {
	s := &r.State
	exits := 0
	for _, e := range r.Events {
		if e.Type == "process.exited" {
			exits++
		}
		if e.Type == "process.breaker_open" && len(s.Window) < w.sp.Breaker.Failures {
			return fmt.Errorf("breaker opened after %d", len(s.Window))
		}
	}
	switch {
	case in.Kind == Exited && wasFresh && exits != 1:
		return fmt.Errorf("an end was told %d times", exits)
	case w.blind && !wasFresh:
	case (in.Kind != Exited && in.Kind != Adopted || !wasFresh) && exits != 0:
		return fmt.Errorf("an end was told that did not happen")
	case before.State != r.State.State && before.State != "" && len(r.Events) == 0:
		return fmt.Errorf("%s became %s, and nothing was told", before.State, r.State.State)
	case in.Kind == Exited && wasFresh && r.Events[0].Type != "process.exited":
		return fmt.Errorf("%s was told before process.exited", r.Events[0].Type)
	case !w.blind && !wasFresh && (len(r.Events) > 0 || len(r.Effects) > 0):
		return fmt.Errorf("a stale input was taken")
	}
	if before.State != "" && s.Desired != before.Desired && in.Kind > Reset {
		return fmt.Errorf("desired became %s", s.Desired)
	}
	if (in.Kind == Stop || in.Kind == Kill) && s.Desired != api.DesiredStopped {
		return fmt.Errorf("a stop was not taken")
	}
	if (in.Kind == Start || in.Kind == Restart) && r.Refused == "" && s.Desired != api.DesiredRunning {
		return fmt.Errorf("a start was not taken")
	}
	if err := w.checkWish(before, in, r); err != nil {
		return err
	}
	if in.Kind == Shutdown && !s.Barrier {
		return fmt.Errorf("a shutdown was not taken")
	}
	if err := w.checkWorker(before, in, r); err != nil {
		return err
	}
	for _, n := range []int{s.Failures, s.Budget, s.HealthRestarts, s.HealthFailures, s.ReadyRun, s.BackoffN, s.Restarts - s.RestartsBase, s.Starts} {
		if n < 0 {
			return fmt.Errorf("a counter is negative")
		}
	}
	if len(s.Window) > 5 { // the most that a definition of this world asks for
		return fmt.Errorf("the window has %d entries", len(s.Window))
	}
	if Calm(&w.sp, s) {
		again := Step(w.sp, *s, Input{Kind: HealthAnswer, Generation: s.Generation, Answer: Yes, Now: in.Now + 1})
		if !reflect.DeepEqual(again, Result{State: *s}) {
			return fmt.Errorf("a further yes in a calm state was not without effect: %+v", again)
		}
	}
	if w.ways != nil && stateOf(*before) != s.State {
		w.ways[[2]api.State{stateOf(*before), s.State}] = true
	}
	return nil
}

// checkWish holds that a wish to leave is asked for again by whoever adopts, until
// it has come true, and no longer.
func (w *world) checkWish(before *State, in *Input, r *Result) error {
	if in.Kind != Adopted {
		return nil
	}
	does := func(what Do) bool { return slices.ContainsFunc(r.Effects, func(e Effect) bool { return e.Do == what }) }
	rest := slices.Contains([]api.State{api.StateIdle, api.StateStopped, api.StateExited, api.StateFailed, api.StateDependencyFailed}, stateOf(*before))
	switch {
	case in.Over && does(DoExit) && rest:
		return fmt.Errorf("it asks once more for an end that has come")
	case in.Over:
		w.wish = nil
	case w.wish != nil && !does(DoExit) && !does(DoSpawn):
		return fmt.Errorf("the wish to leave is lost")
	}
	return nil
}

// checkTruth compares the state with what lives and what is armed.
func (w *world) checkTruth(lost bool) error {
	s := &w.s
	ending := s.State == api.StateStarting || s.State == api.StateRunning || s.State == api.StateStopping
	for _, b := range w.bodies {
		if (b.pending || b.leader || b.leftovers) && !b.released && (!ending || b.gen != s.Generation) {
			return fmt.Errorf("it is %s, but something of generation %d lives", s.State, b.gen)
		}
	}
	if lost {
		return nil
	}
	armed := func(ids ...TimerID) bool {
		return slices.ContainsFunc(ids, func(id TimerID) bool {
			return s.Timers[id].Number != 0 && w.timers[id].Number == s.Timers[id].Number
		})
	}
	ok := true
	switch s.State {
	case api.StateBackoff, api.StateCrashLoop:
		ok = armed(TimerStart)
	case api.StateWaiting:
		ok = s.Deps == DepsUnmet
	case api.StateStarting:
		ok = s.SpawnPending || s.Alive && s.PID != 0
	case api.StateRunning:
		h := w.sp.Heartbeat
		ok = s.Alive && s.PID != 0 && (h == nil || armed(TimerStale) || s.Worker.Stale && h.Kill == 0) &&
			(w.sp.Limits == nil || w.sp.Limits.Runtime == 0 || w.sp.Limits.OnExceed == exceedEvent || armed(TimerRuntime))
	case api.StateStopping:
		ok = s.SpawnPending || s.Alive && armed(TimerGrace, TimerKill)
	default:
		for id := range NumTimers {
			if s.Timers[id].Number != 0 || w.timers[id].Number != 0 {
				return fmt.Errorf("it is %s, but timer %d is armed", s.State, id)
			}
		}
	}
	if !ok {
		return fmt.Errorf("it is %s, but nothing is on its way that ends that", s.State)
	}
	return nil
}

// act does one thing at random.
func (w *world) act() error {
	n := w.rng.IntN(100)
	if w.calm && n < 34 && !w.chance(20) {
		n = 60 + n // time, processes and news instead of commands
	}
	switch {
	case n < 22:
		return w.command()
	case n < 30:
		w.now = w.now.Add(time.Duration(w.rng.Int64N(int64(3 * time.Second))))
	case n < 36:
		return w.feed(Input{Kind: DepsChanged, Deps: pick(w, DepsMet, DepsMet, DepsNone, DepsUnmet, DepsFailed), Detail: pick(w, "", "waits for a", "waits for b")})
	case n < 50:
		kind := pick(w, ReadyAnswer, HealthAnswer)
		gen := w.s.Generation - uint64(w.rng.IntN(5)/4)
		if w.chance(2) {
			return w.worker(gen)
		}
		return w.feed(Input{Kind: kind, Generation: gen, Answer: pick(w, Yes, Yes, No, No, Unknown), Error: "no"})
	case n < 54 && len(w.past) > 0:
		return w.feed(pick(w, w.past...))
	case n < 58 && len(w.stale) > 0:
		e := pick(w, w.stale...)
		return w.feed(Input{Kind: TimerFired, Generation: e.Generation, Timer: e.Timer, Number: e.Number})
	case n < 72:
		return w.fire()
	case n < 86:
		w.live()
	default:
		return w.deliver()
	}
	return nil
}

func (w *world) command() error {
	in := Input{Kind: pick(w, Start, Start, Start, Start, Stop, Stop, Kill, Restart, Restart, Reset, Reset, Redefine, Shutdown)}
	switch in.Kind {
	case Shutdown:
		if !w.chance(6) {
			in.Kind = Start
		}
		in.Reason = pick(w, "", api.ReasonShutdown, api.ReasonRemoved)
	case Redefine:
		in.Apply = w.chance(2)
		grace, reap := w.sp.Grace, w.sp.ReapAlways
		w.sp = w.spec()
		w.sp.Grace, w.sp.ReapAlways = grace, reap // the judge measures by them
	case Start:
		in.Force = w.chance(3)
	case Kill:
		w.killed = true
	}
	return w.feed(in)
}

// fire lets the earliest timer fire, at its deadline or late.
func (w *world) fire() error {
	var first *Effect
	for id := range NumTimers {
		if e, ok := w.timers[id]; ok && (first == nil || e.Deadline < first.Deadline) {
			first = &e
		}
	}
	if first == nil {
		return nil
	}
	w.now = max(w.now, first.Deadline.Add(time.Duration(w.rng.IntN(3))*time.Millisecond))
	delete(w.timers, first.Timer)
	w.stale = append(w.stale, *first)
	return w.feed(Input{Kind: TimerFired, Generation: first.Generation, Timer: first.Timer, Number: first.Number, Beat: w.beat})
}

// live lets the newest generation do what processes do.
func (w *world) live() {
	b := w.bodies[w.s.Generation]
	if b == nil {
		return
	}
	switch {
	case b.pending:
		b.pending = false
		if w.chance(4) {
			w.queue = append(w.queue, Input{Kind: SpawnFailed, Generation: b.gen, Error: "no such file"})
			return
		}
		b.leader, b.leftovers = true, w.chance(3)
		w.queue = append(w.queue, Input{Kind: Spawned, Generation: b.gen, PID: 100 + int(b.gen)})
	case b.leader && b.signalled && !b.ignoresTerm:
		w.die(b, Exit{Code: 143, Signal: "SIGTERM"})
	case b.leader && !w.stops:
		w.die(b, pick(w, Exit{}, Exit{Code: 1}, Exit{Code: 1}, Exit{Code: 2}, Exit{Code: 120}, Exit{Code: 139, Signal: "SIGSEGV", CoreDumped: true}))
	case !b.leader && b.leftovers && !b.ignoresTerm && w.chance(2):
		b.leftovers = false
		w.reportGone(b)
	}
}

// deliver brings the next outcome. Outcomes of one generation keep their order.
func (w *world) deliver() error {
	if len(w.queue) == 0 {
		return nil
	}
	in := w.queue[0]
	w.queue = w.queue[1:]
	w.past = append(w.past, in)
	return w.feed(in)
}

// history plays one life and then ends it: whatever happened, a stop or a
// shutdown ends with nothing alive.
func (w *world) history(steps int) error {
	if err := w.feed(Input{Kind: Start}); err != nil {
		return err
	}
	for range steps {
		if err := w.act(); err != nil {
			return err
		}
	}
	w.stops = true
	if err := w.feed(Input{Kind: pick(w, Stop, Shutdown)}); err != nil {
		return err
	}
	for range 60 {
		w.live()
		for len(w.queue) > 0 {
			if err := w.deliver(); err != nil {
				return err
			}
		}
		if w.s.State == api.StateStopping {
			if err := w.fire(); err != nil {
				return err
			}
		}
	}
	switch w.s.State {
	case api.StateStopped, api.StateExited, api.StateFailed, api.StateIdle:
		return nil
	}
	return fmt.Errorf("after the last stop it is %s for ever", w.s.State)
}

func play(seed uint64, eng engine, w0 func(*world)) error {
	w := newWorld(seed, eng)
	if w0 != nil {
		w0(w)
	}
	if err := w.history(150); err != nil {
		return fmt.Errorf("seed %d, step %d, after %s (generation %d): %w", seed, w.step, w.last.Kind, w.last.Generation, err)
	}
	return nil
}

// TestRandomHistories plays lives at random. PERDURE_HISTORIES sets their number.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	n := uint64(5000)
	if v := os.Getenv("PERDURE_HISTORIES"); v != "" {
		var err error
		if n, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("PERDURE_HISTORIES: %v", err)
		}
	}
	workers := uint64(runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for seed := i; seed < n; seed += workers {
				if err := play(seed, Step, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestEveryRuleIsReached plays until every rule but the explicit ignorance of
// an orphan's commands has been run, and every documented way been walked.
func TestEveryRuleIsReached(t *testing.T) {
	t.Parallel()
	ways, rules := map[[2]api.State]bool{}, map[rule]bool{}
	for seed := range uint64(5000) {
		if err := play(seed, Step, func(w *world) { w.ways, w.rules = ways, rules }); err != nil {
			t.Fatal(err)
		}
	}
	for r := ruleIgnore; r < numRules; r++ {
		if r != ruleStartOrphan && !rules[r] {
			t.Errorf("no history reaches the rule %q", r.says())
		}
	}
	for _, way := range documentedWays() {
		if !ways[way] {
			t.Errorf("the reference shows %s -> %s, but no history walks it", way[0], way[1])
		}
	}
}

func documentedWays() (pairs [][2]api.State) {
	for _, w := range ways() {
		pairs = append(pairs, [2]api.State{api.State(w[0]), api.State(w[1])})
	}
	return pairs
}
