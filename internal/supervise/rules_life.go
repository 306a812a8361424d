package supervise

import "github.com/perdure/perdure/api"

// causeSpawnError is the cause of an Exit of which nothing ran.
const causeSpawnError = "spawn_error"

// spawned begins the life of a generation. A stop that came meanwhile is
// carried out now.
func (m *machine) spawned() {
	s := &m.s
	s.PID, s.Alive, s.SpawnPending = m.in.PID, true, false
	s.Starts++
	s.StartedAt = m.now
	m.tell("process.started", map[string]any{"pid": s.PID, "generation": s.Generation})
	if s.State == api.StateStopping || !m.wanted() {
		m.stopLate()
		return
	}
	if s.Automatic {
		s.Automatic = false
		m.tell("process.restarted", map[string]any{"attempt": s.Budget})
	}
	m.reached(fromStart, m.now)
	m.watch()
	m.limitRuntime()
	if m.sp.Ready == nil {
		m.becomeReady()
		return
	}
	s.Detail = "spawned; not ready yet"
	if !m.sp.Ready.Told {
		m.do(DoProbeReady)
	}
	if m.sp.Ready.Deadline > 0 {
		m.arm(TimerReady, m.now.Add(m.sp.Ready.Deadline))
	}
}

// stopLate ends a generation whose stop was asked for before it was spawned.
func (m *machine) stopLate() {
	m.s.Automatic = false
	if m.s.State != api.StateStopping {
		m.beginStop(api.ReasonRequest, "being stopped on request")
		return
	}
	m.terminate()
}

// spawnFailed is a failure like an exit, but nothing ran: process.exited is not told.
func (m *machine) spawnFailed() {
	s := &m.s
	s.SpawnPending = false
	s.LastError = m.in.Error
	s.Exit = &Exit{Generation: s.Generation, Code: 127, Failure: true, Cause: causeSpawnError}
	s.ExitedAt = m.now
	m.tell("process.error", map[string]any{"error": m.in.Error})
	m.finish()
}

// becomeReady passes the gate, or says that there is none.
func (m *machine) becomeReady() {
	s := &m.s
	m.disarm(TimerReady)
	s.Ready, s.ReadyAt, s.ReadyRun = true, m.now, 0
	m.set(api.StateRunning, api.ReasonNone, "running")
	m.tell("process.ready", nil)
	if m.sp.Health != nil {
		m.do(DoProbeHealth)
	}
	m.reached(fromReady, m.now)
}

func (m *machine) readyAnswer() {
	s, gate := &m.s, m.sp.Ready
	if gate == nil || s.Ready {
		return
	}
	switch m.in.Answer {
	case Yes:
		s.ReadyRun++
		if s.ReadyRun >= max(1, gate.Successes) {
			m.do(DoProbeStop)
			m.becomeReady()
		}
	case No:
		s.ReadyRun = 0
	case Unknown:
	}
}

// timerStarting is for the timers that may fire before it is ready.
func (m *machine) timerStarting() {
	if m.in.Timer == TimerReady {
		m.readyTimeout()
		return
	}
	m.timerRunning()
}

func (m *machine) readyTimeout() {
	if m.sp.Ready == nil {
		return
	}
	after := brief(m.now.Sub(m.s.StartedAt))
	m.s.LastError = "not ready after " + after
	m.tell("process.error", map[string]any{"error": m.s.LastError})
	if m.sp.Ready.Warn {
		m.set(api.StateRunning, api.ReasonNone, "running, but not ready after "+after+"; it goes on being asked")
		if m.sp.Health != nil {
			m.do(DoProbeHealth)
		}
		return
	}
	m.beginStop(api.ReasonBootTimeout, "being ended because it was not ready after "+after)
}

func (m *machine) timerRunning() {
	switch m.in.Timer {
	case TimerStable:
		m.becomeStable()
	case TimerStale:
		m.timerStale()
	case TimerRuntime:
		m.timerRuntime()
	}
}

// Calm says that a further Yes of the health probe about the state's generation
// would change nothing, tell nothing and do nothing: whoever asks may keep it.
func Calm(sp *Spec, s *State) bool {
	return sp.Health != nil && s.Health == api.HealthHealthy && s.HealthFailures == 0 && s.HealthSuccesses == max(1, sp.Health.Successes)
}

func (m *machine) healthAnswer() {
	s, watch := &m.s, m.sp.Health
	if watch == nil {
		return
	}
	switch m.in.Answer {
	case Yes:
		s.HealthFailures = 0
		s.HealthSuccesses = min(s.HealthSuccesses+1, max(1, watch.Successes))
		if s.Health == api.HealthHealthy || s.HealthSuccesses < max(1, watch.Successes) {
			return
		}
		s.Health = api.HealthHealthy
		m.tell("process.health_ok", nil)
		if s.HealthyAt == 0 {
			s.HealthyAt = m.now
			m.reached(fromHealthy, m.now)
		}
	case No:
		m.healthNo(watch)
	case Unknown:
	}
}

