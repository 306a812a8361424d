package supervise

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// The timelines of the reference systems' presets, exact to the nanosecond.

func (l *line) started(want []time.Duration) {
	l.t.Helper()
	if diff := cmp.Diff(want, l.starts); diff != "" {
		l.t.Fatalf("it was started at other times (-want +got):\n%s", diff)
	}
}

func ploinky() Spec {
	sp := base()
	sp.Breaker = Breaker{Failures: 5, Window: time.Minute, Count: countExits, OnOpen: openCooldown, Cooldown: time.Minute}
	sp.Stable = Stable{From: fromHealthy, Restarts: true}
	sp.Health = &HealthWatch{Failures: 3, Successes: 1, Restart: true, Pause: 500 * time.Millisecond}
	sp.StartResets = false
	return sp
}

func TestTimelinePloinky(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"exit 1": 1, "exit 0 counts as well": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, ploinky())
			l.life = crashing(code)
			l.feed(Input{Kind: Start})
			l.until(10 * time.Minute)
			l.started(seconds(0, 1, 3, 7, 15))
			l.is(api.StateFailed, api.ReasonBreaker)
			if got := l.s.CooldownUntil; got != zero.Add(75*time.Second) {
				t.Errorf("the cooldown ends at %s, want 75s", time.Duration(got-zero))
			}
			if l.count("process.exited") != 5 || l.count("process.breaker_open") != 1 {
				t.Errorf("told %v", l.told)
			}
		})
	}
	t.Run("a start by hand is taken after the cooldown only", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, ploinky())
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(74 * time.Second)
		if r := l.feed(Input{Kind: Start}); !strings.Contains(r.Refused, "reset") {
			t.Errorf("a start during the cooldown said %q", r.Refused)
		}
		l.is(api.StateFailed, api.ReasonBreaker)
		l.until(75 * time.Second)
		l.life = nil
		if r := l.feed(Input{Kind: Start}); r.Refused != "" {
			t.Errorf("a start after the cooldown was refused: %s", r.Refused)
		}
		l.is(api.StateRunning, "")
		if len(l.s.Window) != 0 || l.count("process.breaker_reset") != 1 {
			t.Errorf("the breaker is not closed: %v, %v", l.s.Window, l.told)
		}
	})
	t.Run("three noes restart after half a second", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, ploinky())
		l.feed(Input{Kind: Start})
		l.until(90 * time.Second)
		l.health(No)
		l.health(No)
		l.health(No)
		l.until(100 * time.Second)
		l.started(seconds(0, 90.5))
		if l.s.HealthFailures != 0 {
			t.Errorf("the next generation begins with %d noes (P9)", l.s.HealthFailures)
		}
	})
}

func router() Spec {
	sp := base()
	sp.NoRestartCodes, sp.NoRestartCodeMin, sp.NoRestartSignals = []int{0, 2}, 100, []string{"SIGTERM", "SIGINT"}
	sp.Breaker = Breaker{Failures: 5, Window: time.Minute, Count: countFailures, OnOpen: openExit, ExitCode: 100}
	sp.Stable = Stable{After: time.Minute, From: fromStart, Backoff: true, Failures: true, Window: true}
	sp.ExitOnNoRestart = true
	sp.Health = &HealthWatch{Failures: 3, Successes: 1, Restart: true}
	return sp
}

