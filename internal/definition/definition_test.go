package definition

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func web(change func(*api.Definition)) api.Definition {
	d := api.Definition{Name: "web", Command: api.Command{"./web"}}
	if change != nil {
		change(&d)
	}
	return d
}

// TestPresetsAreExact compares what each preset gives to the machine with the
// table of the reference systems, written out by hand.
func TestPresetsAreExact(t *testing.T) {
	t.Parallel()
	s, m := time.Second, time.Minute
	none := api.Jitter{Mode: "none"}
	for name, want := range map[string]supervise.Spec{
		"default": {Restart: "always", SignalIsFailure: true, MaxRestarts: -1, MaxRestartsScope: "since_healthy", StartResets: true, ReapAlways: true,
			Backoff:    supervise.Backoff{Initial: s, Max: 30 * s, Multiplier: 2, Jitter: api.Jitter{Mode: "add", Frac: 0.1}},
			Breaker:    supervise.Breaker{Failures: 5, Window: m, Count: "failures", OnOpen: "retry", Cooldown: m, ExitCode: 1},
			Stable:     supervise.Stable{After: 10 * s, From: "start", Backoff: true, Failures: true, Restarts: true},
			StopSignal: "SIGTERM", Grace: 10 * s, KillWait: s},
		"ploinky": {Restart: "always", SignalIsFailure: true, MaxRestarts: -1, MaxRestartsScope: "since_healthy", ReapAlways: true,
			Backoff:    supervise.Backoff{Initial: s, Max: 30 * s, Multiplier: 2, Jitter: none},
			Breaker:    supervise.Breaker{Failures: 5, Window: m, Count: "exits", OnOpen: "cooldown", Cooldown: m, ExitCode: 1},
			Stable:     supervise.Stable{From: "healthy", Restarts: true},
			StopSignal: "SIGTERM", Grace: 10 * s, KillWait: s},
		"ploinky-router": {Restart: "always", NoRestartCodes: []int{0, 2}, NoRestartCodeMin: 100, NoRestartSignals: []string{"SIGTERM", "SIGINT"},
			SignalIsFailure: true, ExitOnNoRestart: true, MaxRestarts: -1, MaxRestartsScope: "since_healthy", StartResets: true, ReapAlways: true,
			Backoff:    supervise.Backoff{Initial: s, Max: 30 * s, Multiplier: 2, Jitter: none},
			Breaker:    supervise.Breaker{Failures: 5, Window: m, Count: "failures", OnOpen: "exit", Cooldown: m, ExitCode: 100},
			Stable:     supervise.Stable{After: m, From: "start", Backoff: true, Failures: true},
			Health:     &supervise.HealthWatch{Failures: 3, Successes: 1, Restart: true},
			StopSignal: "SIGTERM", Grace: 15 * s, KillWait: s},
		"ploinky-container": {Restart: "always", SignalIsFailure: true, MaxRestarts: -1, MaxRestartsScope: "since_healthy", ReapAlways: true,
			Backoff:    supervise.Backoff{Initial: s, Max: 30 * s, Multiplier: 2, Jitter: none},
			Breaker:    supervise.Breaker{Failures: 6, Window: m, Count: "failures", OnOpen: "park", Cooldown: m, ExitCode: 1},
			Stable:     supervise.Stable{After: m, From: "start", Backoff: true, Window: true},
			StopSignal: "SIGTERM", Grace: 5 * s, KillWait: s},
		"ploinky-container-doc": {Restart: "always", SignalIsFailure: true, MaxRestarts: -1, MaxRestartsScope: "since_healthy", ReapAlways: true,
			Backoff:    supervise.Backoff{Initial: 2 * s, Max: m, Multiplier: 2, Jitter: none},
			Breaker:    supervise.Breaker{Failures: 3, Window: 2 * m, Count: "failures", OnOpen: "cooldown", Cooldown: 2 * m, ExitCode: 1},
			Stable:     supervise.Stable{After: 10 * s, From: "start", Backoff: true, Failures: true, Restarts: true},
			Health:     &supervise.HealthWatch{Failures: 3, Successes: 1, Restart: true},
			StopSignal: "SIGTERM", Grace: 10 * s, KillWait: s},
		"shogo": {Restart: "on-failure", SignalIsFailure: true, MaxRestarts: -1, MaxRestartsScope: "since_healthy",
			Backoff:    supervise.Backoff{Initial: s, Max: m, Multiplier: 2, Jitter: api.Jitter{Mode: "add", Frac: 0.2}},
			Breaker:    supervise.Breaker{Failures: 8, Window: 5 * m, Gap: true, Count: "failures", OnOpen: "park", Cooldown: 5 * m, ExitCode: 1},
			Stable:     supervise.Stable{After: m, From: "ready", Backoff: true, Failures: true},
			Ready:      &supervise.ReadyGate{Successes: 1, Deadline: 30 * s},
			StopSignal: "SIGTERM", Grace: 5 * s, KillWait: s},
		"pidnap": {Restart: "always", MaxRestarts: -1, MaxRestartsScope: "lifetime", StartResets: true, ReapAlways: true,
			Backoff:    supervise.Backoff{Fixed: true, Initial: s, Max: 30 * s, Multiplier: 2, Jitter: none},
			Breaker:    supervise.Breaker{Failures: 5, Window: m, Count: "restarts", OnOpen: "retry", Cooldown: m, ExitCode: 1},
			Stable:     supervise.Stable{From: "start", Backoff: true, Failures: true},
			StopSignal: "SIGTERM", Grace: 5 * s, KillWait: s},
		"pidnap-exponential": {Restart: "always", MaxRestarts: -1, MaxRestartsScope: "lifetime", StartResets: true, ReapAlways: true,
			Backoff:    supervise.Backoff{Initial: s, Max: 10 * s, Multiplier: 2, Jitter: none},
			Breaker:    supervise.Breaker{Failures: 5, Window: m, Count: "restarts", OnOpen: "retry", Cooldown: m, ExitCode: 1},
			Stable:     supervise.Stable{From: "start", Backoff: true, Failures: true},
			StopSignal: "SIGTERM", Grace: 5 * s, KillWait: s},
		"donkeylabs": {Restart: "never", SignalIsFailure: true, MaxRestarts: 9, MaxRestartsScope: "consecutive", StartResets: true, ReapAlways: true,
			Backoff:    supervise.Backoff{Initial: s, Max: 30 * s, Multiplier: 2, FirstExponent: 1, Jitter: api.Jitter{Mode: "scale", Lo: 0.5, Hi: 1.5}},
			Breaker:    supervise.Breaker{Window: m, Count: "failures", OnOpen: "retry", Cooldown: m, ExitCode: 1},
			Stable:     supervise.Stable{After: 10 * s, From: "start", Backoff: true, Failures: true},
			StopSignal: "SIGTERM", Grace: 5 * s, KillWait: s},
	} {
		d := web(func(d *api.Definition) { d.Preset, d.Env = name, map[string]string{"PORT": "81"} })
		if diff := cmp.Diff(want, Spec(d)); diff != "" {
			t.Errorf("%s (-want +have):\n%s", name, diff)
		}
	}
}

