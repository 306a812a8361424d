package supervise

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/api"
)

// heartbeats is the watch that is in force, or nil: the worker's own wish
// (WATCHDOG_USEC of sd_notify(3)) goes before the definition's timeout.
func (m *machine) heartbeats() *HeartbeatWatch {
	own := m.s.Worker.Watchdog
	switch w := m.sp.Heartbeat; {
	case own <= 0:
		return w
	case w == nil:
		return &HeartbeatWatch{Timeout: own, Kill: 2 * own, Grace: own}
	default:
		c := *w
		c.Timeout = own
		if c.Kill > 0 {
			// The same multiple of the timeout as the definition has.
			c.Kill = max(own, time.Duration(float64(own)*float64(w.Kill)/float64(max(1, w.Timeout))))
		}
		return &c
	}
}

// watch begins the watch of a generation, at its start and at its adoption: what
// it sent while nobody listened is not held against it.
func (m *machine) watch() {
	w := &m.s.Worker
	w.From, w.LastBeat = m.now, 0
	m.armBeat()
}

// armBeat arms the timer for when the next thing about heartbeats is to be done.
func (m *machine) armBeat() {
	h := m.heartbeats()
	if h == nil {
		m.disarm(TimerStale)
		m.s.Worker.Stale = false
		return
	}
	due := m.beatDue(h)
	switch {
	case m.s.Worker.Stale && h.Kill <= 0:
		m.disarm(TimerStale)
		return
	case m.s.Worker.Stale:
		due = due.Add(max(0, h.Kill-h.Timeout))
	case m.s.Worker.LastBeat == 0:
		// One that came meanwhile is only seen when the timer fires.
		due = min(due, m.now.Add(h.Timeout))
	}
	m.arm(TimerStale, max(due, m.now))
}

// beatDue is when the next heartbeat is due.
func (m *machine) beatDue(h *HeartbeatWatch) Instant {
	w := &m.s.Worker
	if w.LastBeat != 0 {
		return w.LastBeat.Add(h.Timeout)
	}
	return w.From.Add(max(h.Grace, h.Timeout))
}

// heartbeat takes a heartbeat; only the first one after a missed one is fed in.
func (m *machine) heartbeat() {
	m.seen(m.in.Beat)
	if m.s.Worker.Stale {
		m.beatsAgain()
		m.armBeat()
	}
}

// seen notes the last heartbeat, if it is of this generation.
func (m *machine) seen(beat Instant) {
	if w := &m.s.Worker; beat >= w.From && beat > w.LastBeat {
		w.LastBeat = min(beat, m.now)
	}
}

func (m *machine) beatsAgain() {
	m.s.Worker.Stale = false
	m.tell("process.heartbeat_ok", nil)
}

// timerStale compares with the last heartbeat, which came without any input: no
// heartbeat arms a timer.
func (m *machine) timerStale() {
	h := m.heartbeats()
	if h == nil {
		return
	}
	w := &m.s.Worker
	m.seen(m.in.Beat)
	due := m.beatDue(h)
	switch {
	case m.now < due:
		if w.Stale {
			m.beatsAgain()
		}
	case !w.Stale:
		w.Stale = true
		m.tell("process.stale", map[string]any{"timeout_ms": ms(h.Timeout), "since_ms": ms(m.now.Sub(max(w.LastBeat, w.From)))})
	case h.Kill > 0 && m.now >= due.Add(max(0, h.Kill-h.Timeout)):
		m.sentence(api.ReasonHeartbeat, Sentence{Reason: causeHeartbeat},
			"no heartbeat for "+brief(m.now.Sub(max(w.LastBeat, w.From))))
		return
	}
	m.armBeat()
}

// sentence ends a generation for what its workers did, in the one way there is.
func (m *machine) sentence(cause api.Reason, why Sentence, text string) {
	m.s.LastError = text
	m.s.Worker.Ended = &why
	m.beginStop(cause, "being ended: "+text)
}

// confirmed tells of the end that sentence began, once nothing lives any more.
func (m *machine) confirmed() {
	e := m.s.Worker.Ended
	if e == nil {
		return
	}
	m.s.Worker.Ended = nil
	if e.Reason == causeHeartbeat {
		m.tell("process.watchdog.killed", map[string]any{"reason": e.Reason})
		return
	}
	m.tell("process.watchdog.killed", map[string]any{"reason": e.Reason, "value": e.Value, "limit": e.Limit})
}

