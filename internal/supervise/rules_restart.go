package supervise

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/perdure/perdure/api"
)

// The words of Spec's text fields.
const (
	fromStart   = "start"
	fromReady   = "ready"
	fromHealthy = "healthy"

	countExits    = "exits"
	countFailures = "failures"
	countRestarts = "restarts"

	openPark     = "park"
	openCooldown = "cooldown"
	openRetry    = "retry"
	openExit     = "exit"

	scopeLifetime    = "lifetime"
	scopeConsecutive = "consecutive"
)

// decide is what follows an end that nobody asked for: stability, counters,
// policy, breaker, max_restarts, wait; in this order.
func (m *machine) decide() {
	s, e := &m.s, m.s.Exit
	if e == nil {
		// An end without a record: nothing to judge by.
		m.notRestarted()
		return
	}
	m.judge(e)
	full := false
	if c := m.sp.Breaker.Count; c == countExits || c != countRestarts && e.Failure {
		full = m.count()
	}
	if !m.sp.restarts(e) {
		m.notRestarted()
		return
	}
	if m.sp.Breaker.Count == countRestarts {
		full = m.count()
	}
	spent := m.spent()
	switch {
	case full && !(m.sp.Breaker.OnOpen == openRetry && spent):
		m.openBreaker()
	case spent:
		m.fail(api.ReasonMaxRestarts, fmt.Sprintf("%s after %d restarts, which is all that max_restarts allows; start it again by hand",
			describe(e), m.counted()))
		m.tell("process.max_restarts", map[string]any{"restarts": m.counted()})
	default:
		s.Restarts++
		s.Budget++
		m.restartAfter(m.delay(e))
	}
}

// judge applies stability and counts the end for the failures and the backoff.
func (m *machine) judge(e *Exit) {
	s, st := &m.s, &m.sp.Stable
	if !s.WasStable && s.StartedAt != 0 {
		if since := m.stableSince(); since != 0 && s.ExitedAt.Sub(since) >= st.After {
			m.becomeStable()
		}
	}
	if s.WasStable && st.Backoff {
		s.BackoffN = 1 - m.sp.Backoff.FirstExponent
	} else {
		s.BackoffN++
	}
	if e.Failure {
		s.Failures++
	} else {
		s.Failures = 0
	}
}

// stableSince is the instant from which stability is counted, 0 if it was never reached.
func (m *machine) stableSince() Instant {
	switch m.stableFrom() {
	case fromHealthy:
		return m.s.HealthyAt
	case fromReady:
		return m.s.ReadyAt
	default:
		return m.s.StartedAt
	}
}

// stableFrom is Stable.From; without a health probe, healthy means ready.
func (m *machine) stableFrom() string {
	if m.sp.Stable.From == fromHealthy && m.sp.Health == nil {
		return fromReady
	}
	if m.sp.Stable.From == "" {
		return fromStart
	}
	return m.sp.Stable.From
}

// reached arms the judgement of stability when its beginning is reached. A
// span of nothing from the start is judged at the exit: it is then always stable.
func (m *machine) reached(from string, at Instant) {
	if from != m.stableFrom() || m.s.WasStable {
		return
	}
	switch after := m.sp.Stable.After; {
	case after > 0:
		m.arm(TimerStable, at.Add(after))
	case from != fromStart:
		m.becomeStable()
	}
}

// becomeStable sets back what Stable says, once per generation.
func (m *machine) becomeStable() {
	s, st := &m.s, &m.sp.Stable
	if s.WasStable {
		return
	}
	s.WasStable = true
	if st.Backoff {
		s.BackoffN = 0
	}
	if st.Failures {
		s.Failures = 0
	}
	if st.Window {
		s.Window, s.CooldownUntil = nil, 0
	}
	if st.Restarts {
		s.Budget = 0
	}
}

// count puts the end into the breaker's window and says whether it is full.
func (m *machine) count() bool {
	s, b := &m.s, &m.sp.Breaker
	if b.Failures <= 0 {
		return false
	}
	at := s.ExitedAt
	kept := s.Window
	if b.Gap {
		if n := len(kept); n > 0 && at.Sub(kept[n-1]) > b.Window {
			kept = nil
		}
	} else {
		for len(kept) > 0 && at.Sub(kept[0]) >= b.Window {
			kept = kept[1:]
		}
	}
	// One more than Failures is never needed; the copy keeps the caller's slice whole.
	if over := len(kept) - (b.Failures - 1); over > 0 {
		kept = kept[over:]
	}
	w := make([]Instant, len(kept), len(kept)+1)
	copy(w, kept)
	s.Window = append(w, at)
	return len(s.Window) >= b.Failures
}

