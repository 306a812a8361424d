package supervise

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/perdure/perdure/api"
)

// body is what the simulated machine knows of one generation.
type body struct {
	gen               uint64
	pending           bool // DoSpawn was executed, its outcome is not decided
	leader, leftovers bool // alive
	seen              bool // Spawned was delivered
	reported          bool // the leader's end is in the queue or delivered
	released          bool // a clean exit left it behind on purpose
	ignoresTerm       bool
	unkillable        int // SIGKILLs that it survives
	stopAt            Instant
	signalled         bool
}

// world is a machine, an actor and an operator, all at random. It feeds inputs
// to Step late, twice, stale and after crashes of the supervisor, and checks
// after each that nothing that must always hold is broken.
type world struct {
	rng    *rand.Rand
	eng    engine
	sp     Spec
	s      State
	now    Instant
	bodies map[uint64]*body
	queue  []Input // outcomes on their way
	past   []Input // delivered ones, to be delivered again
	timers map[TimerID]Effect
	stale  []Effect // disarmed and replaced ones, that may still fire
	killed bool     // Kill was asked for in the current stop
	wish   *int     // to leave, and not heard yet: a crash may have come before
	step   int
	last   Input
	ways   map[[2]api.State]bool
	rules  map[rule]bool
	blind  bool // judges consequences only, not that a stale input was taken
	calm   bool // few commands, so that the machine is on its own
	stops  bool // no more starts: the end of the history
	beat   Instant
}

func newWorld(seed uint64, eng engine) *world {
	rng := rand.New(rand.NewPCG(seed, 17))
	w := &world{rng: rng, eng: eng, now: 1 << 40, bodies: map[uint64]*body{}, timers: map[TimerID]Effect{}}
	w.sp = w.spec()
	w.calm = w.chance(2)
	return w
}

func (w *world) chance(n int) bool { return w.rng.IntN(n) == 0 }

func pick[T any](w *world, xs ...T) T { return xs[w.rng.IntN(len(xs))] }

func (w *world) spec() Spec {
	sp := Spec{
		Restart: pick(w, api.RestartAlways, api.RestartAlways, api.RestartOnFailure, api.RestartOnSuccess,
			api.RestartNever, api.RestartUnlessStopped),
		SignalIsFailure: !w.chance(4), ExitOnNoRestart: w.chance(5), ReapAlways: !w.chance(4), StartResets: !w.chance(4),
		MaxRestarts: pick(w, -1, -1, -1, 0, 1, 4), MaxRestartsScope: pick(w, "since_healthy", scopeConsecutive, scopeLifetime),
		Backoff: Backoff{Fixed: w.chance(4), Initial: pick(w, 0, time.Second, time.Second, 3*time.Second), Max: 30 * time.Second,
			Multiplier: 2, FirstExponent: w.rng.IntN(2), Jitter: api.Jitter{Mode: pick(w, "none", "add", "scale"), Frac: .2, Lo: .5, Hi: 1.5}},
		Breaker: Breaker{Failures: pick(w, 0, 2, 5), Window: time.Minute, Gap: w.chance(3), Count: pick(w, countFailures, countExits, countRestarts),
			OnOpen: pick(w, openPark, openCooldown, openRetry, openExit), Cooldown: 20 * time.Second, ExitCode: 100},
		Stable: Stable{After: pick(w, 0, 5*time.Second), From: pick(w, fromStart, fromReady, fromHealthy),
			Backoff: !w.chance(3), Failures: !w.chance(3), Window: w.chance(3), Restarts: !w.chance(3)},
		StopSignal: "SIGTERM", Grace: pick(w, 0, 4*time.Second, 4*time.Second, 10*time.Second), KillWait: time.Second,
	}
	if w.chance(3) {
		sp.NoRestartCodes, sp.NoRestartCodeMin, sp.NoRestartSignals = []int{2}, 100, []string{"SIGTERM"}
	}
	if w.chance(2) {
		sp.Ready = &ReadyGate{Successes: 1 + w.rng.IntN(2), Deadline: 6 * time.Second, Warn: w.chance(3)}
	}
	if w.chance(2) {
		sp.Health = &HealthWatch{Failures: 1 + w.rng.IntN(3), Successes: 1 + w.rng.IntN(2), Restart: !w.chance(3), Pause: pick(w, 0, time.Second)}
		if w.chance(2) {
			sp.Health.Backoff = &Backoff{Initial: 2 * time.Second, Max: 20 * time.Second, Multiplier: 2, ResetAfter: 10 * time.Second}
		}
	}
	w.workerSpec(&sp)
	return sp
}

// feed gives one input to Step, checks what comes back and executes it, unless
// the supervisor dies between the record and the effects.
func (w *world) feed(in Input) error {
	w.step++
	in.Now, in.Roll = w.now, w.rng.Float64()
	before := w.s
	var frozen []byte
	if w.step%16 == 0 {
		frozen, _ = json.Marshal(before)
	}
	wasFresh := fresh(&before, &in) // what the real one says, whatever the engine under test says
	if w.rules != nil && wasFresh {
		w.rules[ruleOf(stateOf(before), in.Kind)] = true
	}
	w.last = in
	r := w.eng(w.sp, before, in)
	w.s = r.State
	if frozen != nil {
		if after, _ := json.Marshal(before); string(after) != string(frozen) {
			return fmt.Errorf("step wrote into the caller's state: %s became %s", frozen, after)
		}
		if err := roundTrip(w.s); err != nil {
			return err
		}
	}
	if err := w.check(&before, &in, &r, wasFresh); err != nil {
		return err
	}
	w.release(&before, &in)
	lost := w.chance(60) && !w.stops
	for _, e := range r.Effects {
		if err := w.order(&before, &in, e); err != nil {
			return err
		}
		if !lost {
			w.execute(e)
		}
	}
	if err := w.checkTruth(lost); err != nil {
		return err
	}
	if lost || !w.stops && w.chance(80) {
		return w.crash()
	}
	return nil
}