// said takes what a worker says of itself.
func (m *machine) said() {
	switch m.in.Said {
	case SaidReady:
		if g := m.sp.Ready; g != nil && g.Told && !m.s.Ready {
			m.becomeReady()
		}
	case SaidUnhealthy:
		m.unhealthy()
	case SaidExtend:
		if t := m.s.Timers[TimerReady]; t.Number != 0 {
			m.arm(TimerReady, max(t.Deadline, m.now.Add(m.in.Span)))
		}
	case SaidWatchdog:
		m.s.Worker.Watchdog = m.in.Span
		m.s.Worker.LastBeat = m.now
		m.armBeat()
	}
}

// unhealthy ends a generation at its own word, where heartbeats are watched.
func (m *machine) unhealthy() {
	if h := m.heartbeats(); h == nil || h.Kill <= 0 {
		return
	}
	text := "it says that it is unhealthy"
	if m.in.Detail != "" {
		text += ": " + m.in.Detail
	}
	m.sentence(api.ReasonHeartbeat, Sentence{Reason: causeHeartbeat}, text)
}

// saidStopping takes the wish for more time to stop. The end itself goes on.
func (m *machine) saidStopping() {
	if t := m.s.Timers[TimerGrace]; m.in.Said == SaidExtend && t.Number != 0 && !m.s.KillAsked {
		m.arm(TimerGrace, max(t.Deadline, m.now.Add(m.in.Span)))
	}
}

// sample compares what was measured with the limits.
func (m *machine) sample() {
	l := m.sp.Limits
	if !l.Measured() {
		return
	}
	u := m.in.Use
	for _, c := range [numUses]struct {
		name         string
		value, limit float64
		text         string
	}{
		useMemory:    {"memory", float64(u.Memory), float64(l.Memory), "bytes of memory"},
		useCPU:       {"cpu", u.CPU, l.CPU, "cores"},
		usePIDs:      {"pids", float64(u.PIDs), float64(l.PIDs), "processes"},
		useOpenFiles: {"open_files", float64(u.OpenFiles), float64(l.OpenFiles), "open files"},
	} {
		if m.over(c.name, c.value, c.limit, c.text) {
			return
		}
	}
}

func useOf(name string) int {
	switch name {
	case "memory":
		return useMemory
	case "cpu":
		return useCPU
	case "pids":
		return usePIDs
	}
	return useOpenFiles
}

// over says whether the generation is ended for one use.
func (m *machine) over(name string, value, limit float64, what string) bool {
	w, i := &m.s.Worker, useOf(name)
	if limit <= 0 || value <= limit {
		w.Over[i], w.Told[i] = 0, false
		return false
	}
	if w.Over[i] == 0 {
		w.Over[i] = m.now
	}
	if m.now.Sub(w.Over[i]) < m.sp.Limits.Dwell {
		return false
	}
	return m.exceeded(i, Sentence{Reason: name, Value: value, Limit: limit},
		fmt.Sprintf("it used %v %s, more than its limit of %v", value, what, limit))
}

// exceeded tells that a limit is exceeded, and ends the generation where that is
// what the definition says. use is below 0 for the runtime.
func (m *machine) exceeded(use int, why Sentence, text string) bool {
	l := m.sp.Limits
	if use >= 0 && m.s.Worker.Told[use] {
		return false
	}
	m.tell("process.limits_exceeded", map[string]any{"reason": why.Reason, "limit": why.Limit, "value": why.Value})
	if l.OnExceed == exceedEvent {
		if use >= 0 {
			m.s.Worker.Told[use] = true
		}
		m.s.LastError = text
		return false
	}
	m.sentence(api.ReasonLimit, why, text)
	return true
}

// timerRuntime ends what has run for as long as it may.
func (m *machine) timerRuntime() {
	l := m.sp.Limits
	if l == nil || l.Runtime <= 0 {
		return
	}
	ran := m.now.Sub(m.s.StartedAt)
	m.exceeded(-1, Sentence{Reason: "runtime", Value: ran.Seconds(), Limit: l.Runtime.Seconds()},
		"it has run for "+brief(ran)+", longer than its limit of "+l.Runtime.String())
}

// limitRuntime arms the end of the runtime, from the start of the generation.
func (m *machine) limitRuntime() {
	if l := m.sp.Limits; l != nil && l.Runtime > 0 && m.s.StartedAt != 0 {
		m.arm(TimerRuntime, max(m.now, m.s.StartedAt.Add(l.Runtime)))
		return
	}
	m.disarm(TimerRuntime)
}