func (m *machine) healthNo(watch *HealthWatch) {
	s := &m.s
	s.HealthSuccesses = 0
	s.HealthFailures++
	m.tell("process.health_failed", map[string]any{"failures": s.HealthFailures, "error": m.in.Error})
	if s.HealthFailures < max(1, watch.Failures) {
		return
	}
	if s.Health != api.HealthUnhealthy {
		s.Health = api.HealthUnhealthy
		m.tell("process.unhealthy", map[string]any{"failures": s.HealthFailures, "error": m.in.Error})
	}
	if watch.Restart {
		s.LastError = m.in.Error
		m.beginStop(api.ReasonHealth, "being ended because its health check failed")
	}
}

// probe begins the asking that belongs to a live generation.
func (m *machine) probe() {
	if m.sp.Ready != nil && !m.sp.Ready.Told && !m.s.Ready {
		m.do(DoProbeReady)
	}
	if m.sp.Health != nil && m.s.State == api.StateRunning {
		m.do(DoProbeHealth)
	}
}

// exited takes the end of the leader. process.exited is told before all else.
func (m *machine) exited() {
	s := &m.s
	e := m.in.Exit
	e.Generation = s.Generation
	if s.StartedAt != 0 {
		e.Uptime = max(0, m.now.Sub(s.StartedAt))
	}
	e.Cause, e.Expected = exitCause(s.StopCause, e.Unknown)
	e.Failure = !e.Expected && m.sp.failed(&e, s)
	s.PID, s.Exit, s.ExitedAt = 0, &e, m.now
	m.tellExit(&e)
	for _, id := range [...]TimerID{TimerReady, TimerStable, TimerStale, TimerRuntime} {
		m.disarm(id)
	}
	s.Worker.Stale = false
	if s.State != api.StateStopping {
		m.do(DoProbeStop)
	}
	m.clearProbes()
	switch {
	case m.in.Gone:
		m.finish()
	case s.StopCause != "":
		// The grace that is running holds for what is left as well (N8).
	case m.sp.ReapAlways || e.Failure:
		m.beginStop(api.ReasonLeftovers, describe(&e)+"; what it left behind is being ended")
	default:
		m.finish()
	}
}

func (m *machine) tellExit(e *Exit) {
	data := map[string]any{"code": e.Code, "signal": e.Signal, "expected": e.Expected,
		"uptime_ms": ms(e.Uptime), "cause": e.Cause}
	if e.Unknown {
		data["code"] = nil
	}
	if e.CoreDumped {
		data["core_dumped"] = true
	}
	m.tell("process.exited", data)
}

// exitCause says why a generation ended, and whether it was asked to.
func exitCause(stop api.Reason, unknown bool) (cause string, expected bool) {
	switch stop {
	case api.ReasonRequest, api.ReasonRestart, api.ReasonShutdown:
		return string(stop), true
	case api.ReasonRemoved:
		return string(api.ReasonRequest), true
	case api.ReasonConfig:
		return string(api.ReasonRestart), true
	case api.ReasonHealth, api.ReasonBootTimeout, api.ReasonLimit, api.ReasonHeartbeat:
		return string(stop), false
	}
	if unknown {
		return "unknown", false
	}
	return "exit", false
}

// failed says whether an end that nobody asked for is a failure.
func (sp *Spec) failed(e *Exit, s *State) bool {
	switch {
	case e.Cause != "exit": // health, boot_timeout, limit, heartbeat, unknown
		return true
	case sp.Ready != nil && s.State == api.StateStarting:
		return true // it ended before it was ready: a failed boot (S14)
	case e.Signal != "":
		return sp.SignalIsFailure
	default:
		return e.Code != 0
	}
}

// finish decides what comes after nothing of the generation lives any more.
func (m *machine) finish() {
	s := &m.s
	cause, again := s.StopCause, s.Again
	s.PID, s.Alive, s.SpawnPending = 0, false, false
	s.StopCause, s.Again, s.KillAsked, s.Killed, s.KillTries = "", false, false, false, 0
	m.disarmAll()
	m.confirmed()
	switch {
	case s.Removed:
		m.settleStopped(api.ReasonRemoved)
	case s.Barrier:
		m.settleStopped(api.ReasonShutdown)
	case s.Desired != api.DesiredRunning:
		m.settleStopped(api.ReasonRequest)
	case again:
		s.Automatic = false
		m.launch()
	case cause == api.ReasonShutdown:
		// The barrier was lifted by an adoption, but this end was a shutdown's.
		m.settleStopped(api.ReasonShutdown)
	default:
		m.decide()
	}
}
