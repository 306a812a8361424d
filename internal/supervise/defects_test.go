package supervise

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// The defects of the reference systems that are decisions, by their ids. The
// letters are those of the systems: P of the watchdog class (E1), W and M of
// the router and the containers (E2), S (E3), N (E4), K (E5), and Q for the
// list of the process service (8.P).

func running(t *testing.T, sp Spec) *line {
	t.Helper()
	l := newLine(t, sp)
	l.feed(Input{Kind: Start})
	return l
}

func TestP1_StopIsSticky(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.feed(Input{Kind: Stop})
	l.until(time.Hour)
	l.is(api.StateStopped, api.ReasonRequest)
	l.started(seconds(0))
	if l.s.Desired != api.DesiredStopped || !l.s.Exit.Expected || l.s.Exit.Cause != "request" {
		t.Errorf("the end was recorded as %+v", l.s.Exit)
	}
}

// Keeps out Q11.
func TestP2_M1_K2_OnlyStabilityResetsTheBackoff(t *testing.T) {
	t.Parallel()
	l := newLine(t, base())
	l.life = func(uint64) (time.Duration, Exit) { return 9 * time.Second, Exit{Code: 1} }
	l.feed(Input{Kind: Start})
	l.until(40 * time.Second)
	l.started(seconds(0, 10, 21, 34)) // 9 s each, then 1, 2, 4
	l.life = func(uint64) (time.Duration, Exit) { return 10 * time.Second, Exit{Code: 1} }
	l.until(71 * time.Second)
	if got := l.starts[4] - l.starts[3]; got != 17*time.Second { // 9 s and the wait of 8
		t.Errorf("the fourth wait ends after %s", got)
	}
	if got := l.starts[5] - l.starts[4]; got != 11*time.Second { // 10 s, stable, and the wait of 1
		t.Errorf("after a stable run it is started again after %s", got)
	}
	if l.s.Failures > 1 || l.s.Budget > 1 {
		t.Errorf("the stable run left %d failures, %d restarts", l.s.Failures, l.s.Budget)
	}
}

func TestP3_RequestedEndsCountNowhere(t *testing.T) {
	t.Parallel()
	for _, count := range []string{countExits, countFailures, countRestarts} {
		sp := base()
		sp.Breaker.Failures, sp.Breaker.Count = 5, count
		l := running(t, sp)
		for range 20 {
			l.feed(Input{Kind: Restart})
			l.until(time.Duration(l.now - zero))
		}
		l.is(api.StateRunning, "")
		if l.s.Failures+l.s.Restarts+l.s.BackoffN+len(l.s.Window) != 0 || l.s.Generation != 21 {
			t.Errorf("%s: twenty restarts by hand left %+v", count, l.s)
		}
	}
}

// Keeps out N15.
func TestP3_CleanExitsCountOnlyIfAsked(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Breaker.Failures = 5
	l := newLine(t, sp)
	l.life = crashing(0)
	l.feed(Input{Kind: Start})
	l.until(10 * time.Minute)
	if l.count("process.breaker_open") != 0 || l.s.Failures != 0 {
		t.Errorf("clean exits opened the breaker: %s", l.s.Detail)
	}
	if l.starts[6]-l.starts[5] != 30*time.Second {
		t.Errorf("clean exits do not make the wait grow: %v", l.starts)
	}
}

func TestP4_ResetClosesTheBreakerAndStartsNothing(t *testing.T) {
	t.Parallel()
	for _, open := range []string{openPark, openCooldown, openRetry, openExit} {
		sp := base()
		sp.Breaker.Failures, sp.Breaker.OnOpen, sp.MaxRestarts = 2, open, 50
		l := newLine(t, sp)
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(5 * time.Second)
		l.feed(Input{Kind: Reset})
		l.is(api.StateIdle, "")
		l.until(time.Hour)
		l.started(seconds(0, 1))
		if l.count("process.breaker_reset") != 1 || l.s.Desired != api.DesiredStopped {
			t.Errorf("%s: told %v, desired %s", open, l.told, l.s.Desired)
		}
		if l.s.Failures+l.s.BackoffN+l.s.Budget+len(l.s.Window) != 0 || l.s.CooldownUntil != 0 {
			t.Errorf("%s: counters are left: %+v", open, l.s)
		}
	}
}

func TestP5_S7_StartDuringStopWaitsForTheEnd(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Stop})
	l.feed(Input{Kind: Start})
	l.is(api.StateStopping, api.ReasonRequest)
	if l.did(DoSpawn) {
		t.Fatal("a second copy was spawned")
	}
	l.until(3 * time.Second)
	l.exit(Exit{Code: 143, Signal: "SIGTERM"})
	l.is(api.StateRunning, "")
	l.started(seconds(0, 3))
	if l.s.Restarts != 0 || l.s.Failures != 0 {
		t.Error("the start by hand was counted")
	}
}