func TestTimelinePloinkyRouter(t *testing.T) {
	t.Parallel()
	once := func(e Exit) func(uint64) (time.Duration, Exit) {
		return func(gen uint64) (time.Duration, Exit) {
			if gen == 1 {
				return time.Second, e
			}
			return -1, Exit{}
		}
	}
	for _, tc := range []struct {
		name  string
		exit  Exit
		again bool
		code  []int
	}{
		{"clean", Exit{}, false, []int{0}},
		{"configuration error", Exit{Code: 2}, false, []int{2}},
		{"fatal", Exit{Code: 120}, false, []int{120}},
		{"lowest fatal", Exit{Code: 100}, false, []int{100}},
		{"crash", Exit{Code: 1}, true, nil},
		{"99 is no fatal code", Exit{Code: 99}, true, nil},
		{"W5: 137 of a shell is not fatal", Exit{Code: 137}, true, nil},
		{"W5: 128 is not fatal", Exit{Code: 128}, true, nil},
		{"W4: SIGTERM of somebody else ends with 143", Exit{Code: 143, Signal: "SIGTERM"}, false, []int{143}},
		{"SIGKILL", Exit{Code: 137, Signal: "SIGKILL"}, true, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, router())
			l.life = once(tc.exit)
			l.feed(Input{Kind: Start})
			l.until(time.Minute)
			if again := l.s.Generation == 2; again != tc.again {
				t.Errorf("restarted: %v, want %v (%s)", again, tc.again, l.s.Detail)
			}
			if diff := cmp.Diff(tc.code, l.codes); diff != "" {
				t.Errorf("ended Perdure with other codes:\n%s", diff)
			}
		})
	}
	t.Run("W1: the fifth crash ends Perdure with 100", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, router())
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(time.Hour)
		l.started(seconds(0, 1, 3, 7, 15))
		l.is(api.StateFailed, api.ReasonBreaker)
		if diff := cmp.Diff([]int{100}, l.codes); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a health kill restarts even with code 0", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, router())
		l.obeys = false
		l.feed(Input{Kind: Start})
		l.health(No)
		l.health(No)
		l.health(No)
		l.is(api.StateStopping, api.ReasonHealth)
		l.exit(Exit{Code: 0})
		l.is(api.StateBackoff, "")
	})
	t.Run("an hour of life sets the wait back", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, router())
		l.life = func(gen uint64) (time.Duration, Exit) {
			if gen == 4 {
				return time.Hour, Exit{Code: 1}
			}
			return 0, Exit{Code: 1}
		}
		l.feed(Input{Kind: Start})
		l.until(2 * time.Hour)
		const h = 3600
		l.started(seconds(0, 1, 3, 7, h+7+1, h+7+3, h+7+7, h+7+15))
	})
}

func shogo() Spec {
	sp := base()
	sp.Restart = api.RestartOnFailure
	sp.Backoff = Backoff{Initial: time.Second, Max: time.Minute, Multiplier: 2, Jitter: api.Jitter{Mode: "add", Frac: 0.2}}
	sp.Breaker = Breaker{Failures: 8, Window: 5 * time.Minute, Gap: true, Count: countFailures, OnOpen: openPark}
	sp.Stable = Stable{After: time.Minute, From: fromReady, Backoff: true, Failures: true}
	sp.StartResets, sp.ReapAlways = false, false
	return sp
}

// Keeps out S15.
func TestTimelineShogo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		roll float64
		want time.Duration
	}{{"no jitter", 0, 123 * time.Second}, {"all jitter", 1, 147600 * time.Millisecond}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, shogo())
			l.life, l.roll = crashing(1), tc.roll
			l.feed(Input{Kind: Start})
			l.until(time.Hour)
			l.is(api.StateFailed, api.ReasonBreaker)
			if len(l.starts) != 8 || l.starts[7] != tc.want {
				t.Fatalf("started at %v, want the 8th at %s", l.starts, tc.want)
			}
			if r := l.feed(Input{Kind: Start}); r.Refused == "" {
				t.Error("a start of a parked process was taken without a reset")
			}
			l.feed(Input{Kind: Reset})
			l.is(api.StateIdle, "")
			l.life = nil
			l.feed(Input{Kind: Start})
			l.is(api.StateRunning, "")
		})
	}
	// gaps plays lives so that each failure comes so long after the one before.
	gaps := func(t *testing.T, gap time.Duration, n int) *line {
		t.Helper()
		sp := shogo()
		sp.Backoff = Backoff{Fixed: true, Initial: time.Second}
		sp.Stable = Stable{After: 24 * time.Hour, From: fromReady}
		l := newLine(t, sp)
		l.life = func(uint64) (time.Duration, Exit) { return gap - time.Second, Exit{Code: 1} }
		l.feed(Input{Kind: Start})
		l.until(time.Duration(n)*gap - time.Second)
		return l
	}
	t.Run("eight failures spread over 35 minutes still trip", func(t *testing.T) {
		t.Parallel()
		l := gaps(t, 5*time.Minute, 8)
		l.is(api.StateFailed, api.ReasonBreaker)
	})
	t.Run("a gap over five minutes starts the count again", func(t *testing.T) {
		t.Parallel()
		l := gaps(t, 5*time.Minute+time.Nanosecond, 20)
		l.is(api.StateBackoff, "")
		if len(l.s.Window) != 1 {
			t.Errorf("%d failures are counted, want 1", len(l.s.Window))
		}
	})
	t.Run("a clean exit is final and counts nowhere", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, shogo())
		l.life = crashing(0)
		l.feed(Input{Kind: Start})
		l.until(time.Hour)
		l.started(seconds(0))
		l.is(api.StateExited, "")
		if len(l.s.Window) != 0 || l.s.Failures != 0 {
			t.Error("the clean exit was counted")
		}
	})
}