func TestEveryPresetIsSound(t *testing.T) {
	t.Parallel()
	for _, name := range Presets() {
		d := web(func(d *api.Definition) { d.Preset, d.Env = name, map[string]string{"PORT": "81"} })
		for _, f := range Validate(d) {
			if f.Level == levelError {
				t.Errorf("%s: %s: %s", name, f.Field, f.Message)
			}
		}
		once := Fill(d)
		if diff := cmp.Diff(once, Fill(once)); diff != "" {
			t.Errorf("%s: a second Fill changes:\n%s", name, diff)
		}
	}
	if _, err := Preset("shoggo"); err == nil || !strings.Contains(err.Error(), `did you mean "shogo"`) {
		t.Errorf("unknown preset: %v", err)
	}
}

func TestProbesOfPresets(t *testing.T) {
	t.Parallel()
	router := Fill(web(func(d *api.Definition) { d.Preset = "ploinky-router" }))
	want := &api.Probe{HTTP: &api.HTTPProbe{URL: "http://127.0.0.1:8080/health", Status: api.Strings{"200"}, JSON: map[string]any{"status": "healthy"}},
		Interval: api.Duration(30 * time.Second), Timeout: api.Duration(5 * time.Second), Failures: 3, Successes: 1,
		InitialDelay: api.Duration(10 * time.Second), OnFail: "restart"}
	if diff := cmp.Diff(want, router.Health); diff != "" {
		t.Error(diff)
	}
	own := Fill(web(func(d *api.Definition) {
		d.Preset = "ploinky-container"
		d.Health = &api.Probe{Exec: &api.ExecProbe{Command: api.Command{"check"}}, Failures: 7}
		d.Ready = &api.Probe{TCP: &api.TCPProbe{Address: "h:1"}}
	}))
	if h := own.Health; h.HTTP != nil || h.Failures != 7 || h.Interval.D() != time.Second || h.Backoff.Initial.D() != 10*time.Second ||
		h.Backoff.Max.D() != 300*time.Second || h.Backoff.ResetAfter.D() != 600*time.Second || h.Backoff.Jitter.Mode != "none" {
		t.Errorf("health %+v backoff %+v", h, h.Backoff)
	}
	if own.Ready.OnTimeout != "warn" || own.Ready.HTTP != nil {
		t.Errorf("ready %+v", own.Ready)
	}
	if d := Fill(web(func(d *api.Definition) { d.Preset = "shogo" })); d.Ready != nil {
		t.Errorf("shogo without PORT asks %+v", d.Ready)
	}
}