func stateOf(s State) api.State {
	if s.State == "" {
		return api.StateIdle
	}
	return s.State
}

func roundTrip(s State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var back State
	if err := json.Unmarshal(data, &back); err != nil {
		return err
	}
	if len(back.Window) == 0 && len(s.Window) == 0 {
		back.Window = s.Window
	}
	if !reflect.DeepEqual(s, back) {
		return fmt.Errorf("the state is not the same after JSON: %+v became %+v", s, back)
	}
	return nil
}

// order checks an effect when it is ordered, executed or not.
func (w *world) order(before *State, in *Input, e Effect) error {
	b := w.bodies[e.Generation]
	switch e.Do {
	case DoSpawn:
		if e.Generation != before.Generation+1 {
			return fmt.Errorf("generation %d was spawned after %d", e.Generation, before.Generation)
		}
		if before.Barrier && in.Kind != Adopted {
			return fmt.Errorf("spawned behind the barrier")
		}
		if w.s.Desired != api.DesiredRunning {
			return fmt.Errorf("spawned although it is not wanted")
		}
		if w.s.Deps == DepsUnmet || w.s.Deps == DepsFailed {
			return fmt.Errorf("spawned although the dependencies are %s", w.s.Deps)
		}
		for _, o := range w.bodies {
			if o.pending || (o.leader || o.leftovers) && !o.released {
				return fmt.Errorf("generation %d was spawned while %d lives", e.Generation, o.gen)
			}
		}
		w.killed, w.wish = false, nil
	case DoExit:
		w.wish = &e.Code
	case DoSignal, DoKill:
		if b == nil {
			return fmt.Errorf("generation %d was signalled, which never lived", e.Generation)
		}
		if b.released {
			return fmt.Errorf("generation %d was signalled after it was left behind", e.Generation)
		}
		if e.Do == DoSignal && b.stopAt == 0 {
			b.stopAt = w.now
		}
		if e.Do == DoKill && !w.killed && w.sp.Grace > 0 && (b.stopAt == 0 || w.now.Sub(b.stopAt) < w.sp.Grace) {
			return fmt.Errorf("SIGKILL came %s after the stop, the grace is %s", w.now.Sub(b.stopAt), w.sp.Grace)
		}
	}
	return nil
}

func (w *world) execute(e Effect) {
	b := w.bodies[e.Generation]
	switch e.Do {
	case DoSpawn:
		w.bodies[e.Generation] = &body{gen: e.Generation, pending: true, ignoresTerm: w.chance(3), unkillable: w.rng.IntN(3)}
	case DoSignal:
		b.signalled = true
	case DoKill:
		if b.unkillable > 0 {
			b.unkillable--
			return
		}
		w.die(b, Exit{Code: 137, Signal: "SIGKILL"})
		b.leftovers = false
		w.reportGone(b)
	case DoArm:
		if old, ok := w.timers[e.Timer]; ok {
			w.stale = append(w.stale, old)
		}
		w.timers[e.Timer] = e
	case DoDisarm:
		if old, ok := w.timers[e.Timer]; ok {
			w.stale = append(w.stale, old)
			delete(w.timers, e.Timer)
		}
	}
}

// die ends a leader and puts the news on its way.
func (w *world) die(b *body, e Exit) {
	if !b.leader {
		return
	}
	b.leader, b.reported = false, true
	in := Input{Kind: Exited, Generation: b.gen, Exit: e}
	if !b.leftovers && w.chance(2) {
		in.Gone = true
		w.queue = append(w.queue, in)
		return
	}
	w.queue = append(w.queue, in)
	w.reportGone(b)
}

func (w *world) reportGone(b *body) {
	if !b.leader && !b.leftovers {
		w.queue = append(w.queue, Input{Kind: Gone, Generation: b.gen})
	}
}

// release notes that Step has given up leftovers of a clean exit, as the definition says.
func (w *world) release(before *State, in *Input) {
	b := w.bodies[before.Generation]
	if b == nil || w.s.Alive && w.s.Generation == b.gen {
		return
	}
	end := in.Kind == Exited || in.Kind == Adopted
	if end && !b.leader && b.leftovers && !w.sp.ReapAlways && w.s.Exit != nil && w.s.Exit.Generation == b.gen && !w.s.Exit.Failure {
		b.released = true
	}
}

// crash kills the supervisor: what was on its way is lost, and the next one
// adopts what it finds, from the record as JSON.
func (w *world) crash() error {
	w.queue, w.past = nil, nil
	w.timers, w.stale = map[TimerID]Effect{}, nil
	data, err := json.Marshal(w.s)
	if err != nil {
		return err
	}
	w.s = State{}
	if err := json.Unmarshal(data, &w.s); err != nil {
		return err
	}
	b := w.bodies[w.s.Generation]
	in := Input{Kind: Adopted, Exit: Exit{Unknown: true}}
	// Everything has been ended meanwhile, which nothing can have outlived.
	in.Over = (b == nil || b.released || !b.pending && !b.leader && !b.leftovers) && w.step%4 == 0
	if b != nil && !b.released {
		if b.pending {
			b.pending = false
			b.leader = w.chance(2)
		}
		if b.leader {
			in.PID = 100 + int(b.gen)
		}
		in.Leftovers = !b.leader && b.leftovers
		b.seen = true
	}
	return w.feed(in)
}
