package supervise

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/api"
)

// TestWaitIsBounded holds that no wait overflows or leaves its bounds,
// whatever the definition says.
func TestWaitIsBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{
			Fixed:      rapid.Bool().Draw(t, "fixed"),
			Initial:    time.Duration(rapid.Int64().Draw(t, "initial")),
			Max:        time.Duration(rapid.Int64().Draw(t, "max")),
			Multiplier: rapid.Float64Range(0, math.MaxFloat64).Draw(t, "multiplier"),
			Jitter: api.Jitter{Mode: rapid.SampledFrom([]string{"none", "add", "scale", ""}).Draw(t, "mode"),
				Frac: rapid.Float64Range(0, 10).Draw(t, "frac"), Lo: rapid.Float64Range(0, 1).Draw(t, "lo"), Hi: rapid.Float64Range(1, 10).Draw(t, "hi")},
		}
		d := b.wait(rapid.IntRange(-3, math.MaxInt).Draw(t, "exponent"), rapid.Float64Range(0, 1).Draw(t, "roll"))
		if d < 0 || d > maxWait {
			t.Fatalf("%+v waits %s", b, d)
		}
	})
	b := Backoff{Initial: time.Second, Max: 30 * time.Second, Multiplier: 2}
	for exp, want := range []time.Duration{1e9, 2e9, 4e9, 8e9, 16e9, 30e9, 30e9} {
		if got := b.wait(exp, 0.7); got != want {
			t.Errorf("exponent %d waits %s, want %s", exp, got, want)
		}
	}
}

func TestNoWaitRestartsInTheSameStep(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Backoff = Backoff{Fixed: true}
	l := running(t, sp)
	r := l.feed(Input{Kind: Exited, Generation: 1, Exit: Exit{Code: 1}, Gone: true})
	spawned := false
	for _, e := range r.Effects {
		spawned = spawned || e.Do == DoSpawn && e.Generation == 2
		if e.Do == DoArm {
			t.Error("a timer was armed")
		}
	}
	if !spawned {
		t.Fatalf("no spawn in %v", r.Effects)
	}
	if got := l.last["process.restarted"].Data["attempt"]; got != 1 {
		t.Errorf("told attempt %v", got)
	}
}

func TestReadinessGate(t *testing.T) {
	t.Parallel()
	sp := gated()
	sp.Ready.Successes = 2
	sp.Health = &HealthWatch{Failures: 1, Restart: true}
	l := running(t, sp)
	l.health(No) // is not asked before it is ready
	for _, a := range []Answer{Yes, No, Yes, Unknown} {
		l.ready(a)
		l.is(api.StateStarting, "")
	}
	l.ready(Yes)
	l.is(api.StateRunning, "")
	if !l.did(DoProbeStop) || !l.did(DoProbeHealth) || l.s.Timers[TimerReady].Number != 0 || l.count("process.ready") != 1 {
		t.Errorf("ready: %v, told %v", l.effects, l.told)
	}
	l.ready(No)
	l.is(api.StateRunning, "")

	sp.Ready.Warn = true
	l = running(t, sp)
	l.until(30 * time.Second)
	l.is(api.StateRunning, "")
	if l.s.Ready || l.count("process.error") != 1 || !l.did(DoProbeHealth) {
		t.Errorf("warned: %+v", l.s)
	}
	l.ready(Yes)
	l.ready(Yes)
	if !l.s.Ready || l.count("process.ready") != 1 {
		t.Error("it did not become ready after the deadline")
	}
	l.exit(Exit{}) // after the warning a clean exit is no failed boot
	if l.s.Exit.Failure {
		t.Error("a clean exit after the warning is a failure")
	}
}

