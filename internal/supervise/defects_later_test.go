package supervise

import (
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

func gated() Spec {
	sp := base()
	sp.Ready = &ReadyGate{Successes: 1, Deadline: 30 * time.Second}
	return sp
}

func TestS8_StopDuringBootIsFinal(t *testing.T) {
	t.Parallel()
	l := running(t, gated())
	l.is(api.StateStarting, "")
	l.feed(Input{Kind: Stop})
	l.until(time.Hour)
	l.is(api.StateStopped, api.ReasonRequest)
	l.started(seconds(0))
}

func TestS2_ABootThatFailsIsOneEvent(t *testing.T) {
	t.Parallel()
	sp := gated()
	sp.Breaker.Failures, sp.Breaker.Window = 3, 5*time.Minute
	l := running(t, sp)
	l.until(10 * time.Minute)
	l.is(api.StateFailed, api.ReasonBreaker)
	if len(l.starts) != 3 || l.count("process.exited") != 3 || len(l.s.Window) != 3 {
		t.Errorf("started %v, told %v", l.starts, l.told)
	}
	if l.s.Exit.Cause != "boot_timeout" || !l.s.Exit.Failure || l.s.Exit.Expected {
		t.Errorf("the end was recorded as %+v", l.s.Exit)
	}
}

func TestS9_S13_Q8_TimersBelongToAGeneration(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Grace = 4 * time.Second
	l := running(t, sp)
	l.feed(Input{Kind: Stop})
	old := l.s.Timers[TimerGrace].Number
	l.until(0)
	l.is(api.StateStopped, api.ReasonRequest)
	l.feed(Input{Kind: Start})
	l.obeys = false
	l.until(1150 * time.Millisecond)
	l.feed(Input{Kind: Stop})
	l.now = zero.Add(4 * time.Second) // when the first stop's grace would have ended
	l.feed(Input{Kind: TimerFired, Timer: TimerGrace, Number: old, Generation: 1})
	if l.did(DoKill) {
		t.Fatal("the timer of the last stop killed the next generation")
	}
	if want := zero.Add(5150 * time.Millisecond); l.s.Timers[TimerGrace].Deadline != want {
		t.Errorf("the grace ends %s after the start", l.s.Timers[TimerGrace].Deadline.Sub(zero))
	}
}

func TestS11_OneCrashADayLaterWaitsInitial(t *testing.T) {
	t.Parallel()
	l := newLine(t, base())
	l.life = func(uint64) (time.Duration, Exit) { return 24 * time.Hour, Exit{Code: 1} }
	l.feed(Input{Kind: Start})
	l.until(10 * 25 * time.Hour)
	for i := 1; i < len(l.starts); i++ {
		if got := l.starts[i] - l.starts[i-1]; got != 24*time.Hour+time.Second {
			t.Fatalf("restart %d came after %s", i, got)
		}
	}
	if l.s.Restarts < 9 {
		t.Errorf("%d restarts", l.s.Restarts)
	}
}

func TestS14_ACleanExitBeforeReadyIsAFailedBoot(t *testing.T) {
	t.Parallel()
	sp := gated()
	sp.Restart = api.RestartOnFailure
	l := running(t, sp)
	l.exit(Exit{})
	l.is(api.StateBackoff, "")
	if !l.s.Exit.Failure || l.s.Failures != 1 {
		t.Errorf("recorded %+v, %d failures", l.s.Exit, l.s.Failures)
	}
	one := base()
	one.Oneshot, one.Restart = true, api.RestartNever
	l = running(t, one)
	l.exit(Exit{})
	l.is(api.StateExited, "")
}

func TestS15_LeftoversOfACleanExit(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Restart = api.RestartOnFailure
	l := running(t, sp)
	l.feed(Input{Kind: Exited, Generation: 1})
	l.is(api.StateStopping, api.ReasonLeftovers)
	l.feed(Input{Kind: Gone, Generation: 1})
	l.is(api.StateExited, "")
	if e, told := l.last["process.stopped"]; !told || e.Data["reason"] != string(api.ReasonLeftovers) {
		t.Errorf("nobody is told that the leftovers are gone: %v", l.told)
	}

	sp.ReapAlways = false
	l = running(t, sp)
	l.feed(Input{Kind: Exited, Generation: 1})
	l.is(api.StateExited, "")
	if l.s.Alive || l.did(DoSignal) {
		t.Error("what a clean exit left behind was touched")
	}
	l = running(t, sp)
	l.feed(Input{Kind: Exited, Generation: 1, Exit: Exit{Code: 1}})
	l.is(api.StateStopping, api.ReasonLeftovers)
}

func TestN1_ShortLivesMakeTheWaitGrow(t *testing.T) {
	t.Parallel()
	l := newLine(t, base())
	l.life = crashing(1)
	l.feed(Input{Kind: Start})
	l.until(91 * time.Second)
	l.started(seconds(0, 1, 3, 7, 15, 31, 61, 91))
}

func TestN2_DeathByASignalIsAFailure(t *testing.T) {
	t.Parallel()
	killed := Exit{Code: 137, Signal: "SIGKILL"}
	sp := base()
	sp.Restart = api.RestartOnFailure
	l := running(t, sp)
	l.exit(killed)
	l.is(api.StateBackoff, "")

	sp.SignalIsFailure = false
	l = running(t, sp)
	l.exit(killed)
	l.is(api.StateExited, "")

	sp.Restart = api.RestartOnSuccess
	l = running(t, sp)
	l.exit(killed)
	l.is(api.StateBackoff, "")
}

func TestN3_CommandsCancelTheRecoveryTimer(t *testing.T) {
	t.Parallel()
	sp := pidnap()
	l := newLine(t, sp)
	l.life = crashing(1)
	l.feed(Input{Kind: Start})
	l.until(10 * time.Second)
	l.is(api.StateCrashLoop, api.ReasonBreaker)
	l.life = nil
	l.feed(Input{Kind: Start})
	l.until(time.Hour)
	if l.s.PID != 106 || len(l.starts) != 6 {
		t.Errorf("the recovery timer came after the start: %v", l.starts)
	}
}

func TestN4_OperatorsStartClearsTheWindow(t *testing.T) {
	t.Parallel()
	for _, k := range []Kind{Start, Restart} {
		l := newLine(t, pidnap())
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(10 * time.Second)
		l.feed(Input{Kind: k})
		l.until(10 * time.Second)
		l.is(api.StateBackoff, "")
		if len(l.s.Window) != 1 || l.s.Failures != 1 {
			t.Errorf("%s: %d in the window, %d failures", k, len(l.s.Window), l.s.Failures)
		}
	}
}

func TestN6_ConcurrentRestartsAreOne(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.obeys = false
	for range 7 {
		l.feed(Input{Kind: Restart})
	}
	l.exit(Exit{Code: 143, Signal: "SIGTERM"})
	l.until(time.Hour)
	l.started(seconds(0, 0))
	if l.count("process.restarting") != 1 || l.count("process.stopping") != 1 {
		t.Errorf("told %v", l.told)
	}
}

func TestN7_ALaterStopWins(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Restart})
	l.feed(Input{Kind: Stop})
	l.exit(Exit{Code: 143, Signal: "SIGTERM"})
	l.until(time.Hour)
	l.is(api.StateStopped, api.ReasonRequest)
	l.started(seconds(0))

	l = running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Restart})
	l.feed(Input{Kind: Stop})
	l.feed(Input{Kind: Start})
	l.exit(Exit{Code: 143, Signal: "SIGTERM"})
	l.is(api.StateRunning, "")
}