// TestFillKeepsWhatIsSet (P11): an own key beats the preset, the rest of the
// same block stays the preset's, and the caller's definition is not written to.
func TestFillKeepsWhatIsSet(t *testing.T) {
	t.Parallel()
	zero := api.Duration(0)
	d := web(func(d *api.Definition) {
		d.Preset = "shogo"
		d.Backoff.Max = api.Duration(5 * time.Second)
		d.Backoff.Initial = &zero
		d.NoRestartCodes = []int{}
		d.Stable.Resets = []string{}
		d.Autostart = new(false)
		d.Health = &api.Probe{TCP: &api.TCPProbe{Address: "h:1"}}
	})
	before, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	f := Fill(d)
	if f.Backoff.Max.D() != 5*time.Second || *f.Backoff.Initial != 0 || f.Backoff.Jitter.Frac != 0.2 || len(f.Stable.Resets) != 0 ||
		*f.Autostart || f.Health.Interval.D() != 10*time.Second {
		t.Errorf("filled %+v", f)
	}
	after, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Errorf("Fill wrote to its argument:\n%s\n%s", before, after)
	}
	if r := Fill(web(func(d *api.Definition) { d.Oneshot = true })).Restart; r != api.RestartNever {
		t.Errorf("a oneshot restarts %s", r)
	}
}

func TestFillAllFindsConditions(t *testing.T) {
	t.Parallel()
	on := func(names ...string) (deps []api.Dependency) {
		for _, n := range names {
			deps = append(deps, api.Dependency{Process: n})
		}
		return deps
	}
	tcp := &api.Probe{TCP: &api.TCPProbe{Address: "h:1"}}
	all := FillAll(map[string]api.Definition{
		"job": {Oneshot: true}, "ready": {Ready: tcp, Health: tcp}, "healthy": {Health: tcp}, "plain": {}, "never": {Restart: "never"},
		"web": {DependsOn: on("job", "ready", "healthy", "plain")}, "pid": {Preset: "pidnap", DependsOn: on("never", "ready")},
	})
	var have []string
	for _, name := range []string{"web", "pid"} {
		for _, dep := range all[name].DependsOn {
			have = append(have, dep.Condition)
		}
	}
	if diff := cmp.Diff([]string{"completed", "ready", "healthy", "started", "completed", "started"}, have); diff != "" {
		t.Error(diff)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		d     api.Definition
		field string
	}{
		"N1":           {web(func(d *api.Definition) { d.Stable.After = new(api.Duration) }), "stable.after"},
		"N2":           {web(func(d *api.Definition) { d.Preset = "pidnap" }), "preset"},
		"never":        {web(func(d *api.Definition) { d.Restart, d.MaxRestarts = "never", new(3) }), "max_restarts"},
		"own variable": {web(func(d *api.Definition) { d.Env = map[string]string{"PERDURE_ID": "1"} }), "env.PERDURE_ID"},
		"timeout": {web(func(d *api.Definition) {
			d.Health = &api.Probe{TCP: &api.TCPProbe{Address: "h:1"}, Timeout: api.Duration(time.Minute)}
		}), "health.timeout"},
		"shogo port": {web(func(d *api.Definition) { d.Preset = "shogo" }), "preset"},
		"cooldown":   {web(func(d *api.Definition) { d.Breaker.OnOpen, d.Breaker.Cooldown = "park", 1 }), "breaker.cooldown"},
		"exit code":  {web(func(d *api.Definition) { d.Breaker.ExitCode = 3 }), "breaker.exit_code"},
	} {
		found := Validate(c.d)
		if len(found) != 1 || found[0].Level != levelWarning || found[0].Field != c.field || found[0].Hint == "" {
			t.Errorf("%s: %+v, want one warning at %s", name, found, c.field)
		}
	}
	if found := Validate(web(nil)); len(found) != 0 {
		t.Errorf("a plain definition: %+v", found)
	}
}

