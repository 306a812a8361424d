package e2e

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// A wait that outlives both parts goes by the boot clock, wherever the wall clock
// stands when they come again. Here the boot clock has gone on for two hours
// meanwhile and the wall clock has not: as if that had been set back by two hours.
func TestWaitsGoByTheBootClock(t *testing.T) {
	t.Parallel()
	shifted := []string{"--time", "--boottime", "7200"}
	if out, err := exec.Command("unshare", append(shifted, "true")...).CombinedOutput(); err != nil {
		t.Skipf("cannot shift the boot clock (root can, since Linux 5.6): %v %s", err, out)
	}
	r := newRig(t, `
processes:
  hour: {command: [sh, -c, "exit 3"], backoff: {kind: fixed, initial: 1h, max: 1h, jitter: {mode: none}}, breaker: {failures: -1}}
  hours: {command: [sh, -c, "exit 3"], backoff: {kind: fixed, initial: 5h, max: 5h, jitter: {mode: none}}, breaker: {failures: -1}}
`)
	r.ok("up", "-d", "--no-wait")
	for _, name := range []string{"hour", "hours"} {
		r.wait(name, "backoff")
	}
	info := r.info()
	strikeAll(t, info.PID, info.SupervisorPID)
	up := r.command(context.Background(), "up", "-d", "--no-wait")
	path, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	up.Path, up.Args = path, append(append([]string{"unshare"}, shifted...), bin(), "up", "-d", "--no-wait")
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s%s", err, out, r.serverLog())
	}
	r.event(0, "hour", "process.backoff", func(e api.Event) bool { return e.Generation == 2 })
	p := r.process("hours")
	if p.Generation != 1 || p.NextStart == nil {
		t.Fatalf("hours: %+v", p)
	}
	// Two of the five hours are over.
	if left := time.Until(*p.NextStart); left > 3*time.Hour || left < 3*time.Hour-patience {
		t.Errorf("it is started in %s, that should be 3 hours", left)
	}
	r.ok("down")
}