// restarts says whether the policy restarts after the end. An end by Perdure
// itself for bad health, a late boot, missing heartbeats or a limit is restarted by every policy but never.
func (sp *Spec) restarts(e *Exit) bool {
	switch sp.Restart {
	case api.RestartNever:
		return false
	case api.RestartOnFailure:
		if !e.Failure {
			return false
		}
	case api.RestartOnSuccess:
		if e.Failure && e.Cause != string(api.ReasonHealth) && e.Cause != string(api.ReasonBootTimeout) &&
			e.Cause != causeHeartbeat && e.Cause != string(api.ReasonLimit) {
			return false
		}
	}
	if e.Cause == string(api.ReasonLimit) && sp.Limits != nil && sp.Limits.OnExceed == exceedStop {
		return false
	}
	if e.Cause != "exit" {
		return true // the code and the signal are not the program's own word
	}
	if e.Signal != "" {
		return !slices.Contains(sp.NoRestartSignals, e.Signal)
	}
	if slices.Contains(sp.NoRestartCodes, e.Code) {
		return false
	}
	return sp.NoRestartCodeMin <= 0 || e.Code < sp.NoRestartCodeMin || e.Code >= 128
}

// notRestarted ends in exited or failed.
func (m *machine) notRestarted() {
	e := m.s.Exit
	code := 1
	switch {
	case e == nil:
		m.fail(api.ReasonExit, "ended, and nobody knows how; start it again by hand")
		m.tell("process.error", map[string]any{"error": m.s.Detail})
	case e.Cause == causeSpawnError:
		code = e.Code
		m.fail(api.ReasonSpawnError, "could not be spawned ("+m.s.LastError+"); correct it and start it again")
		if m.in.Kind != SpawnFailed { // else it is told already
			m.tell("process.error", map[string]any{"error": m.s.Detail})
		}
	case e.Failure:
		if !e.Unknown {
			code = e.Code
		}
		m.fail(failReason(e), describe(e)+" and is not restarted, as its definition says; start it again by hand")
		m.tell("process.error", map[string]any{"error": m.s.Detail})
	default:
		code = e.Code
		m.disarmAll()
		m.s.Automatic = false
		switch m.s.State { // elsewhere process.exited, in this same step, tells it
		case api.StateStopping:
			m.tell("process.stopped", map[string]any{"reason": string(api.ReasonLeftovers)})
		case api.StateBackoff, api.StateCrashLoop:
			m.tell("process.stopped", map[string]any{"reason": string(api.ReasonConfig)})
		}
		m.set(api.StateExited, api.ReasonNone, describe(e)+" and is not restarted, as its definition says")
	}
	if m.sp.ExitOnNoRestart {
		m.exit(code)
	}
}

func failReason(e *Exit) api.Reason {
	switch r := api.Reason(e.Cause); r {
	case api.ReasonBootTimeout, api.ReasonHealth, api.ReasonLimit, api.ReasonHeartbeat:
		return r
	}
	return api.ReasonExit
}

// exit asks that Perdure end. The wish is part of the state: whoever asks may be
// dead before anybody has heard it.
func (m *machine) exit(code int) {
	m.s.Leave = &code
	m.effects = append(m.effects, Effect{Do: DoExit, Generation: m.s.Generation, Code: code})
}

func (m *machine) openBreaker() {
	s, b := &m.s, &m.sp.Breaker
	n := len(s.Window)
	m.tell("process.breaker_open", map[string]any{"failures": n, "window_ms": ms(b.Window), "on_open": b.OnOpen})
	what := b.Count
	if what == "" {
		what = countFailures
	}
	opened := fmt.Sprintf("%s; breaker open after %d %s in %s", describe(s.Exit), n, what, b.Window)
	if b.Gap {
		opened = fmt.Sprintf("%s; breaker open after %d %s, each within %s of the one before", describe(s.Exit), n, what, b.Window)
	}
	switch b.OnOpen {
	case openRetry:
		m.set(api.StateCrashLoop, api.ReasonBreaker, opened+"; it is tried again in "+brief(b.Cooldown))
		m.arm(TimerStart, m.now.Add(b.Cooldown))
	case openCooldown:
		m.fail(api.ReasonBreaker, opened+"; a start by hand is taken "+brief(b.Cooldown)+" after that")
		s.CooldownUntil = m.now.Add(b.Cooldown)
	case openExit:
		m.fail(api.ReasonBreaker, opened+"; Perdure ends, as its definition says")
		m.exit(b.ExitCode)
	default:
		how := "`perdure reset NAME` and `perdure start NAME`"
		if m.sp.StartResets {
			how = "`perdure start NAME`"
		}
		m.fail(api.ReasonBreaker, opened+"; start it again with "+how)
	}
}