func TestN8_TheGraceHoldsForWhatTheLeaderLeaves(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Stop})
	l.until(2 * time.Second)
	l.feed(Input{Kind: Exited, Generation: 1, Exit: Exit{Code: 143, Signal: "SIGTERM"}})
	l.is(api.StateStopping, api.ReasonRequest)
	if l.s.Timers[TimerGrace].Deadline != zero.Add(10*time.Second) || !l.s.Alive || l.s.PID != 0 {
		t.Fatalf("after the leader's end: %+v", l.s)
	}
	l.now = zero.Add(10 * time.Second)
	l.feed(Input{Kind: TimerFired, Timer: TimerGrace, Number: l.s.Timers[TimerGrace].Number})
	if !l.did(DoKill) {
		t.Error("what is left was not killed")
	}
	l.feed(Input{Kind: Gone, Generation: 1})
	l.is(api.StateStopped, api.ReasonRequest)
}

func TestN10_ANewDefinitionStartsNothingThatIsNotWanted(t *testing.T) {
	t.Parallel()
	stopped := running(t, base())
	stopped.feed(Input{Kind: Stop})
	stopped.until(0)
	exited := newLine(t, base())
	exited.sp.Restart = api.RestartNever
	exited.life = crashing(0)
	exited.feed(Input{Kind: Start})
	exited.until(0)
	waiting := newLine(t, base())
	waiting.feed(Input{Kind: DepsChanged, Deps: DepsUnmet, Detail: "waits for db"})
	waiting.feed(Input{Kind: Start})
	for _, l := range []*line{newLine(t, base()), stopped, exited, waiting} {
		n := len(l.starts)
		l.feed(Input{Kind: Redefine, Apply: true})
		l.until(time.Hour)
		if len(l.starts) != n {
			t.Errorf("%s: a new definition started it", l.s.State)
		}
	}
	live := running(t, base())
	live.feed(Input{Kind: Redefine, Apply: true})
	live.until(0)
	live.started(seconds(0, 0))
	if live.s.Restarts != 0 || live.last["process.restarting"].Data["reason"] != "config" || !live.s.Exit.Expected {
		t.Errorf("the restart for the definition left %+v", live.s)
	}
}

