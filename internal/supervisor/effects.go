package supervisor

import (
	"context"
	"slices"
	"strconv"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/probe"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// comes is where an input has come and nothing is written of it.
func comes(k supervise.Kind) {
	switch {
	case !fault.Enabled:
	case k == supervise.Exited:
		fault.Here("supervisor.exit.before")
	case k == supervise.Gone:
		fault.Here("supervisor.gone.before")
	}
}

// recorded is where what an input has led to is written, and nothing is done yet.
func recorded(k supervise.Kind) {
	switch {
	case !fault.Enabled:
	case k == supervise.Exited:
		fault.Here("supervisor.exit.recorded")
	case k == supervise.Gone:
		fault.Here("supervisor.gone.recorded")
	case k == supervise.Spawned:
		fault.Here("supervisor.spawn.recorded")
	case k == supervise.Adopted:
		fault.Here("supervisor.adopt.recorded")
	}
}

// execute carries out effects in order and returns the inputs that they bring.
func (a *actor) execute(effects []supervise.Effect) []supervise.Input {
	var follow []supervise.Input
	for _, e := range effects {
		switch e.Do {
		case supervise.DoSpawn:
			follow = append(follow, a.spawn(e.Generation))
		case supervise.DoSignal:
			a.signal(e.Signal)
		case supervise.DoKill:
			a.kill()
		case supervise.DoArm:
			a.arm(e)
		case supervise.DoDisarm:
			a.disarm(e.Timer)
		case supervise.DoProbeReady:
			a.ask(a.def.Ready, supervise.ReadyAnswer, e.Generation)
		case supervise.DoProbeHealth:
			a.ask(a.def.Health, supervise.HealthAnswer, e.Generation)
		case supervise.DoProbeStop:
			a.stopProbes()
		case supervise.DoExit:
			a.sup.exit(e.Code, a.who.name)
		}
	}
	return follow
}

// spawn starts a generation. Spawned is handled before anything that the
// process itself brings, because its notices come through the inbox.
func (a *actor) spawn(generation uint64) supervise.Input {
	failed := func(err error) supervise.Input {
		return supervise.Input{Kind: supervise.SpawnFailed, Generation: generation, Error: err.Error()}
	}
	if a.env == nil {
		a.env = slices.Clip(definition.Env(*a.def, a.sup.o.Env))
	}
	told, extra, err := a.attend(generation)
	defer closeFiles(extra)
	if err != nil {
		return failed(err)
	}
	env := append(append(a.env, a.marks(generation)...), told...)
	spec, err := definition.ProcSpec(*a.def, env)
	if err != nil {
		return failed(err)
	}
	spec.Extra = extra
	if a.sink == nil {
		if a.sink, err = a.sup.out.open(a.who.name, retention(a.def)); err != nil {
			a.sink = nil
			return failed(err)
		}
	}
	spec.Name, spec.Marker = a.who.name, a.marker()
	spec.Stdout, spec.Stderr, err = a.sink.ChildEnds()
	if err != nil {
		return failed(err)
	}
	fault.Here("supervisor.spawn.before")
	p, err := a.sup.host.start(spec, a.notify(generation))
	fault.Here("supervisor.spawn.after")
	_ = spec.Stdout.Close()
	_ = spec.Stderr.Close()
	if err != nil {
		return failed(err)
	}
	id := p.Identity()
	a.proc, a.ident = p, &id
	a.attended(id)
	_ = a.offer() // it cannot fail
	a.sup.trimLater()
	return supervise.Input{Kind: supervise.Spawned, Generation: generation, PID: id.PID}
}

// notify turns what the host notices of a generation into messages.
func (a *actor) notify(generation uint64) func(proc.Notice) {
	return func(n proc.Notice) {
		if n.Exited {
			a.tell(supervise.Input{Kind: supervise.Exited, Generation: generation, Gone: n.Gone, Exit: exitFrom(n.Exit)})
			return
		}
		if n.Gone {
			a.tell(supervise.Input{Kind: supervise.Gone, Generation: generation})
		}
	}
}

func exitFrom(e proc.Exit) supervise.Exit {
	return supervise.Exit{Code: e.Code, Signal: e.Signal, CoreDumped: e.CoreDumped, Unknown: e.Unknown}
}

// marker is the variable by which everything that descends from this process
// is known, whatever became of its group.
func (a *actor) marker() string { return "PERDURE_ID=" + a.who.id }

// generationVar has the number of the generation.
const generationVar = "PERDURE_GENERATION"

// marks are the variables that every process gets.
func (a *actor) marks(generation uint64) []string {
	return []string{"PERDURE=1", a.marker(), "PERDURE_NAME=" + a.who.name,
		generationVar + "=" + strconv.FormatUint(generation, 10)}
}

func (a *actor) signal(name string) {
	if a.proc == nil {
		return
	}
	fault.Here("supervisor.signal.before")
	if err := a.proc.Signal(name); err != nil {
		a.sup.o.Logger.Warn("Cannot signal", "process", a.who.name, "signal", name, "error", err)
	}
	fault.Here("supervisor.signal.after")
}

func (a *actor) kill() {
	if a.proc == nil {
		return
	}
	fault.Here("supervisor.kill.before")
	if err := a.proc.Kill(); err != nil {
		a.sup.o.Logger.Warn("Cannot kill", "process", a.who.name, "error", err)
	}
	fault.Here("supervisor.kill.after")
}

func (a *actor) arm(e supervise.Effect) {
	a.disarm(e.Timer)
	in := supervise.Input{Kind: supervise.TimerFired, Timer: e.Timer, Number: e.Number}
	a.timers[e.Timer] = newAlarm(e.Deadline, a.sup.o.Clock, func() { a.tell(in) })
}

func (a *actor) disarm(id supervise.TimerID) {
	if t := a.timers[id]; t != nil {
		t.stop()
		a.timers[id] = nil
	}
}

// ask begins to ask a probe about a generation.
func (a *actor) ask(p *api.Probe, kind supervise.Kind, generation uint64) {
	if p == nil {
		return
	}
	spec := probe.Spec{Name: a.who.name, Probe: *p, Spread: kind == supervise.HealthAnswer, Exec: a.execProbe(*a.def)}
	stop, err := a.sup.probes.Start(spec, func(r probe.Result) {
		if kind == supervise.HealthAnswer && r.Answer == probe.Yes && a.calm.Load() == generation {
			return // the commonest answer of all; nobody needs to be woken for it
		}
		in := supervise.Input{Kind: kind, Generation: generation, Error: r.Detail}
		switch r.Answer {
		case probe.Yes:
			in.Answer = supervise.Yes
		case probe.No:
			in.Answer = supervise.No
		default:
			in.Answer = supervise.Unknown
		}
		a.tell(in)
	})
	if err != nil {
		// The definition was checked, so this is a fault of ours: the deadline of
		// the gate still holds, and health stays unknown.
		a.sup.o.Logger.Error("Cannot ask a probe", "process", a.who.name, "error", err)
		return
	}
	a.stops = append(a.stops, stop)
}

func (a *actor) stopProbes() {
	for _, stop := range a.stops {
		stop()
	}
	a.stops = nil
}

// maxProbeOutput is how much of an exec probe's output is kept for its detail.
const maxProbeOutput = 4096

// execProbe runs a probe's command as the process itself is run: its
// directory, environment and user, in a group of its own.
func (a *actor) execProbe(def api.Definition) func(context.Context, []string) (int, string, error) {
	// A probe is no part of the process: it has a marker of its own and no place
	// in the process's cgroup, and ends with its own timeout.
	marker := "PERDURE_PROBE=" + a.who.id
	marks := []string{"PERDURE=1", marker, "PERDURE_NAME=" + a.who.name}
	return func(ctx context.Context, argv []string) (int, string, error) {
		spec, err := definition.ProcSpec(def, append(definition.Env(def, a.sup.o.Env), marks...))
		if err != nil {
			return 0, "", err
		}
		spec.Name, spec.Marker, spec.Argv = "", marker, argv
		exit, out, err := a.sup.host.run(ctx, spec, maxProbeOutput)
		return exit.Code, string(out), err
	}
}
