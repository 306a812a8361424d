package supervise

// Do is what an effect does.
type Do uint8

// The effects. The actor executes them in order, after it has persisted the
// state and the events.
const (
	// DoSpawn spawns the effect's generation; Spawned or SpawnFailed must follow.
	DoSpawn Do = iota + 1
	// DoSignal sends Signal to the group of the generation.
	DoSignal
	// DoKill sends SIGKILL to everything of the generation: group, cgroup, and
	// whatever has escaped from both.
	DoKill
	// DoArm arms Timer with Number at Deadline; DoDisarm drops it.
	DoArm
	DoDisarm
	// DoProbeReady and DoProbeHealth begin asking, DoProbeStop ends all asking.
	DoProbeReady
	DoProbeHealth
	DoProbeStop
	// DoExit asks that everything be stopped and Perdure end with Code.
	DoExit
)

// Effect is one thing to be done.
type Effect struct {
	Do         Do
	Generation uint64
	Signal     string // canonical name
	Timer      TimerID
	Number     uint64
	Deadline   Instant
	Code       int
}

// Starts reports whether the effect begins something. When the state cannot be
// persisted, such effects wait and all others are still executed, so that a
// full disk never keeps anything from being stopped.
func (e Effect) Starts() bool {
	return e.Do == DoSpawn || e.Do == DoProbeReady || e.Do == DoProbeHealth
}

// Event is something to be told: its type (such as "process.exited") and its
// fields, in JSON's types. The actor adds the time, the process and the
// generation.
type Event struct {
	Type       string
	Generation uint64
	Data       map[string]any
}

// Result is what Step returns: the new state, the events to be persisted with
// it, and the effects to be executed after both are persisted. Refused says why
// an operator's command was not taken (then nothing else changed).
type Result struct {
	State   State
	Events  []Event
	Effects []Effect
	Refused string
}