func TestN19_NeverRunningBeforeTheExec(t *testing.T) {
	t.Parallel()
	r := Step(base(), State{}, Input{Kind: Start, Now: zero})
	if r.State.State != api.StateStarting || r.State.PID != 0 || r.State.Ready || !r.State.SpawnPending {
		t.Errorf("ordered, but not spawned, it is %+v", r.State)
	}
}

func TestN22_DependenciesAreLookedAtAgain(t *testing.T) {
	t.Parallel()
	l := newLine(t, base())
	l.feed(Input{Kind: DepsChanged, Deps: DepsUnmet, Detail: "waits for db"})
	l.feed(Input{Kind: Start})
	l.feed(Input{Kind: Start})
	l.feed(Input{Kind: DepsChanged, Deps: DepsUnmet, Detail: "waits for db"})
	l.is(api.StateWaiting, api.ReasonDependency)
	if l.count("process.waiting") != 1 {
		t.Errorf("told %d times that it waits for the same", l.count("process.waiting"))
	}
	l.feed(Input{Kind: DepsChanged, Deps: DepsUnmet, Detail: "waits for cache"})
	if l.count("process.waiting") != 2 || l.s.Detail != "waits for cache" {
		t.Errorf("the new reason is not told: %s", l.s.Detail)
	}
	l.feed(Input{Kind: DepsChanged, Deps: DepsFailed, Detail: "db is failed"})
	l.is(api.StateDependencyFailed, api.ReasonDependency)
	l.feed(Input{Kind: DepsChanged, Deps: DepsUnmet, Detail: "waits for db"})
	l.is(api.StateWaiting, api.ReasonDependency)
	l.feed(Input{Kind: DepsChanged, Deps: DepsMet})
	l.is(api.StateRunning, "")
	l.feed(Input{Kind: DepsChanged, Deps: DepsFailed, Detail: "db is failed"})
	l.is(api.StateRunning, "") // a live process is not touched
	l.exit(Exit{Code: 1})
	l.is(api.StateBackoff, "")
	l.until(time.Minute)
	l.is(api.StateDependencyFailed, api.ReasonDependency)
	l.feed(Input{Kind: DepsChanged, Deps: DepsMet})
	if l.count("process.restarted") != 1 {
		t.Error("the automatic restart that waited is not told as one")
	}
}

// Keeps out M5.
func TestK1_Q5_AHungProcessIsRestarted(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Health = &HealthWatch{Failures: 2, Restart: true}
	l := running(t, sp)
	l.health(No)
	l.health(Unknown)
	l.health(No)
	l.until(time.Second)
	l.started(seconds(0, 1))
	if l.s.Exit.Cause != "health" || l.s.Exit.Expected || !l.s.Exit.Failure || l.s.Failures != 1 {
		t.Errorf("the end was recorded as %+v", l.s.Exit)
	}
	never := sp
	never.Restart = api.RestartNever
	l = running(t, never)
	l.health(No)
	l.health(No)
	l.until(time.Second)
	l.is(api.StateFailed, api.ReasonHealth)
}

func TestK3_Q6_ExitZeroIsNoFailure(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Restart = api.RestartOnFailure
	l := running(t, sp)
	l.exit(Exit{})
	l.is(api.StateExited, "")
	if l.s.Exit.Failure || l.s.Restarts != 0 {
		t.Errorf("recorded %+v", l.s.Exit)
	}
}

func TestQ2_AnUnseenEndIsTakenWithAnUnknownCode(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	r := l.feed(Input{Kind: Adopted, Exit: Exit{Unknown: true}})
	if r.Events[0].Type != "process.exited" || r.Events[0].Data["code"] != nil || r.Events[0].Data["cause"] != "unknown" {
		t.Fatalf("told %v", r.Events)
	}
	l.is(api.StateBackoff, "")
}

func TestQ14_HealthIsToldAtItsEdges(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Health = &HealthWatch{Failures: 2, Successes: 2}
	l := running(t, sp)
	for _, a := range []Answer{Yes, Yes, Yes, No, No, No, Yes, Unknown, No, Yes, Yes} {
		l.health(a)
	}
	l.is(api.StateRunning, "")
	if l.count("process.health_ok") != 2 || l.count("process.unhealthy") != 1 || l.count("process.health_failed") != 4 {
		t.Errorf("told %v", l.told)
	}
}

func TestDetailsAreSentences(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Breaker.Failures = 3
	l := newLine(t, sp)
	l.life = crashing(1)
	l.feed(Input{Kind: Start})
	l.until(2 * time.Second)
	if l.s.Detail != "exited with code 1; restart 2 in 2s" {
		t.Errorf("in backoff: %q", l.s.Detail)
	}
	l.until(time.Minute)
	if want := "exited with code 1; breaker open after 3 failures in 1m0s; start it again with"; !strings.HasPrefix(l.s.Detail, want) {
		t.Errorf("parked: %q", l.s.Detail)
	}
}
