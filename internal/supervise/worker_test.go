package supervise

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// The defects of the reference system's heartbeats, limits and watchdog: Q for
// its list 8.P and D for 8.D.

// beating is a definition whose heartbeats are watched: stale at 10 s, ended at
// 20 s, the first one within 30 s.
func beating() Spec {
	sp := base()
	sp.Heartbeat = &HeartbeatWatch{Timeout: 10 * time.Second, Kill: 20 * time.Second, Grace: 30 * time.Second}
	return sp
}

func (l *line) beats(at time.Duration) { l.beat = zero.Add(at) }

// Keeps out K5.
func TestQ5_AHungWorkerIsEndedAndRestarted(t *testing.T) {
	t.Parallel()
	l := running(t, beating())
	l.obeys = false // hung: the stop signal does nothing
	l.beats(5 * time.Second)
	l.until(14 * time.Second)
	l.is(api.StateRunning, "")
	l.until(15 * time.Second)
	if l.count("process.stale") != 1 || l.s.State != api.StateRunning {
		t.Fatalf("%s, told %v", l.s.State, l.told)
	}
	l.until(24 * time.Second)
	l.is(api.StateRunning, "")
	l.until(25 * time.Second)
	l.is(api.StateStopping, api.ReasonHeartbeat)
	if l.count("process.watchdog.killed") != 0 {
		t.Error("the kill was told before it was confirmed")
	}
	l.until(35 * time.Second) // its grace, then SIGKILL
	if l.s.Exit.Cause != "heartbeat" || l.s.Exit.Expected || !l.s.Exit.Failure || l.count("process.watchdog.killed") != 1 {
		t.Fatalf("%+v, told %v", l.s.Exit, l.told)
	}
	l.until(36 * time.Second)
	l.started(seconds(0, 36))
	never := beating()
	never.Restart = api.RestartNever
	l = running(t, never)
	l.until(time.Minute)
	l.is(api.StateFailed, api.ReasonHeartbeat)
}

func TestQ14_D5_StaleIsToldOncePerEpisode(t *testing.T) {
	t.Parallel()
	sp := beating()
	sp.Heartbeat.Kill = 0 // only told
	l := running(t, sp)
	l.until(time.Hour)
	if l.count("process.stale") != 1 {
		t.Fatalf("told %d times", l.count("process.stale"))
	}
	l.beats(time.Hour)
	l.feed(Input{Kind: Heartbeat, Generation: 1, Beat: l.beat})
	l.feed(Input{Kind: Heartbeat, Generation: 1, Beat: l.beat})
	if l.count("process.heartbeat_ok") != 1 {
		t.Errorf("the recovery was told %d times", l.count("process.heartbeat_ok"))
	}
	l.until(2 * time.Hour)
	if l.count("process.stale") != 2 {
		t.Errorf("the second episode: told %d times", l.count("process.stale"))
	}
	l.is(api.StateRunning, "")
}

// TestHeartbeatsCostNoTimer: each heartbeat costs nothing; the timer looks when
// it fires and is armed for when it would be missed.
func TestHeartbeatsCostNoTimer(t *testing.T) {
	t.Parallel()
	l := running(t, beating())
	for at := time.Second; at < time.Hour; at += time.Second {
		l.beats(at)
		l.until(at)
	}
	if n := l.s.TimerNo; n > 400 {
		t.Errorf("%d timers were armed for 3600 heartbeats", n)
	}
	if l.count("process.stale") != 0 {
		t.Errorf("told %v", l.told)
	}
}

func TestQ15_D4_AnAdoptedWorkerHasItsGraceAgain(t *testing.T) {
	t.Parallel()
	l := running(t, beating())
	l.beats(100 * time.Second)
	l.until(100 * time.Second)
	// The supervisor was away for an hour, and so are its heartbeats.
	l.now = zero.Add(time.Hour)
	l.feed(Input{Kind: Adopted, PID: 101})
	l.until(time.Hour + 29*time.Second)
	if l.is(api.StateRunning, ""); l.count("process.stale") != 0 {
		t.Errorf("told %v", l.told)
	}
	l.until(time.Hour + 40*time.Second)
	l.is(api.StateBackoff, "")
	// One that was stale before is told to be well again.
	sp := beating()
	sp.Heartbeat.Kill = 0
	l = running(t, sp)
	l.until(time.Minute)
	l.feed(Input{Kind: Adopted, PID: 101})
	l.beats(61 * time.Second)
	l.now = l.beat
	l.feed(Input{Kind: Heartbeat, Generation: 1, Beat: l.beat})
	if l.count("process.heartbeat_ok") != 1 || l.count("process.stale") != 1 {
		t.Errorf("told %v", l.told)
	}
}