// counted is the number that max_restarts bounds, spent whether it is reached.
func (m *machine) counted() int {
	switch m.sp.MaxRestartsScope {
	case scopeLifetime:
		return m.s.Restarts - m.s.RestartsBase
	case scopeConsecutive:
		return max(0, m.s.Failures-1)
	default:
		return m.s.Budget
	}
}

func (m *machine) spent() bool {
	if m.sp.MaxRestarts < 0 {
		return false
	}
	if m.sp.MaxRestartsScope == scopeConsecutive {
		return m.s.Failures > m.sp.MaxRestarts
	}
	return m.counted() >= m.sp.MaxRestarts
}

// delay is the wait before the automatic restart after e.
func (m *machine) delay(e *Exit) time.Duration {
	s := &m.s
	if w := m.sp.Health; w != nil && e.Cause == string(api.ReasonHealth) {
		if w.Backoff != nil {
			if w.Backoff.ResetAfter > 0 && e.Uptime >= w.Backoff.ResetAfter {
				s.HealthRestarts = 0
			}
			d := w.Backoff.wait(s.HealthRestarts+w.Backoff.FirstExponent, m.in.Roll)
			s.HealthRestarts++
			return d
		}
		if w.Pause > 0 {
			return w.Pause
		}
	}
	d := m.sp.Backoff.wait(s.BackoffN-1+m.sp.Backoff.FirstExponent, m.in.Roll)
	if e.Cause == string(api.ReasonSpawnError) {
		return max(d, minSpawnWait)
	}
	return d
}

// minSpawnWait is the least wait after a failed spawn. Nothing ran, so nothing
// slows the next try down: without a floor a backoff of nothing would spin.
const minSpawnWait = 100 * time.Millisecond

// restartAfter orders an automatic restart; without a wait in this very Step.
func (m *machine) restartAfter(d time.Duration) {
	s := &m.s
	s.Automatic = true
	if d <= 0 {
		m.launch()
		return
	}
	m.set(api.StateBackoff, api.ReasonNone, fmt.Sprintf("%s; restart %d in %s", describe(s.Exit), s.Budget, brief(d)))
	m.tell("process.backoff", map[string]any{"delay_ms": ms(d), "attempt": s.Budget})
	m.arm(TimerStart, m.now.Add(d))
}

// timerBackoff starts what has waited.
func (m *machine) timerBackoff() {
	if m.in.Timer == TimerStart {
		m.launch()
	}
}

// timerCrashLoop tries a process again whose breaker was open.
func (m *machine) timerCrashLoop() {
	if m.in.Timer != TimerStart {
		return
	}
	s := &m.s
	s.Window = nil
	s.Restarts++
	s.Budget++
	s.Automatic = true
	m.launch()
}

// maxWait bounds every wait, so that no arithmetic on instants overflows.
const maxWait = 10 * 365 * 24 * time.Hour

// wait is Initial*Multiplier^exponent, at most Max, then jitter. It never
// overflows: the power is bounded before it becomes a duration.
func (b *Backoff) wait(exponent int, roll float64) time.Duration {
	if b.Initial <= 0 {
		return 0
	}
	d := float64(b.Initial)
	if !b.Fixed {
		limit := b.Max
		if limit <= 0 || limit > maxWait {
			limit = maxWait
		}
		d = min(d*math.Pow(b.Multiplier, float64(max(0, exponent))), float64(limit))
	}
	switch b.Jitter.Mode {
	case "add":
		d *= 1 + roll*b.Jitter.Frac
	case "scale":
		d *= b.Jitter.Lo + roll*(b.Jitter.Hi-b.Jitter.Lo)
	}
	return time.Duration(math.Round(min(max(d, 0), float64(maxWait))))
}
