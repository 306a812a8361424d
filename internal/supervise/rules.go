package supervise

// run does what a rule says.
func run(r rule, m *machine) {
	switch r { //exhaustive:enforce
	case ruleIgnore:
	case ruleStart:
		m.start()
	case ruleStartLive:
		m.startLive()
	case ruleStartFailed:
		m.startFailed()
	case ruleStartStopping:
		m.startStopping()
	case ruleStartOrphan:
		m.startOrphan()
	case ruleRestartLive:
		m.restartLive()
	case ruleStopIdle:
		m.stopIdle()
	case ruleStopEnded:
		m.stopEnded()
	case ruleStopLive:
		m.stopLive()
	case ruleStopStopping:
		m.stopStopping()
	case ruleKillLive:
		m.killLive()
	case ruleKillStopping:
		m.killStopping()
	case ruleResetCounters:
		m.resetCounters()
	case ruleResetToIdle:
		m.resetToIdle()
	case ruleShutdownIdle:
		m.shutdownIdle()
	case ruleShutdownEnded:
		m.shutdownEnded()
	case ruleShutdownLive:
		m.shutdownLive()
	case ruleShutdownStopping:
		m.shutdownStopping()
	case ruleRedefineLive:
		m.redefineLive()
	case ruleRedefineDelayed:
		m.redefineDelayed()
	case ruleRelaunch:
		m.launch()
	case ruleDepsNote:
		m.depsNote()
	case ruleDepsDecide:
		m.depsDecide()
	case ruleSpawned:
		m.spawned()
	case ruleSpawnFailed:
		m.spawnFailed()
	case ruleExited:
		m.exited()
	case ruleGone:
		m.finish()
	case ruleReadyAnswer:
		m.readyAnswer()
	case ruleHealthAnswer:
		m.healthAnswer()
	case ruleHeartbeat, ruleSaid, ruleSaidStopping, ruleSample:
		runWorker(r, m)
	case ruleTimerStarting, ruleTimerRunning, ruleTimerBackoff, ruleTimerCrashLoop, ruleTimerStopping:
		runTimer(r, m)
	case ruleAdopted:
		m.adopted()
	}
}

// says is the rule in words, for the generated reference.
func (r rule) says() string {
	switch r { //exhaustive:enforce
	case ruleIgnore:
		return "nothing"
	case ruleStart:
		return "starts, or waits for its dependencies; counters zeroed"
	case ruleStartLive:
		return "stays as it is; counters zeroed"
	case ruleStartFailed:
		return "as idle, if the definition, force or a passed cooldown allows it; else refused"
	case ruleStartStopping:
		return "starts as soon as nothing of it lives"
	case ruleStartOrphan:
		return "is wanted"
	case ruleRestartLive:
		return "ends; then starts without a wait"
	case ruleStopIdle:
		return "stopped at once; timers cancelled"
	case ruleStopEnded:
		return "is not wanted; state kept"
	case ruleStopLive:
		return "stopping: signal, grace, SIGKILL"
	case ruleStopStopping:
		return "no start afterwards"
	case ruleKillLive:
		return "stopping: SIGKILL"
	case ruleKillStopping:
		return "SIGKILL now; no start afterwards"
	case ruleResetCounters:
		return "counters zeroed"
	case ruleResetToIdle:
		return "idle; counters zeroed, breaker closed"
	case ruleShutdownIdle:
		return "stopped; nothing starts again"
	case ruleShutdownEnded:
		return "state kept; nothing starts again"
	case ruleShutdownLive:
		return "stopping; nothing starts again"
	case ruleShutdownStopping:
		return "nothing starts again"
	case ruleRedefineLive:
		return "restarts if asked to, else fits its probes"
	case ruleRedefineDelayed:
		return "starts now if asked to; ends if it may not restart any more"
	case ruleRelaunch:
		return "looks at its dependencies again"
	case ruleDepsNote:
		return "is noted"
	case ruleDepsDecide:
		return "starts, waits or fails by them"
	case ruleSpawned:
		return "lives: starting, or running without a gate; a stop that came meanwhile is carried out"
	case ruleSpawnFailed:
		return "a failure: backoff, breaker or failed"
	case ruleExited:
		return "told first; leftovers are ended; then by policy"
	case ruleGone:
		return "stopped, or what the end leads to"
	case ruleReadyAnswer:
		return "enough yeses: running and ready"
	case ruleHealthAnswer:
		return "healthy, unhealthy, or stopping for health"
	case ruleHeartbeat, ruleSaid, ruleSaidStopping, ruleSample:
		return r.saysWorker()
	case ruleTimerStarting, ruleTimerRunning, ruleTimerBackoff, ruleTimerCrashLoop, ruleTimerStopping:
		return r.saysTimer()
	case ruleAdopted:
		return "taken up where the record left it"
	}
	return ""
}

// runWorker does what the rules about workers say.
func runWorker(r rule, m *machine) {
	switch r {
	case ruleHeartbeat:
		m.heartbeat()
	case ruleSaid:
		m.said()
	case ruleSaidStopping:
		m.saidStopping()
	case ruleSample:
		m.sample()
	}
}

// runTimer does what the rules about timers say.
func runTimer(r rule, m *machine) {
	switch r {
	case ruleTimerStarting:
		m.timerStarting()
	case ruleTimerRunning:
		m.timerRunning()
	case ruleTimerBackoff:
		m.timerBackoff()
	case ruleTimerCrashLoop:
		m.timerCrashLoop()
	case ruleTimerStopping:
		m.timerStopping()
	}
}

func (r rule) saysWorker() string {
	switch r {
	case ruleHeartbeat:
		return "no longer stale"
	case ruleSaid:
		return "ready: running; unhealthy: stopping, where heartbeats are watched; more time: a later deadline; a watchdog: its timeout holds"
	case ruleSaidStopping:
		return "more time: a later SIGKILL"
	case ruleSample:
		return "over a limit for its dwell: told, stopping for it"
	}
	return ""
}

func (r rule) saysTimer() string {
	switch r {
	case ruleTimerStarting:
		return "deadline: ended as a failed boot; else as in running"
	case ruleTimerRunning:
		return "stable: resets; no heartbeat: stale, then stopping for it; runtime over: stopping for it"
	case ruleTimerBackoff:
		return "starts, or waits for its dependencies"
	case ruleTimerCrashLoop:
		return "window cleared; starts"
	case ruleTimerStopping:
		return "SIGKILL; again until the end is proven"
	}
	return ""
}
