package supervise

import "github.com/perdure/perdure/api"

// rule is the number of what is done about an input. Rules are numbers and not
// functions so that the table is constant and can be printed.
type rule uint8

const (
	// ruleIgnore is explicit: the input means nothing in the state.
	ruleIgnore rule = iota + 1
	ruleStart
	ruleStartLive
	ruleStartFailed
	ruleStartStopping
	ruleStartOrphan
	ruleRestartLive
	ruleStopIdle
	ruleStopEnded
	ruleStopLive
	ruleStopStopping
	ruleKillLive
	ruleKillStopping
	ruleResetCounters
	ruleResetToIdle
	ruleShutdownIdle
	ruleShutdownEnded
	ruleShutdownLive
	ruleShutdownStopping
	ruleRedefineLive
	ruleRedefineDelayed
	ruleRelaunch
	ruleDepsNote
	ruleDepsDecide
	ruleSpawned
	ruleSpawnFailed
	ruleExited
	ruleGone
	ruleReadyAnswer
	ruleHealthAnswer
	ruleHeartbeat
	ruleSaid
	ruleSaidStopping
	ruleSample
	ruleTimerStarting
	ruleTimerRunning
	ruleTimerBackoff
	ruleTimerCrashLoop
	ruleTimerStopping
	ruleAdopted
	numRules
)

// ruleOf is the table. It has a rule for every pair of state and kind; the
// test TestTableIsTotal holds that. A state that is unknown ignores all inputs.
func ruleOf(state api.State, kind Kind) rule {
	row := rowOf(state)
	if row == nil {
		return ruleIgnore
	}
	return row[kind]
}

type row [NumKinds]rule

func rowOf(state api.State) *row {
	switch state { //exhaustive:enforce
	case api.StateIdle:
		return &table.idle
	case api.StateWaiting:
		return &table.waiting
	case api.StateStarting:
		return &table.starting
	case api.StateRunning:
		return &table.running
	case api.StateBackoff:
		return &table.backoff
	case api.StateCrashLoop:
		return &table.crashLoop
	case api.StateStopping:
		return &table.stopping
	case api.StateStopped:
		return &table.stopped
	case api.StateExited:
		return &table.exited
	case api.StateFailed:
		return &table.failed
	case api.StateDependencyFailed:
		return &table.dependencyFailed
	case api.StateOrphaned:
		return &table.orphaned
	}
	return nil
}

