package supervise

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/api"
)

func on(names ...string) (deps []Dep) {
	for _, n := range names {
		deps = append(deps, Dep{Process: n, Condition: CondStarted})
	}
	return deps
}

func TestNewGraphNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		all  map[string][]Dep
		want []string
	}{
		{"circle", map[string][]Dep{"a": on("b"), "b": on("a"), "c": on("a")}, []string{"circular dependency: a -> b -> a"}},
		{"itself", map[string][]Dep{"a": on("a")}, []string{"circular dependency: a -> a"}},
		{"long", map[string][]Dep{"a": on("b"), "b": on("c"), "c": on("d"), "d": on("b")}, []string{"circular dependency: b -> c -> d -> b"}},
		{"unknown", map[string][]Dep{"a": on("x"), "b": on("y")},
			[]string{`process "a" depends on "x", which does not exist`, `process "b" depends on "y", which does not exist`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewGraph(tc.all)
			if err == nil {
				t.Fatal("it was taken")
			}
			if diff := cmp.Diff(tc.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGraphOrderAndStop(t *testing.T) {
	t.Parallel()
	g, err := NewGraph(map[string][]Dep{"web": on("api", "cache"), "api": on("db"), "cache": nil, "db": nil, "zoo": {{File: "/x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"db", "api", "cache", "web", "zoo"}, g.Order()); diff != "" {
		t.Errorf("order:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"api"}, g.Dependents("db")); diff != "" {
		t.Errorf("dependents:\n%s", diff)
	}
	// N24: in waves, dependents first, also past one that does not live.
	down, due := g.Teardown([]string{"web", "api", "db", "cache", "zoo"})
	if diff := cmp.Diff([]string{"web", "zoo"}, due); diff != "" {
		t.Errorf("due at once:\n%s", diff)
	}
	if due := down.Gone("api"); due != nil {
		t.Errorf("api was dead and web depends on it, but %v are due", due)
	}
	due = down.Gone("web")
	slices.Sort(due)
	if diff := cmp.Diff([]string{"cache", "db"}, due); diff != "" {
		t.Errorf("due after web:\n%s", diff)
	}
	if due := append(down.Gone("web"), down.Gone("nobody")...); due != nil || down.Left() != 3 {
		t.Errorf("due %v, left %d", due, down.Left())
	}
	if _, due := g.Teardown([]string{"db"}); !slices.Equal(due, []string{"db"}) {
		t.Errorf("db alone, though web lives: %v", due)
	}
	if _, due := g.Teardown([]string{"unknown"}); !slices.Equal(due, []string{"unknown"}) {
		t.Errorf("a process that the graph does not know: %v", due)
	}
}

// TestGraphRandom holds that any graph without a circle is ordered and stopped
// completely, and that no process is stopped before what depends on it.
func TestGraphRandom(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		all := map[string][]Dep{}
		for i := range n {
			name := fmt.Sprintf("p%02d", (i*7)%n*13+i)
			all[name] = nil
		}
		names := make([]string, 0, n)
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		for i, name := range names {
			for j := range i {
				if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
					all[name] = append(all[name], on(names[j])...)
				}
			}
		}
		g, err := NewGraph(all)
		if err != nil {
			t.Fatal(err)
		}
		order := g.Order()
		if len(order) != len(all) {
			t.Fatalf("order has %d of %d", len(order), len(all))
		}
		live := map[string]bool{}
		for i, name := range order {
			live[name] = true
			for _, d := range all[name] {
				if slices.Index(order, d.Process) > i {
					t.Fatalf("%s comes before %s", name, d.Process)
				}
			}
		}
		down, due := g.Teardown(order)
		for len(due) > 0 {
			i := rapid.IntRange(0, len(due)-1).Draw(t, "next")
			name := due[i]
			due = slices.Delete(due, i, i+1)
			for other := range live {
				if live[other] && slices.ContainsFunc(all[other], func(d Dep) bool { return d.Process == name }) {
					t.Fatalf("%s may be stopped while %s lives", name, other)
				}
			}
			live[name] = false
			due = append(due, down.Gone(name)...)
		}
		if down.Left() != 0 {
			t.Fatalf("%d are left", down.Left())
		}
		for name, l := range live {
			if l {
				t.Fatalf("%s is never stopped", name)
			}
		}
	})
}

// Keeps out S10.
func TestEval(t *testing.T) {
	t.Parallel()
	ok := &Exit{Generation: 1, Cause: "exit"}
	bad := &Exit{Generation: 1, Cause: "exit", Code: 1, Failure: true}
	for _, tc := range []struct {
		name      string
		condition string
		state     State
		want      DepStatus
	}{
		{"pending is not started", CondStarted, State{State: api.StateStarting, SpawnPending: true}, DepsUnmet},
		{"spawned is started", CondStarted, State{State: api.StateStarting, PID: 1, Alive: true}, DepsMet},
		{"running is started", CondStarted, State{State: api.StateRunning, PID: 1}, DepsMet},
		{"done is started", CondStarted, State{State: api.StateExited, Generation: 1, Exit: ok}, DepsMet},
		{"crashed is not started", CondStarted, State{State: api.StateBackoff, Generation: 1, Exit: bad}, DepsUnmet},
		{"stopping is not started", CondStarted, State{State: api.StateStopping, PID: 1, Alive: true}, DepsUnmet},
		{"idle is not started", CondStarted, State{State: api.StateIdle}, DepsUnmet},
		{"crash loop may come back", CondStarted, State{State: api.StateCrashLoop, Generation: 1, Exit: bad}, DepsUnmet},
		{"parked", CondStarted, State{State: api.StateFailed, Reason: api.ReasonBreaker}, DepsFailed},
		{"transitive", CondStarted, State{State: api.StateDependencyFailed}, DepsFailed},
		{"by hand", CondReady, State{State: api.StateStopped}, DepsUnmet},
		{"running, not ready", CondReady, State{State: api.StateRunning, PID: 1}, DepsUnmet},
		{"ready", CondReady, State{State: api.StateRunning, Ready: true, PID: 1}, DepsMet},
		{"N14: ready is not healthy", CondHealthy, State{State: api.StateRunning, Ready: true, Health: api.HealthUnknown}, DepsUnmet},
		{"healthy", CondHealthy, State{State: api.StateRunning, Health: api.HealthHealthy}, DepsMet},
		{"unhealthy", CondHealthy, State{State: api.StateRunning, Health: api.HealthUnhealthy}, DepsUnmet},
		{"completed", CondCompleted, State{State: api.StateExited, Generation: 1, Exit: ok}, DepsMet},
		{"N14: completed, stopped afterwards", CondCompleted, State{State: api.StateStopped, Generation: 1, Exit: ok}, DepsMet},
		{"N14: completed, reset afterwards", CondCompleted, State{State: api.StateIdle, Generation: 1, Exit: ok}, DepsMet},
		{"runs again", CondCompleted, State{State: api.StateRunning, Generation: 2, PID: 2, Exit: ok}, DepsUnmet},
		{"ended badly for good", CondCompleted, State{State: api.StateFailed, Reason: api.ReasonExit, Generation: 1, Exit: bad}, DepsFailed},
		{"ended badly, tried again", CondCompleted, State{State: api.StateBackoff, Generation: 1, Exit: bad}, DepsUnmet},
		{"ended by a stop", CondCompleted, State{State: api.StateStopped, Generation: 1, Exit: &Exit{Generation: 1, Cause: "request", Expected: true}}, DepsUnmet},
		{"N2: a signal is no completion", CondCompleted, State{State: api.StateExited, Generation: 1,
			Exit: &Exit{Generation: 1, Cause: "exit", Code: 137, Signal: "SIGKILL"}}, DepsFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, detail := Eval([]Dep{{Process: "db", Condition: tc.condition}}, func(string) (Target, bool) { return Target{State: &tc.state}, true })
			if got != tc.want || (got == DepsMet) != (detail == "") {
				t.Errorf("%s %q, want %s", got, detail, tc.want)
			}
		})
	}
}

func TestEvalOfSeveral(t *testing.T) {
	t.Parallel()
	up := &State{State: api.StateRunning, PID: 1}
	down := &State{State: api.StateIdle}
	dead := &State{State: api.StateFailed, Detail: "exited with code 1"}
	world := map[string]Target{"up": {State: up}, "down": {State: down}, "dead": {State: dead},
		FileKey("/ready"): {Exists: true}, FileKey("/late"): {TimedOut: true}, FileKey("up"): {}}
	view := func(n string) (Target, bool) { t, ok := world[n]; return t, ok }
	file := func(p string) []Dep { return []Dep{{File: p, Timeout: time.Minute}} }
	for _, tc := range []struct {
		deps   []Dep
		want   DepStatus
		detail string
	}{
		{nil, DepsNone, ""},
		{on("up"), DepsMet, ""},
		{slices.Concat(on("up"), file("/ready")), DepsMet, ""},
		{on("up", "down"), DepsUnmet, "waits for down to be started; it is idle"},
		{on("down", "up", "dead"), DepsFailed, "depends on dead, which is failed: exited with code 1"},
		{on("nobody"), DepsFailed, "depends on nobody, which does not exist"},
		{file("/late"), DepsFailed, "the file /late has not appeared within 1m0s"},
		{file("up"), DepsUnmet, "waits for the file up"},
		{file("/unseen"), DepsUnmet, "waits for the file /unseen"},
	} {
		if got, detail := Eval(tc.deps, view); got != tc.want || detail != tc.detail {
			t.Errorf("%v: %s %q, want %s %q", tc.deps, got, detail, tc.want, tc.detail)
		}
	}
}