// Keeps out Q33.
func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"a": true, "A-b_9": true, "9": true, strings.Repeat("x", 63): true, "": false, "-a": false,
		"_a": false, "a.b": false, "a*": false, "a/b": false, "..": false, "ä": false, strings.Repeat("x", 64): false, "a\n": false} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestCycles(t *testing.T) {
	t.Parallel()
	dep := func(name string) api.Definition {
		return api.Definition{Command: api.Command{"x"}, DependsOn: []api.Dependency{{Process: name}}}
	}
	found := ValidateAll(map[string]api.Definition{"c": dep("a"), "a": dep("b"), "b": dep("c"), "z": dep("a")}, api.Settings{})
	if len(found) != 1 || !strings.HasSuffix(found[0].Message, "a -> b -> c -> a") {
		t.Errorf("%+v", found)
	}
}

func TestShutdownTimeoutIsTheLongestChain(t *testing.T) {
	t.Parallel()
	grace := api.Duration(3 * time.Second)
	st := api.StopPolicy{Grace: &grace}
	defs := map[string]api.Definition{"db": {Stop: st}, "web": {Stop: st, DependsOn: []api.Dependency{{Process: "db"}}}, "other": {Stop: st}}
	if have := FillSettings(api.Settings{}, defs).ShutdownTimeout.D(); have != 13*time.Second {
		t.Errorf("%s, want 2*(3s+1s)+5s", have)
	}
}

func TestSyncEvery(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"": 100 * time.Millisecond, "0s": 0, "0": 0, "2s": 2 * time.Second, "off": -1, "-1s": -time.Second} {
		if have, err := SyncEvery(text); err != nil || have != want {
			t.Errorf("%q: %s %v, want %s", text, have, err, want)
		}
	}
	for _, text := range []string{"100", "never", "1 s"} {
		if have, err := SyncEvery(text); err == nil {
			t.Errorf("%q: %s, want an error", text, have)
		}
	}
	if have := FillSettings(api.Settings{}, nil).Sync; have != "100ms" {
		t.Errorf("filled with %q", have)
	}
}

// Keeps out Q17.
func TestEnv(t *testing.T) {
	t.Parallel()
	base := []string{"PATH=/bin", "HOME=/h", "A=base", "B=base", "PERDURE_ID=outer", "broken", "=x"}
	d := web(func(d *api.Definition) { d.Env = map[string]string{"A": "own", "Z": "=1"} })
	if diff := cmp.Diff([]string{"A=own", "B=base", "HOME=/h", "PATH=/bin", "Z==1"}, Env(d, base)); diff != "" {
		t.Error(diff)
	}
	d.InheritEnv = new(false)
	if diff := cmp.Diff([]string{"A=own", "HOME=/h", "PATH=/bin", "Z==1"}, Env(d, base)); diff != "" {
		t.Error(diff)
	}
}

