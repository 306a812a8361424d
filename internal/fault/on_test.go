//go:build faults

package fault

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPlanIsReadStrictly(t *testing.T) {
	t.Parallel()
	plan, err := parse("journal.sync=error:2, journal.append.before=delay:1ns")
	if err != nil {
		t.Fatal(err)
	}
	a := plan["journal.sync"]
	if err := a.pass("journal.sync", ""); err != nil {
		t.Errorf("first pass: %v", err)
	}
	for range 2 {
		if err := a.pass("journal.sync", ""); !errors.Is(err, ErrInjected) {
			t.Errorf("later pass: %v", err)
		}
	}
	if d := plan["journal.append.before"]; d.delay != time.Nanosecond || d.pass("x", "") != nil {
		t.Errorf("%v", d.delay)
	}
	for _, bad := range []string{"nonsense=kill", "journal.sync", "journal.sync=explode", "journal.sync=kill:x", "journal.sync=delay:", "*=bang"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if plan, err = parse("*=count"); err != nil || len(plan) != len(Points()) {
		t.Errorf("all points: %d of %d, %v", len(plan), len(Points()), err)
	}
}

// Two processes (two plans, here) that pass the same point count together.
func TestPassesAreCountedOverProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for n := 1; n <= 4; n++ {
		plan, err := parse("journal.sync=error:3")
		if err != nil {
			t.Fatal(err)
		}
		err = plan["journal.sync"].pass("journal.sync", dir)
		if failed := errors.Is(err, ErrInjected); failed != (n >= 3) {
			t.Errorf("pass %d: %v", n, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "journal.sync"))
	if err != nil || len(b) != 4 {
		t.Errorf("%d passes are counted: %v", len(b), err)
	}
}
