package supervise

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// TestTableIsTotal holds that every pair of state and kind has a rule, and that
// every rule is in words.
func TestTableIsTotal(t *testing.T) {
	t.Parallel()
	used := map[rule]bool{}
	for _, s := range api.States() {
		if rowOf(s) == nil {
			t.Errorf("the table has no row for %s", s)
			continue
		}
		for k := range NumKinds {
			r := ruleOf(s, k)
			if r == 0 || r >= numRules {
				t.Errorf("the table has no rule for %s in %s", k, s)
			}
			used[r] = true
		}
		if means, lives := stateText(s); means == "" || lives == "" {
			t.Errorf("the reference says nothing of %s", s)
		}
	}
	for r := ruleIgnore; r < numRules; r++ {
		if !used[r] || r.says() == "" {
			t.Errorf("rule %d is not in the table or not in words (%q)", r, r.says())
		}
	}
	for k := range NumKinds {
		if k.String() == "" {
			t.Errorf("kind %d has no words", uint8(k))
		}
	}
}

// TestStepOfNothing holds that the zero State is an idle process and that an
// unknown state or kind does nothing.
func TestStepOfNothing(t *testing.T) {
	t.Parallel()
	r := Step(Spec{}, State{}, Input{Kind: Gone})
	if r.State.State != api.StateIdle || r.State.Desired != api.DesiredStopped || len(r.Events)+len(r.Effects) != 0 {
		t.Errorf("the zero state became %+v", r)
	}
	s := State{State: "paused", Desired: api.DesiredRunning}
	for k := range NumKinds + 1 {
		if got := Step(Spec{}, s, Input{Kind: k}); !cmp.Equal(got, Result{State: s}) {
			t.Errorf("%s in an unknown state did something: %s", k, cmp.Diff(Result{State: s}, got))
		}
	}
}

var update = flag.Bool("update", false, "rewrite the generated reference")

// TestStatesReference holds that docs/reference/states.md is what the table says.
func TestStatesReference(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "reference", "states.md")
	want := StatesMarkdown()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is out of date; run: go test ./internal/supervise -run TestStatesReference -update\n%s", path, diff)
	}
}

// TestEffectsThatStart holds that a full disk keeps nothing from being stopped.
func TestEffectsThatStart(t *testing.T) {
	t.Parallel()
	starts := []Do{DoSpawn, DoProbeReady, DoProbeHealth}
	for d := DoSpawn; d <= DoExit; d++ {
		if got, want := (Effect{Do: d}).Starts(), slices.Contains(starts, d); got != want {
			t.Errorf("effect %d: Starts() is %v", d, got)
		}
	}
}