func TestP5_S4_LateEndOfTheLastGenerationIsDropped(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.feed(Input{Kind: Restart})
	l.until(0)
	before := l.s
	for _, k := range []Kind{Exited, Gone, Spawned, SpawnFailed, HealthAnswer, ReadyAnswer} {
		r := l.feed(Input{Kind: k, Generation: 1, Exit: Exit{Code: 1}, Gone: true, PID: 7})
		if len(r.Events)+len(r.Effects) != 0 || !cmp.Equal(before, l.s) {
			t.Errorf("%s of generation 1 changed generation 2: %s", k, cmp.Diff(before, l.s))
		}
	}
}

func TestP6_StopKeepsWhyItFailed(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Breaker.Failures = 1
	l := newLine(t, sp)
	l.life = crashing(1)
	l.feed(Input{Kind: Start})
	l.until(0)
	l.is(api.StateFailed, api.ReasonBreaker)
	l.feed(Input{Kind: Stop})
	l.is(api.StateFailed, api.ReasonBreaker)
	if l.s.Desired != api.DesiredStopped {
		t.Error("the stop was not written down")
	}
}

func TestP7_Q13_StopDuringBackoffCancelsTheTimer(t *testing.T) {
	t.Parallel()
	for _, end := range []Kind{Stop, Kill, Shutdown} {
		l := newLine(t, base())
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(4 * time.Second)
		l.is(api.StateBackoff, "")
		number := l.s.Timers[TimerStart].Number
		l.feed(Input{Kind: end})
		if l.s.State != api.StateStopped || !l.did(DoDisarm) {
			t.Fatalf("%s: it is %s", end, l.s.State)
		}
		l.feed(Input{Kind: TimerFired, Timer: TimerStart, Number: number, Generation: l.s.Generation})
		l.until(time.Hour)
		l.started(seconds(0, 1, 3))
	}
}

// Keeps out M4.
func TestP8_W3_K7_Q12_AFailedSpawnIsTriedAgain(t *testing.T) {
	t.Parallel()
	l := newLine(t, base())
	l.refuse = func(gen uint64) string {
		if gen < 4 {
			return "exec: no such file"
		}
		return ""
	}
	l.feed(Input{Kind: Start})
	l.is(api.StateBackoff, "")
	if l.s.PID != 0 || l.s.Alive || l.count("process.exited") != 0 || l.last["process.error"].Data["error"] != "exec: no such file" {
		t.Errorf("the failed spawn told %v and left %+v", l.told, l.s)
	}
	l.until(time.Minute)
	l.started(seconds(7)) // 1+2+4
	l.is(api.StateRunning, "")
}

// Without a backoff a program that is not there would be tried again and again
// in one Step after the other, and the processor with it.
func TestP8_AFailedSpawnNeverSpins(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Backoff = Backoff{}
	l := newLine(t, sp)
	l.refuse = func(uint64) string { return "exec: no such file" }
	l.feed(Input{Kind: Start})
	l.is(api.StateBackoff, "")
}

func TestP8_AFailedSpawnIsTerminalWithoutRestart(t *testing.T) {
	t.Parallel()
	for _, policy := range []api.RestartPolicy{api.RestartNever, api.RestartOnSuccess} {
		sp := base()
		sp.Restart = policy
		l := newLine(t, sp)
		l.refuse = func(uint64) string { return "exec: permission denied" }
		l.feed(Input{Kind: Start})
		l.is(api.StateFailed, api.ReasonSpawnError)
	}
	sp := base()
	sp.NoRestartCodeMin = 100 // 127 of a failed spawn is not the program's word
	sp.Breaker.Failures = 3
	l := newLine(t, sp)
	l.refuse = func(uint64) string { return "exec: permission denied" }
	l.feed(Input{Kind: Start})
	l.until(time.Hour)
	l.is(api.StateFailed, api.ReasonBreaker)
}

func TestP9_NoesAreCountedPerGeneration(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Health = &HealthWatch{Failures: 3, Successes: 1, Restart: true}
	l := running(t, sp)
	for range 3 {
		l.health(No)
	}
	l.until(5 * time.Second)
	l.is(api.StateRunning, "")
	l.health(No)
	l.health(No)
	l.is(api.StateRunning, "")
	if l.count("process.unhealthy") != 1 || l.count("process.health_failed") != 5 {
		t.Errorf("told %v", l.told)
	}
}

