package supervise

import (
	"fmt"

	"github.com/perdure/perdure/api"
)

// The rules of commands. Each writes Desired first.

// barred refuses a start after Shutdown.
func (m *machine) barred() bool {
	if m.s.Barrier {
		m.refused = "cannot start it: it is being shut down or removed"
	}
	return m.s.Barrier
}

func (m *machine) start() {
	if m.barred() {
		return
	}
	m.s.Desired = api.DesiredRunning
	m.closeBreaker()
	m.s.Automatic = false
	m.zero()
	m.launch()
}

func (m *machine) startLive() {
	if m.barred() {
		return
	}
	m.s.Desired = api.DesiredRunning
	m.zero()
}

func (m *machine) startFailed() {
	s := &m.s
	cooled := m.sp.Breaker.OnOpen == openCooldown && s.Reason == api.ReasonBreaker &&
		s.CooldownUntil != 0 && m.now >= s.CooldownUntil
	if !m.sp.StartResets && !m.in.Force && !cooled {
		m.refused = fmt.Sprintf("cannot start it: it is failed (%s); reset it first, then start it, or force the start", s.Detail)
		return
	}
	if !s.Barrier {
		s.RestartsBase = s.Restarts
	}
	m.start()
}

// startStopping lets the end go on and starts the next generation after it (P5, S7).
func (m *machine) startStopping() {
	if m.barred() {
		return
	}
	m.s.Desired = api.DesiredRunning
	m.zero()
	m.s.Again = true
	m.s.Detail = "being ended; it is started again as soon as nothing of it lives"
}

func (m *machine) startOrphan() {
	if m.barred() {
		return
	}
	m.s.Desired = api.DesiredRunning
}

func (m *machine) restartLive() {
	if m.barred() {
		return
	}
	m.s.Desired = api.DesiredRunning
	m.zero()
	m.s.Again = true
	m.tell("process.restarting", map[string]any{"reason": string(api.ReasonRequest)})
	m.beginStop(api.ReasonRestart, "being ended; it is started again as soon as nothing of it lives")
}

func (m *machine) stopIdle() {
	m.s.Desired = api.DesiredStopped
	m.disarmAll()
	m.settleStopped(api.ReasonRequest)
}

// stopEnded leaves the state alone: its last exit is its truth.
func (m *machine) stopEnded() {
	m.s.Desired = api.DesiredStopped
	m.disarmAll()
}

func (m *machine) stopLive() {
	m.s.Desired = api.DesiredStopped
	m.beginStop(api.ReasonRequest, "being stopped on request")
}

// stopStopping joins the end that is under way and takes back any start after it (N7, P10).
func (m *machine) stopStopping() {
	m.s.Desired = api.DesiredStopped
	m.s.Again = false
	m.s.Detail = "being stopped on request"
}

func (m *machine) killLive() {
	m.s.Desired = api.DesiredStopped
	m.s.KillAsked = true
	m.beginStop(api.ReasonRequest, "being killed on request")
}

func (m *machine) killStopping() {
	m.stopStopping()
	m.s.KillAsked = true
	if m.s.Alive {
		m.kill()
	}
}

func (m *machine) resetCounters() {
	m.s.RestartsBase = m.s.Restarts
	m.zero()
}

func (m *machine) resetToIdle() {
	m.s.Desired = api.DesiredStopped
	if m.closeBreaker(); !m.breakerOpen() && m.s.State != api.StateIdle {
		m.tell("process.reset", nil)
	}
	m.resetCounters()
	m.disarmAll()
	m.s.Automatic, m.s.Again, m.s.LastError = false, false, ""
	m.set(api.StateIdle, api.ReasonNone, "reset; it is not started until somebody starts it")
}

func (m *machine) closeBreaker() {
	if m.breakerOpen() {
		m.tell("process.breaker_reset", nil)
	}
}

func (m *machine) shutdownReason() api.Reason {
	if m.in.Reason == "" {
		return api.ReasonShutdown
	}
	return m.in.Reason
}

// shutdownEnded keeps the state, whose last exit is its truth, and starts nothing again.
func (m *machine) shutdownEnded() {
	m.s.Barrier = true
	if m.in.Reason == api.ReasonRemoved {
		m.s.Removed = true
	}
	m.disarmAll()
}

func (m *machine) shutdownIdle() {
	m.shutdownEnded()
	m.settleStopped(m.shutdownReason())
}

func (m *machine) shutdownLive() {
	m.shutdownStopping()
	m.beginStop(m.shutdownReason(), "being ended because Perdure is shut down or the process is removed")
}

// shutdownStopping lets the end go on; the timers of the end stay armed.
func (m *machine) shutdownStopping() {
	m.s.Barrier, m.s.Again = true, false
	if m.in.Reason == api.ReasonRemoved {
		m.s.Removed = true
	}
}

// redefineLive restarts for a new definition, or fits the probes to it.
func (m *machine) redefineLive() {
	if m.in.Apply && m.wanted() {
		m.s.Again = true
		m.tell("process.restarting", map[string]any{"reason": string(api.ReasonConfig)})
		m.beginStop(api.ReasonConfig, "being ended; it is started again with its new definition")
		return
	}
	if m.s.SpawnPending {
		return
	}
	if m.sp.Ready == nil && !m.s.Ready {
		m.do(DoProbeStop)
		m.becomeReady()
		m.armBeat()
		m.limitRuntime()
		return
	}
	m.armBeat()
	m.limitRuntime()
	if m.sp.Health == nil {
		m.s.Health, m.s.HealthFailures, m.s.HealthSuccesses = api.HealthUnknown, 0, 0
	}
	m.do(DoProbeStop)
	m.probe()
}

// redefineDelayed starts a changed process now; a definition that would not
// restart it any more ends the wait.
func (m *machine) redefineDelayed() {
	switch {
	case m.in.Apply:
		m.launch()
	case m.s.Exit != nil && !m.sp.restarts(m.s.Exit):
		m.notRestarted()
	}
}

func (m *machine) depsNote() { m.s.Deps, m.s.DepsDetail = m.in.Deps, m.in.Detail }

// depsDecide looks again at what waits for its dependencies (N22).
func (m *machine) depsDecide() {
	m.depsNote()
	m.launch()
}
