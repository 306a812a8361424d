//go:build unix

package e2e

import (
	"strconv"
	"strings"
	"testing"
)

// threadSignals are 32 and 33, which the C library keeps for its threads: what
// its posix_spawn starts, as make does, begins with them ignored (nptl(7)).
const threadSignals = 1<<31 | 1<<32

// What a supervisor ignores stays ignored in the programs that it executes: a
// shell could then not even trap it, and daemons that reload on SIGHUP would not.
func TestProgramsBeginWithDefaultSignals(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  signals:
    command: [grep, "^Sig[BI]", /proc/self/status]
    oneshot: true
  plain:
    command: [sh, -c, "trap 'echo got hangup' HUP; touch up; while :; do sleep 0.05; done"]
    ready: {exec: {command: [test, -e, up]}, interval: 20ms}
`)
	r.ok("up", "-d")
	r.wait("signals", "completed")
	for line := range strings.Lines(r.ok("logs", "signals", "--no-color")) {
		name, mask, ok := strings.Cut(line, ":\t")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err != nil || set&^threadSignals != 0 {
			t.Errorf("the program began with %s %s: %v", strings.TrimSpace(name), mask, err)
		}
	}
	r.wait("plain", "ready")
	r.ok("signal", "HUP", "plain")
	eventually(t, "the trap of the hangup", func() bool { return strings.Contains(r.ok("logs", "plain"), "got hangup") })
	r.ok("down")
}