// table is written here and read only.
var table = struct { //ok: nobody writes it; rowOf gives pointers so that no row is copied
	idle, waiting, starting, running, backoff, crashLoop, stopping, stopped, exited, failed, dependencyFailed, orphaned row
}{
	idle: row{
		Start:        ruleStart,
		Stop:         ruleStopIdle,
		Kill:         ruleStopIdle,
		Restart:      ruleStart,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownIdle,
		Redefine:     ruleIgnore,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleIgnore,
		Adopted:      ruleAdopted,
	},
	waiting: row{
		Start:        ruleStart,
		Stop:         ruleStopIdle,
		Kill:         ruleStopIdle,
		Restart:      ruleStart,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownIdle,
		Redefine:     ruleRelaunch,
		DepsChanged:  ruleDepsDecide,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleIgnore,
		Adopted:      ruleAdopted,
	},
	starting: row{
		Start:        ruleStartLive,
		Stop:         ruleStopLive,
		Kill:         ruleKillLive,
		Restart:      ruleRestartLive,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownLive,
		Redefine:     ruleRedefineLive,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleSpawned,
		SpawnFailed:  ruleSpawnFailed,
		Exited:       ruleExited,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleReadyAnswer,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleHeartbeat,
		WorkerSaid:   ruleSaid,
		Sample:       ruleSample,
		TimerFired:   ruleTimerStarting,
		Adopted:      ruleAdopted,
	},
	running: row{
		Start:        ruleStartLive,
		Stop:         ruleStopLive,
		Kill:         ruleKillLive,
		Restart:      ruleRestartLive,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownLive,
		Redefine:     ruleRedefineLive,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleExited,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleReadyAnswer,
		HealthAnswer: ruleHealthAnswer,
		Heartbeat:    ruleHeartbeat,
		WorkerSaid:   ruleSaid,
		Sample:       ruleSample,
		TimerFired:   ruleTimerRunning,
		Adopted:      ruleAdopted,
	},
	backoff: row{
		Start:        ruleStart,
		Stop:         ruleStopIdle,
		Kill:         ruleStopIdle,
		Restart:      ruleStart,
		Reset:        ruleResetToIdle,
		Shutdown:     ruleShutdownIdle,
		Redefine:     ruleRedefineDelayed,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleTimerBackoff,
		Adopted:      ruleAdopted,
	},
	crashLoop: row{
		Start:        ruleStart,
		Stop:         ruleStopIdle,
		Kill:         ruleStopIdle,
		Restart:      ruleStart,
		Reset:        ruleResetToIdle,
		Shutdown:     ruleShutdownIdle,
		Redefine:     ruleRedefineDelayed,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleTimerCrashLoop,
		Adopted:      ruleAdopted,
	},
	stopping: row{
		Start:        ruleStartStopping,
		Stop:         ruleStopStopping,
		Kill:         ruleKillStopping,
		Restart:      ruleStartStopping,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownStopping,
		Redefine:     ruleIgnore,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleSpawned,
		SpawnFailed:  ruleSpawnFailed,
		Exited:       ruleExited,
		Gone:         ruleGone,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleSaidStopping,
		Sample:       ruleIgnore,
		TimerFired:   ruleTimerStopping,
		Adopted:      ruleAdopted,
	},
	stopped: row{
		Start:        ruleStart,
		Stop:         ruleStopEnded,
		Kill:         ruleStopEnded,
		Restart:      ruleStart,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownEnded,
		Redefine:     ruleIgnore,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleIgnore,
		Adopted:      ruleAdopted,
	},
	exited: row{
		Start:        ruleStart,
		Stop:         ruleStopEnded,
		Kill:         ruleStopEnded,
		Restart:      ruleStart,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownEnded,
		Redefine:     ruleIgnore,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleIgnore,
		Adopted:      ruleAdopted,
	},
	failed: row{
		Start:        ruleStartFailed,
		Stop:         ruleStopEnded,
		Kill:         ruleStopEnded,
		Restart:      ruleStartFailed,
		Reset:        ruleResetToIdle,
		Shutdown:     ruleShutdownEnded,
		Redefine:     ruleIgnore,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleIgnore,
		Adopted:      ruleAdopted,
	},
	dependencyFailed: row{
		Start:        ruleStart,
		Stop:         ruleStopIdle,
		Kill:         ruleStopIdle,
		Restart:      ruleStart,
		Reset:        ruleResetToIdle,
		Shutdown:     ruleShutdownIdle,
		Redefine:     ruleRelaunch,
		DepsChanged:  ruleDepsDecide,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleIgnore,
		Gone:         ruleIgnore,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleIgnore,
		Adopted:      ruleAdopted,
	},
	orphaned: row{
		Start:        ruleStartOrphan,
		Stop:         ruleStopEnded,
		Kill:         ruleStopEnded,
		Restart:      ruleStartOrphan,
		Reset:        ruleResetCounters,
		Shutdown:     ruleShutdownEnded,
		Redefine:     ruleIgnore,
		DepsChanged:  ruleDepsNote,
		Spawned:      ruleIgnore,
		SpawnFailed:  ruleIgnore,
		Exited:       ruleExited,
		Gone:         ruleGone,
		ReadyAnswer:  ruleIgnore,
		HealthAnswer: ruleIgnore,
		Heartbeat:    ruleIgnore,
		WorkerSaid:   ruleIgnore,
		Sample:       ruleIgnore,
		TimerFired:   ruleIgnore,
		Adopted:      ruleAdopted,
	},
}
