package supervise

import "github.com/perdure/perdure/api"

// adopted takes up what the supervisor before had under way. Effects may have
// been lost with it, so those of the recorded state are ordered once more.
func (m *machine) adopted() {
	s := &m.s
	if m.in.NewBoot {
		m.forgetClock()
	}
	s.Barrier = s.Removed
	if m.in.Over {
		s.Leave = nil
	}
	switch {
	case s.SpawnPending:
		m.adoptSpawn()
	case s.Alive && m.in.PID != 0:
		s.PID = m.in.PID
		m.adoptLive()
	case s.Alive && s.PID != 0:
		m.adoptEnd()
	case s.Alive && m.in.Leftovers:
		m.adoptStopping()
	case s.Alive:
		m.finish()
	default:
		m.adoptDead()
	}
}

// adoptEnd takes the end of a leader that nobody has seen.
func (m *machine) adoptEnd() {
	m.in.Gone = !m.in.Leftovers
	ending := m.s.State == api.StateStopping
	m.exited()
	if ending && m.in.Leftovers {
		m.adoptStopping()
	}
}

// adoptSpawn settles a spawn whose outcome nobody has recorded. With nothing
// left of it, it may have run to its end or never have begun. Unknown is not
// "has not run": an end is told, with an unknown code, and where the policy does
// not restart after that it stays failed, so that what is meant to run once does
// not run twice. Else it is ordered again at once, uncounted: that the
// supervisor died is no fault of the process.
func (m *machine) adoptSpawn() {
	s := &m.s
	if m.in.PID != 0 {
		m.spawned()
		return
	}
	s.SpawnPending, s.Alive = false, true
	m.in.Exit.Unknown = true
	if s.State == api.StateStopping || m.in.Leftovers {
		m.adoptEnd()
		return
	}
	e := Exit{Generation: s.Generation, Unknown: true, Failure: true, Cause: "unknown"}
	s.PID, s.Alive, s.Exit, s.ExitedAt = 0, false, &e, m.now
	m.tellExit(&e)
	if m.sp.restarts(&e) {
		m.launch()
		return
	}
	m.finish()
}

func (m *machine) adoptLive() {
	s := &m.s
	if s.State == api.StateOrphaned {
		m.placeOrphan()
	}
	switch {
	case s.State == api.StateStopping:
		m.adoptStopping()
	case s.Desired != api.DesiredRunning:
		m.beginStop(api.ReasonRequest, "being stopped on request")
	default:
		m.rearm(TimerReady)
		m.rearm(TimerStable)
		m.watch()
		m.limitRuntime()
		m.probe()
	}
}

func (m *machine) placeOrphan() {
	s := &m.s
	switch {
	case s.StopCause != "":
		m.set(api.StateStopping, s.StopCause, "being ended")
	case m.sp.Ready != nil && !s.Ready && s.Timers[TimerReady].Number != 0:
		m.set(api.StateStarting, api.ReasonNone, "adopted; not ready yet")
	default:
		m.set(api.StateRunning, api.ReasonNone, "running; adopted")
	}
}

// adoptStopping goes on with an end: a lost signal is sent again, the grace
// that was given stays as it was.
func (m *machine) adoptStopping() {
	s := &m.s
	switch {
	case s.Killed:
		m.do(DoKill)
		m.arm(TimerKill, m.now.Add(max(m.sp.KillWait, minKillWait)))
	case s.Timers[TimerGrace].Number != 0:
		m.signal()
		m.rearm(TimerGrace)
	default:
		m.terminate()
	}
}

func (m *machine) adoptDead() {
	switch m.s.State {
	case api.StateBackoff, api.StateCrashLoop:
		if m.s.Timers[TimerStart].Number == 0 {
			m.launch()
			return
		}
		m.rearm(TimerStart)
	case api.StateStarting, api.StateRunning, api.StateStopping, api.StateOrphaned:
		// A record that says it lives, of which nothing lives and no end is known.
		m.finish()
	default:
		if m.s.Leave != nil {
			m.exit(*m.s.Leave)
		}
	}
}

func (m *machine) rearm(id TimerID) {
	if t := m.s.Timers[id]; t.Number != 0 {
		m.arm(id, t.Deadline)
	}
}

// forgetClock drops what was measured by the clock of another boot.
func (m *machine) forgetClock() {
	s := &m.s
	s.Window, s.CooldownUntil = nil, min(s.CooldownUntil, m.now)
	s.StartedAt, s.ReadyAt, s.HealthyAt = 0, 0, 0
	for id := range s.Timers {
		if s.Timers[id].Number != 0 {
			s.Timers[id].Deadline = m.now
		}
	}
}
