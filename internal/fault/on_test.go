//go:build faults

package fault

import (
	"errors"
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
	if err := a.pass("journal.sync"); err != nil {
		t.Errorf("first pass: %v", err)
	}
	for range 2 {
		if err := a.pass("journal.sync"); !errors.Is(err, ErrInjected) {
			t.Errorf("later pass: %v", err)
		}
	}
	if d := plan["journal.append.before"]; d.delay != time.Nanosecond || d.pass("x") != nil {
		t.Errorf("%v", d.delay)
	}
	for _, bad := range []string{"nonsense=kill", "journal.sync", "journal.sync=explode", "journal.sync=kill:x", "journal.sync=delay:"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