func TestD8_OneThresholdForAll(t *testing.T) {
	t.Parallel()
	l := running(t, beating())
	// By the worker's own wish: stale at 2 s, and ended at the same multiple.
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidWatchdog, Span: 2 * time.Second})
	l.until(2 * time.Second)
	if l.count("process.stale") != 1 {
		t.Errorf("told %v", l.told)
	}
	l.until(3999 * time.Millisecond)
	l.is(api.StateRunning, "")
	l.until(4 * time.Second)
	if l.count("process.watchdog.killed") != 1 {
		t.Errorf("told %v", l.told)
	}
	// The wish is the generation's; the next one has the definition's.
	l.until(34 * time.Second)
	l.is(api.StateRunning, "")
}

func TestWatchdogOfAWorkerWithoutHeartbeats(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidUnhealthy})
	l.is(api.StateRunning, "") // nobody asked for it to be ended
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidWatchdog, Span: time.Second})
	l.until(1500 * time.Millisecond)
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidUnhealthy, Detail: "no database"})
	l.is(api.StateStopping, api.ReasonHeartbeat)
	if l.s.LastError != "it says that it is unhealthy: no database" {
		t.Error(l.s.LastError)
	}
}

func limited(l Limits) Spec {
	sp := base()
	l.Dwell = 3 * time.Second
	sp.Limits = &l
	return sp
}

func (l *line) used(u Use) Result {
	l.t.Helper()
	return l.feed(Input{Kind: Sample, Generation: l.s.Generation, Use: u})
}

func TestQ9_ALimitMustBeOverForItsDwell(t *testing.T) {
	t.Parallel()
	l := running(t, limited(Limits{Memory: 100, CPU: 1.5, PIDs: 5, OpenFiles: 10}))
	for at, u := range map[time.Duration]Use{0: {Memory: 101}} {
		l.until(at)
		l.used(u)
	}
	l.until(time.Second)
	l.used(Use{Memory: 100}) // back within it
	l.until(2 * time.Second)
	l.used(Use{Memory: 200, CPU: 1.5, PIDs: 5, OpenFiles: 10})
	l.until(4900 * time.Millisecond)
	l.used(Use{Memory: 200})
	if l.is(api.StateRunning, ""); l.count("process.limits_exceeded") != 0 {
		t.Errorf("told %v", l.told)
	}
	l.until(5 * time.Second)
	l.used(Use{Memory: 150})
	l.is(api.StateStopping, api.ReasonLimit)
	want := map[string]any{"reason": "memory", "limit": 100.0, "value": 150.0}
	if diff := cmp.Diff(want, l.last["process.limits_exceeded"].Data); diff != "" {
		t.Error(diff)
	}
	l.until(5 * time.Second)
	if diff := cmp.Diff(want, l.last["process.watchdog.killed"].Data); diff != "" {
		t.Error(diff)
	}
	l.is(api.StateBackoff, "")
	if l.s.Exit.Cause != "limit" || l.s.LastError != "it used 150 bytes of memory, more than its limit of 100" {
		t.Errorf("%+v %s", l.s.Exit, l.s.LastError)
	}
}

func TestEachUseHasItsLimit(t *testing.T) {
	t.Parallel()
	for name, u := range map[string]Use{"memory": {Memory: 2}, "cpu": {CPU: 1.1}, "pids": {PIDs: 2}, "open_files": {OpenFiles: 2}} {
		sp := limited(Limits{Memory: 1, CPU: 1, PIDs: 1, OpenFiles: 1})
		sp.Limits.Dwell = 0
		l := running(t, sp)
		l.used(u)
		if l.last["process.limits_exceeded"].Data["reason"] != name {
			t.Errorf("%s: told %v", name, l.told)
		}
	}
}