func TestKillGivesNoGrace(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.feed(Input{Kind: Kill})
	if !l.did(DoKill) || l.did(DoSignal) || l.s.Desired != api.DesiredStopped {
		t.Errorf("kill did %v", l.effects)
	}
	l.until(time.Hour)
	l.is(api.StateStopped, api.ReasonRequest)

	l = running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Stop})
	l.feed(Input{Kind: Kill})
	if !l.did(DoKill) || l.s.Timers[TimerGrace].Number != 0 {
		t.Errorf("kill during a stop did %v", l.effects)
	}
	// Before the spawn's outcome is known, the kill comes with it.
	r := Step(base(), State{}, Input{Kind: Start, Now: zero})
	r = Step(base(), r.State, Input{Kind: Kill, Now: zero})
	r = Step(base(), r.State, Input{Kind: Spawned, Generation: 1, PID: 3, Now: zero})
	if last := r.Effects[len(r.Effects)-2]; last.Do != DoKill {
		t.Errorf("a kill before the spawn did %v", r.Effects)
	}
}

func TestStartOfAFailedProcess(t *testing.T) {
	t.Parallel()
	failed := func(resets bool) *line {
		sp := base()
		sp.StartResets, sp.MaxRestarts, sp.MaxRestartsScope = resets, 1, scopeLifetime
		l := newLine(t, sp)
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(time.Hour)
		l.is(api.StateFailed, api.ReasonMaxRestarts)
		return l
	}
	for _, k := range []Kind{Start, Restart} {
		l := failed(false)
		before := l.s
		if r := l.feed(Input{Kind: k}); !strings.Contains(r.Refused, "reset") || !cmp.Equal(before, l.s) {
			t.Errorf("%s: refused with %q", k, r.Refused)
		}
		l.feed(Input{Kind: k, Force: true})
		l.until(2 * time.Hour)
		if len(l.starts) != 4 { // the forced one has its restart again
			t.Errorf("%s: forced, it started %d times", k, len(l.starts))
		}
		l = failed(true)
		l.feed(Input{Kind: k})
		l.until(2 * time.Hour)
		if len(l.starts) != 4 {
			t.Errorf("%s: started %d times", k, len(l.starts))
		}
	}
}

func TestResetOfALiveProcessZeroesCountersOnly(t *testing.T) {
	t.Parallel()
	l := newLine(t, base())
	l.life = func(gen uint64) (time.Duration, Exit) {
		if gen < 3 {
			return 0, Exit{Code: 1}
		}
		return -1, Exit{}
	}
	l.feed(Input{Kind: Start})
	l.until(3 * time.Second)
	l.feed(Input{Kind: Reset})
	l.is(api.StateRunning, "")
	if l.s.Failures+l.s.BackoffN+l.s.Budget != 0 || l.s.Desired != api.DesiredRunning || len(l.effects) != 0 {
		t.Errorf("after the reset: %+v", l.s)
	}
	if l.s.Restarts != 2 || l.s.Starts != 3 {
		t.Errorf("lifetime counts were touched: %+v", l.s)
	}
}

func TestRedefineDuringAWait(t *testing.T) {
	t.Parallel()
	waiting := func() *line {
		l := newLine(t, base())
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(4 * time.Second)
		l.is(api.StateBackoff, "")
		return l
	}
	l := waiting()
	l.life = nil
	l.feed(Input{Kind: Redefine, Apply: true})
	l.is(api.StateRunning, "")
	l = waiting()
	l.feed(Input{Kind: Redefine})
	l.is(api.StateBackoff, "")
	l.sp.Restart = api.RestartNever
	l.feed(Input{Kind: Redefine})
	l.is(api.StateFailed, api.ReasonExit)
	if l.s.Timers[TimerStart].Number != 0 {
		t.Error("the wait goes on")
	}
	l = newLine(t, base())
	l.life = crashing(0)
	l.feed(Input{Kind: Start})
	l.until(500 * time.Millisecond)
	l.is(api.StateBackoff, "")
	l.sp.Restart = api.RestartNever
	l.feed(Input{Kind: Redefine})
	l.is(api.StateExited, "")
	if l.last["process.stopped"].Data["reason"] != string(api.ReasonConfig) {
		t.Errorf("nobody is told that it is not started again: %v", l.told)
	}
}