func pidnap() Spec {
	sp := base()
	sp.Backoff = Backoff{Fixed: true, Initial: time.Second}
	sp.Breaker = Breaker{Failures: 5, Window: time.Minute, Count: countRestarts, OnOpen: openRetry, Cooldown: time.Minute}
	sp.Stable = Stable{From: fromStart, Backoff: true, Failures: true}
	sp.SignalIsFailure = false
	return sp
}

func TestTimelinePidnap(t *testing.T) {
	t.Parallel()
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, pidnap())
		l.life = crashing(0)
		l.feed(Input{Kind: Start})
		l.until(63 * time.Second)
		l.started(seconds(0, 1, 2, 3, 4))
		l.is(api.StateCrashLoop, api.ReasonBreaker)
		l.until(127 * time.Second)
		l.started(seconds(0, 1, 2, 3, 4, 64, 65, 66, 67, 68))
		l.is(api.StateCrashLoop, api.ReasonBreaker)
		l.until(128 * time.Second)
		if l.s.Generation != 11 {
			t.Errorf("it is not tried again after the second crash loop: %s", l.s.Detail)
		}
		if len(l.s.Window) != 1 {
			t.Errorf("the window was not cleared: %d", len(l.s.Window))
		}
	})
	t.Run("min uptime 10 s", func(t *testing.T) {
		t.Parallel()
		sp := pidnap()
		sp.Backoff = Backoff{Initial: time.Second, Max: 10 * time.Second, Multiplier: 2, FirstExponent: 1}
		sp.Stable.After = 10 * time.Second
		l := newLine(t, sp)
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(83 * time.Second)
		l.started(seconds(0, 2, 6, 14, 24))
		l.is(api.StateCrashLoop, api.ReasonBreaker)
		l.until(84 * time.Second)
		if len(l.starts) != 6 || l.starts[5] != 84*time.Second {
			t.Errorf("after the crash loop: %v", l.starts)
		}
	})
	t.Run("min uptime 10 s: after a stable run initial once more", func(t *testing.T) {
		t.Parallel()
		sp := pidnap()
		sp.Backoff = Backoff{Initial: time.Second, Max: 10 * time.Second, Multiplier: 2, FirstExponent: 1}
		sp.Stable.After = 10 * time.Second
		sp.Breaker = Breaker{}
		l := newLine(t, sp)
		l.life = func(gen uint64) (time.Duration, Exit) {
			if gen == 3 {
				return 20 * time.Second, Exit{Code: 1}
			}
			return 0, Exit{Code: 1}
		}
		l.feed(Input{Kind: Start})
		l.until(34 * time.Second)
		l.started(seconds(0, 2, 6, 27, 29, 33))
	})
}

func donkeylabs() Spec {
	sp := base()
	sp.Backoff.FirstExponent = 1
	sp.MaxRestarts, sp.MaxRestartsScope = 9, scopeConsecutive
	sp.Breaker = Breaker{}
	sp.Stable = Stable{After: time.Hour, From: fromStart}
	return sp
}

// Keeps out Q10.
func TestTimelineDonkeylabs(t *testing.T) {
	t.Parallel()
	t.Run("dead on the tenth failure", func(t *testing.T) {
		t.Parallel()
		l := newLine(t, donkeylabs())
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(time.Hour)
		l.started(seconds(0, 2, 6, 14, 30, 60, 90, 120, 150, 180))
		l.is(api.StateFailed, api.ReasonMaxRestarts)
		if got := l.last["process.max_restarts"].Data["restarts"]; got != 9 {
			t.Errorf("told %v restarts, want 9", got)
		}
	})
	t.Run("jitter scales after the cap", func(t *testing.T) {
		t.Parallel()
		sp := donkeylabs()
		sp.Backoff.Jitter = api.Jitter{Mode: "scale", Lo: 0.5, Hi: 1.5}
		l := newLine(t, sp)
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(30 * time.Second)
		l.started(seconds(0, 1, 3, 7, 15, 30))
		l.roll = 1
		l.until(45*time.Second + time.Minute)
		if got := l.starts[7] - l.starts[6]; got != 45*time.Second {
			t.Errorf("the longest wait is %s, want 45s", got)
		}
	})
	t.Run("none is none", func(t *testing.T) {
		t.Parallel()
		sp := donkeylabs()
		sp.MaxRestarts = 0
		l := newLine(t, sp)
		l.life = crashing(1)
		l.feed(Input{Kind: Start})
		l.until(time.Hour)
		l.started(seconds(0))
		l.is(api.StateFailed, api.ReasonMaxRestarts)
	})
}
