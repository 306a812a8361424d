package definition

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/api"
)

// Presets lists the names of the presets, "default" first.
func Presets() []string {
	return []string{"default", "ploinky", "ploinky-router", "ploinky-container", "ploinky-container-doc",
		"shogo", "pidnap", "pidnap-exponential", "donkeylabs"}
}

// Preset returns the keys that a preset sets. A probe in it without a way to
// ask holds defaults for a probe that the definition writes; a probe with an
// address that names ${PORT} is used as it is when env.PORT is known. An
// unknown name is an error that names the nearest one.
func Preset(name string) (api.Definition, error) {
	switch name {
	case "", "default":
		return defaults(), nil
	case "ploinky":
		return ploinky(), nil
	case "ploinky-router":
		return ploinkyRouter(), nil
	case "ploinky-container":
		return ploinkyContainer(), nil
	case "ploinky-container-doc":
		return ploinkyContainerDoc(), nil
	case "shogo":
		return shogo(), nil
	case "pidnap":
		return pidnap(), nil
	case "pidnap-exponential":
		d := pidnap()
		d.Backoff = exponential(time.Second, 10*time.Second)
		return d, nil
	case "donkeylabs":
		return donkeylabs(), nil
	}
	return api.Definition{}, fmt.Errorf("cannot find a preset %q%s; the presets are %s", name, didYouMean(name, Presets()), list(Presets()))
}

// defaults is the preset "default": what a key means that nobody has set. What
// depends on other keys (restart of a oneshot, cooldown, probes) is in Fill.
func defaults() api.Definition {
	return api.Definition{
		InheritEnv:       new(true),
		EnvReload:        api.EnvReload{Mode: "restart", Debounce: api.Duration(500 * time.Millisecond)},
		Autostart:        new(true),
		Restart:          api.RestartAlways,
		SignalIsFailure:  new(true),
		OnNoRestart:      "stay",
		MaxRestarts:      new(-1),
		MaxRestartsScope: "since_healthy",
		StartResets:      new(true),
		Backoff: api.Backoff{Kind: "exponential", Initial: dur(time.Second), Max: api.Duration(30 * time.Second), Multiplier: 2,
			Jitter: api.Jitter{Mode: "add", Frac: 0.1}},
		Breaker: breaker(5, time.Minute, "rolling", "failures", "retry"),
		Stable:  stable(10*time.Second, "start", "backoff", "failures", "restarts"),
		Stop:    stop(10 * time.Second),
		Logs: api.Logs{MaxSize: 10 << 20, MaxFiles: 5,
			Compress: new(true), OnFull: "block"},
		ReapGroupOnExit: "always",
		Worker:          "on",
	}
}

func ploinky() api.Definition {
	return api.Definition{
		Restart:     api.RestartAlways,
		Backoff:     exponential(time.Second, 30*time.Second),
		Breaker:     breaker(5, time.Minute, "rolling", "exits", "cooldown"),
		MaxRestarts: new(-1), MaxRestartsScope: "since_healthy",
		StartResets: new(false),
		Health: &api.Probe{Interval: api.Duration(30 * time.Second), Timeout: api.Duration(5 * time.Second), Failures: 3,
			OnFail: "restart", Pause: api.Duration(500 * time.Millisecond)},
		Stable: stable(0, "healthy", "restarts"),
		Stop:   stop(10 * time.Second),
	}
}

func ploinkyRouter() api.Definition {
	br := breaker(5, time.Minute, "rolling", "failures", "exit")
	br.ExitCode = 100
	return api.Definition{
		Restart:          api.RestartAlways,
		NoRestartCodes:   []int{0, 2},
		NoRestartCodeMin: 100,
		NoRestartSignals: []string{"TERM", "INT"},
		OnNoRestart:      "exit",
		Backoff:          exponential(time.Second, 30*time.Second),
		Breaker:          br,
		Stable:           stable(time.Minute, "start", "backoff", "failures"),
		Health: &api.Probe{
			HTTP: &api.HTTPProbe{URL: "http://127.0.0.1:${PORT:-8080}/health", Status: api.Strings{"200"},
				JSON: map[string]any{"status": "healthy"}},
			Interval: api.Duration(30 * time.Second), Timeout: api.Duration(5 * time.Second), Failures: 3,
			InitialDelay: api.Duration(10 * time.Second), OnFail: "restart",
		},
		Stop: stop(15 * time.Second),
	}
}