func TestRedefineFitsTheProbes(t *testing.T) {
	t.Parallel()
	l := running(t, gated())
	l.sp.Ready = nil
	l.feed(Input{Kind: Redefine})
	l.is(api.StateRunning, "")
	l.sp.Health = &HealthWatch{Failures: 1}
	l.feed(Input{Kind: Redefine})
	if !l.did(DoProbeStop) || !l.did(DoProbeHealth) {
		t.Errorf("a health probe that is new is not asked: %v", l.effects)
	}
	l.health(No)
	l.sp.Health = nil
	l.feed(Input{Kind: Redefine})
	if l.s.Health != api.HealthUnknown || l.did(DoProbeHealth) {
		t.Errorf("a health probe that is gone is still asked: %v", l.effects)
	}
}

// TestAdoption replaces the supervisor in each state, with the record as JSON.
func TestAdoption(t *testing.T) {
	t.Parallel()
	reborn := func(l *line, in Input) Result {
		l.t.Helper()
		data, err := json.Marshal(l.s)
		if err != nil {
			l.t.Fatal(err)
		}
		l.s = State{}
		if err := json.Unmarshal(data, &l.s); err != nil {
			l.t.Fatal(err)
		}
		in.Kind = Adopted
		return l.feed(in)
	}
	t.Run("backoff keeps its deadline", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, base())
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(5 * time.Second)
		reborn(l, Input{})
		l.until(8 * time.Second)
		l.started(seconds(0, 1, 3, 7))
	})
	t.Run("another boot's clock means nothing", func(t *testing.T) {
		t.Parallel()
		sp := base()
		sp.Breaker.Failures = 4
		l := newLine(t, sp)
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(5 * time.Second)
		l.now = 1000
		reborn(l, Input{NewBoot: true})
		if got := l.s.Timers[TimerStart].Deadline; got != 1000 || len(l.s.Window) != 0 {
			t.Errorf("it starts at %d, window %v", got, l.s.Window)
		}
	})
	t.Run("starting keeps its gate's deadline", func(t *testing.T) {
		t.Parallel()
		l := running(t, gated())
		l.until(10 * time.Second)
		reborn(l, Input{PID: 101})
		if !l.did(DoProbeReady) || l.s.Timers[TimerReady].Deadline != zero.Add(30*time.Second) {
			t.Errorf("adopted with %v", l.effects)
		}
	})
	t.Run("a stop goes on with its grace", func(t *testing.T) {
		t.Parallel()
		l := running(t, base())
		l.obeys = false
		l.feed(Input{Kind: Stop})
		l.until(4 * time.Second)
		reborn(l, Input{PID: 101})
		if !l.did(DoSignal) || l.s.Timers[TimerGrace].Deadline != zero.Add(10*time.Second) {
			t.Errorf("adopted with %v", l.effects)
		}
		l.until(10 * time.Second)
		l.is(api.StateStopped, api.ReasonRequest)
	})
	t.Run("leftovers alone", func(t *testing.T) {
		t.Parallel()
		l := running(t, base())
		r := reborn(l, Input{Leftovers: true, Exit: Exit{Unknown: true}})
		l.is(api.StateStopping, api.ReasonLeftovers)
		if r.Events[0].Type != "process.exited" || !l.did(DoSignal) {
			t.Errorf("told %v, did %v", r.Events, l.effects)
		}
		l.feed(Input{Kind: Gone, Generation: 1})
		l.is(api.StateBackoff, "")
	})
	t.Run("a spawn of which nothing is found is ordered again, uncounted", func(t *testing.T) {
		t.Parallel()
		r := Step(base(), State{}, Input{Kind: Start, Now: zero})
		l := newLine(t, base())
		l.s = r.State
		reborn(l, Input{})
		l.is(api.StateRunning, "")
		if l.s.Generation != 2 || l.s.Failures+l.s.Restarts != 0 || l.count("process.exited") != 1 {
			t.Errorf("%+v", l.s)
		}
	})
	t.Run("a spawn of which nothing is found may have run: never twice without the policy", func(t *testing.T) {
		t.Parallel()
		sp := base()
		sp.Restart = api.RestartNever
		l := newLine(t, sp)
		l.s = Step(sp, State{}, Input{Kind: Start, Now: zero}).State
		r := reborn(l, Input{})
		l.is(api.StateFailed, api.ReasonExit)
		if r.Events[0].Type != "process.exited" || r.Events[0].Data["code"] != nil || l.s.Generation != 1 {
			t.Errorf("told %v, %+v", r.Events, l.s)
		}
	})
	t.Run("a stop of a spawn of which nothing is found", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, base())
		l.s = Step(base(), State{}, Input{Kind: Start, Now: zero}).State
		l.s = Step(base(), l.s, Input{Kind: Stop, Now: zero}).State
		r := reborn(l, Input{})
		l.is(api.StateStopped, api.ReasonRequest)
		if r.Events[0].Type != "process.exited" {
			t.Errorf("told %v", r.Events)
		}
	})
	t.Run("a spawn that is found lives", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, base())
		l.s = Step(base(), State{}, Input{Kind: Start, Now: zero}).State
		reborn(l, Input{PID: 77})
		l.is(api.StateRunning, "")
		if l.s.PID != 77 || l.s.Generation != 1 || l.count("process.started") != 1 {
			t.Errorf("%+v", l.s)
		}
	})
	t.Run("a shutdown's end stays one, and a later start is taken", func(t *testing.T) {
		t.Parallel()
		l := running(t, base())
		l.obeys = false
		l.feed(Input{Kind: Shutdown})
		reborn(l, Input{PID: 101})
		l.exit(Exit{Code: 143, Signal: "SIGTERM"})
		l.is(api.StateStopped, api.ReasonShutdown)
		reborn(l, Input{})
		if r := l.feed(Input{Kind: Start}); r.Refused != "" {
			t.Error(r.Refused)
		}
		l.is(api.StateRunning, "")
	})
	t.Run("a removal stays one", func(t *testing.T) {
		t.Parallel()
		l := running(t, base())
		l.feed(Input{Kind: Shutdown, Reason: api.ReasonRemoved})
		l.until(0)
		l.is(api.StateStopped, api.ReasonRemoved)
		reborn(l, Input{})
		if r := l.feed(Input{Kind: Start}); r.Refused == "" {
			t.Error("a removed process was started")
		}
	})
}