func TestP10_StopsShareOneEnd(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Stop})
	l.until(4 * time.Second)
	l.feed(Input{Kind: Stop})
	l.is(api.StateStopping, api.ReasonRequest)
	if len(l.effects) != 0 {
		t.Errorf("the second stop did %v", l.effects)
	}
	l.until(10 * time.Second) // the grace of the first one
	l.is(api.StateStopped, api.ReasonRequest)
	if l.s.Exit.Signal != "SIGKILL" || l.s.Exit.Uptime != 10*time.Second {
		t.Errorf("it ended by %+v", l.s.Exit)
	}
}

// Keeps out N15.
func TestP13_ScopesOfMaxRestarts(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string]int{"since_healthy": 7, scopeLifetime: 4, scopeConsecutive: 7} {
		sp := base()
		sp.MaxRestarts, sp.MaxRestartsScope = 3, scope
		l := newLine(t, sp)
		l.life = func(gen uint64) (time.Duration, Exit) {
			if gen == 4 {
				return time.Minute, Exit{Code: 1} // stable
			}
			return 0, Exit{Code: 1}
		}
		l.feed(Input{Kind: Start})
		l.until(time.Hour)
		l.is(api.StateFailed, api.ReasonMaxRestarts)
		// Three restarts each time; the stable run's own end begins a new row.
		if len(l.starts) != want {
			t.Errorf("%s: started %d times, want %d", scope, len(l.starts), want)
		}
	}
}

func TestP14_TheEndIsToldBeforeAllElse(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Breaker.Failures = 1
	l := running(t, sp)
	r := l.exit(Exit{Code: 139, Signal: "SIGSEGV", CoreDumped: true})
	var types []string
	for _, e := range r.Events {
		types = append(types, e.Type)
	}
	if diff := cmp.Diff([]string{"process.exited", "process.breaker_open"}, types); diff != "" {
		t.Error(diff)
	}
	want := map[string]any{"code": 139, "signal": "SIGSEGV", "expected": false, "uptime_ms": int64(0), "cause": "exit", "core_dumped": true}
	if diff := cmp.Diff(want, r.Events[0].Data); diff != "" {
		t.Error(diff)
	}
}

func TestW2_S5_EveryEndEscalates(t *testing.T) {
	t.Parallel()
	causes := map[api.Reason]func(*line){
		api.ReasonHealth:      func(l *line) { l.ready(Yes); l.health(No) },
		api.ReasonBootTimeout: func(l *line) { l.until(30 * time.Second) },
		api.ReasonRequest:     func(l *line) { l.feed(Input{Kind: Stop}) },
		api.ReasonRestart:     func(l *line) { l.feed(Input{Kind: Restart}) },
		api.ReasonShutdown:    func(l *line) { l.feed(Input{Kind: Shutdown}) },
		api.ReasonRemoved:     func(l *line) { l.feed(Input{Kind: Shutdown, Reason: api.ReasonRemoved}) },
		api.ReasonConfig:      func(l *line) { l.feed(Input{Kind: Redefine, Apply: true}) },
		api.ReasonLeftovers: func(l *line) {
			l.feed(Input{Kind: Exited, Generation: 1, Exit: Exit{Code: 1}})
		},
	}
	for cause, begin := range causes {
		sp := base()
		sp.Ready = &ReadyGate{Successes: 1, Deadline: 30 * time.Second}
		sp.Health = &HealthWatch{Failures: 1, Restart: true}
		l := running(t, sp)
		l.obeys = false
		begin(l)
		l.is(api.StateStopping, cause)
		if !l.did(DoSignal) || !l.did(DoProbeStop) {
			t.Errorf("%s: it was not signalled: %v", cause, l.effects)
		}
		at := l.now
		if got := l.s.Timers[TimerGrace].Deadline; got != at.Add(10*time.Second) {
			t.Errorf("%s: the grace ends after %s", cause, got.Sub(at))
		}
		l.now = at.Add(10 * time.Second)
		l.feed(Input{Kind: TimerFired, Timer: TimerGrace, Number: l.s.Timers[TimerGrace].Number})
		if !l.did(DoKill) || l.s.Timers[TimerKill].Deadline != l.now.Add(time.Second) {
			t.Errorf("%s: it was not killed: %v", cause, l.effects)
		}
	}
}

func TestM2_ARunThatBecomesStableClosesTheWindow(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Breaker.Failures = 3
	sp.Stable.Window = true
	l := newLine(t, sp)
	l.life = func(gen uint64) (time.Duration, Exit) {
		if gen <= 2 {
			return 0, Exit{Code: 1}
		}
		return -1, Exit{}
	}
	l.feed(Input{Kind: Start})
	l.until(12 * time.Second)
	if len(l.s.Window) != 2 {
		t.Fatalf("the window has %d entries before it is stable", len(l.s.Window))
	}
	l.feed(Input{Kind: Adopted, PID: 103})
	l.until(13 * time.Second)
	if len(l.s.Window) != 0 || !l.s.WasStable {
		t.Errorf("the adopted run did not become stable: %+v", l.s)
	}
}