func ploinkyContainer() api.Definition {
	wait := exponential(10*time.Second, 300*time.Second)
	wait.ResetAfter = api.Duration(600 * time.Second)
	return api.Definition{
		Restart:     api.RestartAlways,
		Backoff:     exponential(time.Second, 30*time.Second),
		Breaker:     breaker(6, time.Minute, "rolling", "failures", "park"),
		StartResets: new(false),
		Stable:      stable(time.Minute, "start", "backoff", "window"),
		Health: &api.Probe{Interval: api.Duration(time.Second), Timeout: api.Duration(5 * time.Second), Failures: 5,
			Successes: 1, Backoff: &wait},
		Ready: &api.Probe{OnTimeout: "warn"},
		Stop:  stop(5 * time.Second),
	}
}

func ploinkyContainerDoc() api.Definition {
	return api.Definition{
		Restart:     api.RestartAlways,
		Backoff:     exponential(2*time.Second, time.Minute),
		Breaker:     breaker(3, 2*time.Minute, "rolling", "failures", "cooldown"),
		StartResets: new(false),
		Health: &api.Probe{HTTP: &api.HTTPProbe{URL: "http://127.0.0.1:${PORT}/health"},
			Interval: api.Duration(15 * time.Second), Timeout: api.Duration(5 * time.Second), Failures: 3},
		Stop: stop(10 * time.Second),
	}
}

func shogo() api.Definition {
	b := exponential(time.Second, time.Minute)
	b.Jitter = api.Jitter{Mode: "add", Frac: 0.2}
	return api.Definition{
		Restart:     api.RestartOnFailure,
		Backoff:     b,
		Breaker:     breaker(8, 5*time.Minute, "gap", "failures", "park"),
		StartResets: new(false),
		Stable:      stable(time.Minute, "ready", "failures", "backoff"),
		Ready: &api.Probe{HTTP: &api.HTTPProbe{URL: "http://127.0.0.1:${PORT}/health"},
			Interval: api.Duration(500 * time.Millisecond), Timeout: api.Duration(1500 * time.Millisecond),
			Deadline: api.Duration(30 * time.Second)},
		Stop:            stop(5 * time.Second),
		ReapGroupOnExit: "failure",
	}
}

func pidnap() api.Definition {
	return api.Definition{
		Restart:     api.RestartAlways,
		Backoff:     api.Backoff{Kind: "fixed", Initial: dur(time.Second), Jitter: api.Jitter{Mode: "none"}},
		Breaker:     breaker(5, time.Minute, "rolling", "restarts", "retry"),
		Stable:      stable(0, "start", "backoff", "failures"),
		MaxRestarts: new(-1), MaxRestartsScope: "lifetime",
		SignalIsFailure: new(false),
		StartResets:     new(true),
		Stop:            stop(5 * time.Second),
	}
}

// donkeylabs has no breaker: its limit of failures in a row is one. Its
// failures in a row were never set back; here a run of 10s does, as its name
// for them promises (K2).
func donkeylabs() api.Definition {
	b := exponential(time.Second, 30*time.Second)
	b.FirstExponent = 1
	b.Jitter = api.Jitter{Mode: "scale", Lo: 0.5, Hi: 1.5}
	return api.Definition{
		Restart:     api.RestartNever,
		Backoff:     b,
		Breaker:     api.Breaker{Failures: -1},
		MaxRestarts: new(9), MaxRestartsScope: "consecutive",
		Stable: stable(10*time.Second, "start", "backoff", "failures"),
		Stop:   stop(5 * time.Second),
	}
}

func exponential(initial, most time.Duration) api.Backoff {
	return api.Backoff{Kind: "exponential", Initial: dur(initial), Max: api.Duration(most), Multiplier: 2,
		Jitter: api.Jitter{Mode: "none"}}
}

func breaker(n int, window time.Duration, mode, count, onOpen string) api.Breaker {
	return api.Breaker{Failures: n, Window: api.Duration(window), Mode: mode, Count: count, OnOpen: onOpen}
}

func stable(after time.Duration, from string, resets ...string) api.Stable {
	return api.Stable{After: dur(after), From: from, Resets: resets}
}

func stop(grace time.Duration) api.StopPolicy {
	return api.StopPolicy{Signal: "TERM", Grace: dur(grace), KillWait: api.Duration(time.Second)}
}

func dur(d time.Duration) *api.Duration { return new(api.Duration(d)) }