// BenchmarkStepRestart is one turn of a crashing process that restarts without
// a wait: the end, the order of the next spawn, its success.
func BenchmarkStepRestart(b *testing.B) {
	sp := base()
	sp.Backoff = Backoff{Fixed: true}
	sp.Breaker.Failures, sp.Breaker.Window = 5, time.Minute
	s := Step(sp, State{}, Input{Kind: Start, Now: zero}).State
	now := zero
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Minute)
		s = Step(sp, s, Input{Kind: Spawned, Generation: s.Generation, PID: 9, Now: now}).State
		s = Step(sp, s, Input{Kind: Exited, Generation: s.Generation, Exit: Exit{Code: 1}, Gone: true, Now: now}).State
	}
	if s.State != api.StateStarting {
		b.Fatalf("it is %s", s.State)
	}
}

// BenchmarkStepHealthy is the commonest input of all: a yes that changes nothing.
func BenchmarkStepHealthy(b *testing.B) {
	sp := base()
	sp.Health = &HealthWatch{Failures: 3, Successes: 1, Restart: true}
	s := Step(sp, State{}, Input{Kind: Start, Now: zero}).State
	s = Step(sp, s, Input{Kind: Spawned, Generation: 1, PID: 9, Now: zero}).State
	s = Step(sp, s, Input{Kind: HealthAnswer, Generation: 1, Answer: Yes, Now: zero}).State
	b.ReportAllocs()
	for b.Loop() {
		s = Step(sp, s, Input{Kind: HealthAnswer, Generation: 1, Answer: Yes, Now: zero}).State
	}
}