func TestProcSpec(t *testing.T) {
	t.Parallel()
	d := web(func(d *api.Definition) {
		d.Umask, d.Rlimits, d.User = "027", map[string]string{"nofile": "10:20", "core": "unlimited"}, "nobody"
	})
	mask := 0o27
	want := proc.Spec{Name: "web", Argv: []string{"./web"}, Env: []string{"A=1"}, User: "nobody", Umask: &mask,
		Rlimits: []proc.Rlimit{{Name: "core", Soft: proc.Unlimited, Hard: proc.Unlimited}, {Name: "nofile", Soft: 10, Hard: 20}}}
	have, err := ProcSpec(d, []string{"A=1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
	for _, change := range []func(*api.Definition){func(d *api.Definition) { d.Command = nil }, func(d *api.Definition) { d.Umask = "9" },
		func(d *api.Definition) { d.Rlimits = map[string]string{"core": "x"} }} {
		if _, err := ProcSpec(web(change), nil); err == nil {
			t.Error("a wrong definition was taken")
		}
	}
}

// Keeps out N17 and Q28.
func TestRedact(t *testing.T) {
	t.Parallel()
	d := web(func(d *api.Definition) {
		d.Command = api.Command{"./web", "--password=p1", "--token", "p2", "--port", "80", "postgres://u:p3@h/db", "API_KEY=p4"}
		d.Env = map[string]string{"DB_PASSWORD": "p5", "STRIPE_KEY": "p6", "URL": "https://u:p@7@host/x", "PWD": "/w", "MONKEY": "m", "AUTHOR": "me", "EMPTY_TOKEN": ""}
		d.Health = &api.Probe{HTTP: &api.HTTPProbe{URL: "http://u:p8@h/", Headers: map[string]string{"Authorization": "p9"}},
			Exec: &api.ExecProbe{Command: api.Command{"c", "--secret=p0"}}}
		d.Metadata = map[string]any{"secret": "pa", "list": []any{map[string]any{"apiKey": "pb", "n": 1}}}
	})
	before, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	r := Redact(d)
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"p0", "p1", "p2", "p3", "p4", "p5", "p6", "@7", "p8", "p9", "\"pa\"", "\"pb\""} {
		if strings.Contains(string(data), secret) {
			t.Errorf("%s is shown: %s", secret, data)
		}
	}
	if r.Env["PWD"] != "/w" || r.Env["MONKEY"] != "m" || r.Env["AUTHOR"] != "me" || r.Command[5] != "80" || r.Env["URL"] != "https://***@host/x" {
		t.Errorf("too much is hidden: %s", data)
	}
	if after, err := json.Marshal(d); err != nil || string(after) != string(before) {
		t.Error("Redact wrote to its argument", err)
	}
}

func TestNeedsRestart(t *testing.T) {
	t.Parallel()
	base := web(func(d *api.Definition) { d.Env = map[string]string{"A": "1"} })
	for name, c := range map[string]struct {
		change func(*api.Definition)
		want   bool
	}{
		"nothing":     {func(d *api.Definition) { d.InheritEnv = new(true); d.Rlimits = map[string]string{} }, false},
		"command":     {func(d *api.Definition) { d.Command = api.Command{"./web", "-v"} }, true},
		"words":       {func(d *api.Definition) { d.Command = api.Command{"./we", "b"} }, true},
		"env":         {func(d *api.Definition) { d.Env = map[string]string{"A": "2"} }, true},
		"inherit":     {func(d *api.Definition) { d.InheritEnv = new(false) }, true},
		"dir":         {func(d *api.Definition) { d.Dir = "/x" }, true},
		"user":        {func(d *api.Definition) { d.User = "x" }, true},
		"limits":      {func(d *api.Definition) { d.Rlimits = map[string]string{"core": "0"} }, true},
		"nice":        {func(d *api.Definition) { d.Nice = new(0) }, true},
		"description": {func(d *api.Definition) { d.Description = "x" }, false},
		"metadata":    {func(d *api.Definition) { d.Metadata = map[string]any{"a": 1} }, false},
		"policies":    {func(d *api.Definition) { d.Restart, d.Breaker.Failures, d.Logs.MaxFiles = "never", 9, 9 }, false},
		"depends":     {func(d *api.Definition) { d.DependsOn = []api.Dependency{{Process: "x"}} }, false},
	} {
		changed := web(func(d *api.Definition) { d.Env = map[string]string{"A": "1"}; c.change(d) })
		if have := NeedsRestart(base, changed); have != c.want {
			t.Errorf("%s: %v", name, have)
		}
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	words := []string{"restart", "ready", "rlimits", "depends_on", "env"}
	for in, want := range map[string]string{"restrt": "restart", "retsart": "restart", "Depends-On": "depends_on", "dependson": "depends_on",
		"enb": "env", "zzzz": "", "r": "", "": ""} {
		if have := Suggest(in, words); have != want {
			t.Errorf("%q: %q, want %q", in, have, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.StringN(0, 12, 40).Draw(t, "a"), rapid.StringN(0, 12, 40).Draw(t, "b")
		if x, y := distance(a, b, 100), distance(b, a, 100); x != y || (x == 0) != (a == b) {
			t.Fatalf("%q to %q is %d, back %d", a, b, x, y)
		}
	})
}