func TestQ7_WhatFollowsALimitIsThePolicys(t *testing.T) {
	t.Parallel()
	sp := limited(Limits{Memory: 1})
	sp.Limits.Dwell, sp.Limits.OnExceed = 0, exceedStop
	l := running(t, sp)
	l.used(Use{Memory: 2})
	l.until(time.Hour)
	l.is(api.StateFailed, api.ReasonLimit)
	l.started(seconds(0))
	sp.Limits.OnExceed = exceedEvent
	l = running(t, sp)
	for _, m := range []int64{2, 3, 1, 2} {
		l.used(Use{Memory: m})
	}
	l.is(api.StateRunning, "")
	if l.count("process.limits_exceeded") != 2 {
		t.Errorf("told %v", l.told)
	}
}

func TestQ8_TheRuntimeIsTheGenerations(t *testing.T) {
	t.Parallel()
	sp := limited(Limits{Runtime: time.Minute})
	l := running(t, sp)
	l.until(30 * time.Second)
	l.exit(Exit{Code: 1})
	l.until(time.Minute + 30*time.Second)
	if l.is(api.StateRunning, ""); l.count("process.limits_exceeded") != 0 {
		t.Fatalf("a runtime outlived its generation: %v", l.told)
	}
	// It goes on over an adoption: from the start, not from then.
	l.feed(Input{Kind: Adopted, PID: 102})
	l.until(91 * time.Second)
	if l.count("process.limits_exceeded") != 1 || l.count("process.watchdog.killed") != 1 {
		t.Fatalf("told %v", l.told)
	}
	// A month is no overflow.
	sp.Limits.Runtime = 40 * 24 * time.Hour
	l = running(t, sp)
	l.until(39 * 24 * time.Hour)
	l.is(api.StateRunning, "")
}

func TestAWorkerSaysReady(t *testing.T) {
	t.Parallel()
	sp := base()
	sp.Ready = &ReadyGate{Successes: 1, Deadline: 30 * time.Second, Told: true}
	l := running(t, sp)
	if l.is(api.StateStarting, ""); l.did(DoProbeReady) {
		t.Error("it is asked although it tells by itself")
	}
	l.until(29 * time.Second)
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidExtend, Span: 20 * time.Second})
	l.until(48 * time.Second)
	l.is(api.StateStarting, "")
	l.feed(Input{Kind: WorkerSaid, Generation: 0, Said: SaidReady})
	l.is(api.StateStarting, "")
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidReady})
	l.is(api.StateRunning, "")
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidReady})
	if l.count("process.ready") != 1 {
		t.Errorf("told %v", l.told)
	}
	l = running(t, sp)
	l.until(30 * time.Second)
	if l.last["process.exited"].Data["cause"] != "boot_timeout" {
		t.Errorf("told %v", l.told)
	}
}

func TestMoreTimeToStop(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.obeys = false
	l.feed(Input{Kind: Stop})
	l.until(9 * time.Second)
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidExtend, Span: time.Minute})
	l.feed(Input{Kind: WorkerSaid, Generation: 1, Said: SaidExtend, Span: time.Second}) // never less
	l.until(68 * time.Second)
	l.is(api.StateStopping, api.ReasonRequest)
	l.feed(Input{Kind: Kill})
	l.until(68 * time.Second)
	l.is(api.StateStopped, api.ReasonRequest)
}

func TestNewDefinitionOfALiveWorker(t *testing.T) {
	t.Parallel()
	l := running(t, base())
	l.sp = beating()
	l.sp.Limits = &Limits{Runtime: time.Hour}
	l.feed(Input{Kind: Redefine})
	if l.s.Timers[TimerStale].Number == 0 || l.s.Timers[TimerRuntime].Deadline != zero.Add(time.Hour) {
		t.Errorf("%+v", l.s.Timers)
	}
	l.sp = base()
	l.feed(Input{Kind: Redefine})
	if l.s.Timers[TimerStale].Number != 0 || l.s.Timers[TimerRuntime].Number != 0 {
		t.Errorf("%+v", l.s.Timers)
	}
}
