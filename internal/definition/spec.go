package definition

import (
	"fmt"
	"maps"
	"slices"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// Spec returns what the pure machine needs to know of d. It fills d first, and
// expects that Validate found no error in it.
func Spec(d api.Definition) supervise.Spec {
	d = Fill(d)
	s := supervise.Spec{
		Oneshot:          d.Oneshot,
		Restart:          d.Restart,
		NoRestartCodes:   d.NoRestartCodes,
		NoRestartCodeMin: d.NoRestartCodeMin,
		SignalIsFailure:  *d.SignalIsFailure,
		ExitOnNoRestart:  d.OnNoRestart == "exit",
		MaxRestarts:      *d.MaxRestarts,
		MaxRestartsScope: d.MaxRestartsScope,
		StartResets:      *d.StartResets,
		ReapAlways:       d.ReapGroupOnExit != "failure",
		Backoff:          backoffSpec(d.Backoff),
		Breaker: supervise.Breaker{
			Failures: max(0, d.Breaker.Failures),
			Window:   d.Breaker.Window.D(),
			Gap:      d.Breaker.Mode == "gap",
			Count:    d.Breaker.Count,
			OnOpen:   d.Breaker.OnOpen,
			Cooldown: d.Breaker.Cooldown.D(),
			ExitCode: d.Breaker.ExitCode,
		},
		Stable: supervise.Stable{
			After:    d.Stable.After.D(),
			From:     d.Stable.From,
			Backoff:  slices.Contains(d.Stable.Resets, "backoff"),
			Failures: slices.Contains(d.Stable.Resets, "failures"),
			Window:   slices.Contains(d.Stable.Resets, "window"),
			Restarts: slices.Contains(d.Stable.Resets, "restarts"),
		},
		Grace:    d.Stop.Grace.D(),
		KillWait: d.Stop.KillWait.D(),
	}
	s.StopSignal, _ = Signal(d.Stop.Signal)
	for _, name := range d.NoRestartSignals {
		canonical, _ := Signal(name)
		s.NoRestartSignals = append(s.NoRestartSignals, canonical)
	}
	if p := d.Ready; p != nil {
		s.Ready = &supervise.ReadyGate{Successes: p.Successes, Deadline: p.Deadline.D(), Warn: p.OnTimeout == "warn",
			Told: SaysReady(p)}
	}
	if p := d.Health; p != nil {
		s.Health = &supervise.HealthWatch{Failures: p.Failures, Successes: p.Successes,
			Restart: p.OnFail == "restart", Pause: p.Pause.D()}
		if p.Backoff != nil {
			b := backoffSpec(*p.Backoff)
			s.Health.Backoff = &b
		}
	}
	if h := d.Heartbeat; h != nil {
		s.Heartbeat = &supervise.HeartbeatWatch{Timeout: h.Timeout.D(), Kill: h.Kill.D(), Grace: h.Grace.D()}
	}
	if l := d.Limits; l != nil {
		s.Limits = &supervise.Limits{Runtime: l.Runtime.D(), Memory: int64(l.Memory), CPU: l.CPU, PIDs: l.PIDs,
			OpenFiles: l.OpenFiles, Dwell: l.Dwell.D(), OnExceed: l.OnExceed}
	}
	return s
}

func backoffSpec(b api.Backoff) supervise.Backoff {
	out := supervise.Backoff{
		Fixed:         b.Kind == "fixed",
		Initial:       b.Initial.D(),
		Max:           b.Max.D(),
		Multiplier:    b.Multiplier,
		FirstExponent: b.FirstExponent,
		Jitter:        b.Jitter,
		ResetAfter:    b.ResetAfter.D(),
	}
	if out.Fixed {
		// A fixed wait is always Initial; Max must not cut it.
		out.Max = max(out.Max, out.Initial)
	}
	return out
}

// ProcSpec returns what is needed to start d with the whole environment env
// ("KEY=value"). Stdout and Stderr are left to the caller. The error names the
// key that cannot be used; after Validate there is none.
func ProcSpec(d api.Definition, env []string) (proc.Spec, error) {
	s := proc.Spec{
		Name:        d.Name,
		Argv:        d.Command,
		Dir:         d.Dir,
		Env:         env,
		User:        d.User,
		Group:       d.Group,
		Nice:        d.Nice,
		OOMScoreAdj: d.OOMScoreAdj,
		NoNewPrivs:  d.NoNewPrivs,
	}
	if len(d.Command) == 0 || d.Command[0] == "" {
		return proc.Spec{}, fmt.Errorf("cannot start %q: it has no command", d.Name)
	}
	if d.Umask != "" {
		mask, err := parseUmask(d.Umask)
		if err != nil {
			return proc.Spec{}, fmt.Errorf("cannot start %q: umask: %w", d.Name, err)
		}
		s.Umask = &mask
	}
	for _, name := range slices.Sorted(maps.Keys(d.Rlimits)) {
		lim, err := parseRlimit(name, d.Rlimits[name])
		if err != nil {
			return proc.Spec{}, fmt.Errorf("cannot start %q: rlimits: %w", d.Name, err)
		}
		s.Rlimits = append(s.Rlimits, lim)
	}
	return s, nil
}