func TestM6_HealthBackoffIsItsOwnAndMeetsTheBreaker(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Breaker.Failures, sp.Breaker.Window = 5, 2*time.Hour
	sp.Health = &HealthWatch{Failures: 1, Restart: true,
		Backoff: &Backoff{Initial: 10 * time.Second, Max: 5 * time.Minute, Multiplier: 2, ResetAfter: 10 * time.Minute}}
	l := running(t, sp)
	for range 3 {
		l.health(No)
		l.until(time.Duration(l.now-zero) + 5*time.Minute)
	}
	l.started([]time.Duration{0, 10 * time.Second, 5*time.Minute + 20*time.Second, 10*time.Minute + 40*time.Second})
	l.until(time.Hour)
	l.health(No)
	l.until(time.Hour + 10*time.Second)
	if len(l.starts) != 5 || l.starts[4] != time.Hour+10*time.Second {
		t.Errorf("ten minutes of life did not set the wait back: %v", l.starts)
	}
	l.health(No)
	l.until(time.Hour + 10*time.Second)
	l.is(api.StateFailed, api.ReasonBreaker)
}

func TestS1_N9_SignalSentIsNotDead(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Stop})
	if l.did(DoKill) || l.s.State != api.StateStopping {
		t.Fatalf("after the signal: %s, %v", l.s.State, l.effects)
	}
	// SIGKILL is not believed either: it is sent again until the end is proven.
	told := 0
	for range 9 {
		for _, id := range []TimerID{TimerGrace, TimerKill} {
			if n := l.s.Timers[id].Number; n != 0 {
				l.ends = false
				l.now = l.s.Timers[id].Deadline
				l.feed(Input{Kind: TimerFired, Timer: id, Number: n})
				break
			}
		}
		l.is(api.StateStopping, api.ReasonRequest)
		if !l.did(DoKill) {
			t.Fatal("it is not killed again")
		}
		told = l.count("process.error")
	}
	if told != 4 { // after 1, 2, 4 and 8 tries
		t.Errorf("told %d times that it is stuck, want 4", told)
	}
	l.exit(Exit{Code: 137, Signal: "SIGKILL"})
	l.is(api.StateStopped, api.ReasonRequest)
}

func TestS3_StartDuringBackoffStartsNowAndOnce(t *testing.T) {
	t.Parallel()
	for _, on := range []string{openPark, openRetry} {
		sp := base()
		sp.Breaker.Failures, sp.Breaker.OnOpen = 4, on
		l := newLine(t, sp)
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		if on == openRetry {
			l.until(20 * time.Second)
			l.is(api.StateCrashLoop, api.ReasonBreaker)
		} else {
			l.until(4 * time.Second)
			l.is(api.StateBackoff, "")
		}
		n := len(l.starts)
		number := l.s.Timers[TimerStart].Number
		l.life = nil
		l.feed(Input{Kind: Start})
		l.is(api.StateRunning, "")
		l.feed(Input{Kind: TimerFired, Timer: TimerStart, Number: number})
		l.until(time.Hour)
		if len(l.starts) != n+1 || l.count("process.restarted") != n-1 {
			t.Errorf("%s: started %d times more", on, len(l.starts)-n)
		}
	}
}

func TestS6_NothingIsStartedBehindTheBarrier(t *testing.T) {
	t.Parallel()
	l := newLine(t, base())
	r := Step(l.sp, l.s, Input{Kind: Start, Now: zero})
	r = Step(l.sp, r.State, Input{Kind: Shutdown, Now: zero})
	if r.State.State != api.StateStopping || r.State.Desired != api.DesiredRunning {
		t.Fatalf("after the shutdown: %+v", r.State)
	}
	r = Step(l.sp, r.State, Input{Kind: Spawned, Generation: 1, PID: 9, Now: zero})
	if len(r.Effects) == 0 || r.Effects[0].Do != DoSignal {
		t.Fatalf("the late spawn was not ended: %v", r.Effects)
	}
	for _, k := range []Kind{Start, Restart} {
		if got := Step(l.sp, r.State, Input{Kind: k, Now: zero}); got.Refused == "" {
			t.Errorf("%s behind the barrier was taken", k)
		}
	}
	r = Step(l.sp, r.State, Input{Kind: Exited, Generation: 1, Gone: true, Now: zero})
	if r.State.State != api.StateStopped || r.State.Reason != api.ReasonShutdown {
		t.Errorf("it ended as %s/%s", r.State.State, r.State.Reason)
	}
}
