//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// load is a file of processes that keep everything busy: steady ones, ones that
// crash all the time with the code 3+i%40, and floods of output.
func load(steady, crashers, floods int) (text string, names struct{ steady, crashers, floods []string }) {
	var b strings.Builder
	b.WriteString("version: 1\nprocesses:\n")
	for i := range steady {
		name := fmt.Sprintf("steady%d", i)
		names.steady = append(names.steady, name)
		fmt.Fprintf(&b, "  %s: {command: [sleep, \"100000\"]}\n", name)
	}
	for i := range crashers {
		name := fmt.Sprintf("crasher%d", i)
		names.crashers = append(names.crashers, name)
		fmt.Fprintf(&b, "  %s:\n    command: [sh, crash.sh, %s, \"0.%d\", \"%d\"]\n    restart: always\n"+
			"    backoff: {kind: fixed, initial: 100ms}\n    breaker: {failures: -1}\n", name, name, i%3, crashCode(i))
	}
	for i := range floods {
		name := fmt.Sprintf("flood%d", i)
		names.floods = append(names.floods, name)
		fmt.Fprintf(&b, "  %s:\n    command: [sh, flood.sh]\n    logs: {max_size: 256KiB, max_files: 1000}\n", name)
	}
	return b.String(), names
}

func crashCode(i int) int { return 3 + i%40 }

// floodScript writes numbered lines without end.
const floodScript = `i=0
while :; do
  seq -f 'line %.0f' $((i+1)) $((i+500))
  i=$((i+500))
  sleep 0.05
done
`

// newLoad is a rig under load.
func newLoad(t *testing.T, steady, crashers, floods int) (*rig, struct{ steady, crashers, floods []string }) {
	t.Helper()
	text, names := load(steady, crashers, floods)
	r := newRig(t, text)
	r.write("crash.sh", crashScript)
	r.write("flood.sh", floodScript)
	r.write("runs/.keep", "")
	r.ok("up", "-d", "--no-wait")
	for _, name := range slices.Concat(names.steady, names.floods) {
		r.wait(name, "running")
	}
	return r, names
}

// rest stops everything but keeps the server, so that its log can be read.
func (r *rig) rest() {
	r.t.Helper()
	r.ok("stop", "*")
	for name, pid := range r.pids() {
		if pid != 0 {
			r.t.Errorf("%s still lives after the stop: pid %d", name, pid)
		}
	}
}

// The server is killed twenty times while 50 processes crash and start again all
// the time and five write without end. Nobody notices, and nothing is missing
// (P1, S1 and N3 are the same for the supervisor, below).
func TestServerKilledUnderLoad(t *testing.T) {
	t.Parallel()
	r, names := newLoad(t, 10, 50, 5)
	stay := slices.Concat(names.steady, names.floods)
	before, supervisor := r.identities(stay...), r.info().SupervisorPID
	follower := r.follow()
	const kills = 20
	for i := range kills {
		r.progress(20)
		strike(t, r.info().PID)
		r.ok("up", "-d", "--no-wait")
		info := r.info()
		if info.SupervisorPID != supervisor {
			t.Fatalf("kill %d: the supervisor is %d, it was %d\n%s", i, info.SupervisorPID, supervisor, r.serverLog())
		}
		if diff := cmp.Diff(before, r.identities(stay...), cmp.AllowUnexported(procStat{})); diff != "" {
			t.Fatalf("kill %d was noticed (-before +after):\n%s", i, diff)
		}
	}
	r.writesOn(names.floods, 500)
	r.rest()
	events := r.allEvents()
	c := audit(t, events)
	generations := 0
	for i, name := range names.crashers {
		generations += r.checkRuns(c, name, crashCode(i), false)
	}
	for _, name := range stay {
		if n := len(c.of(t, name)); n != 1 {
			t.Errorf("%s has had %d generations, it should have had 1", name, n)
		}
	}
	for _, name := range names.floods {
		if first, last := r.numbers(name, "stdout", "line"); first != 1 || last < 500 {
			t.Errorf("%s has lines %d to %d", name, first, last)
		}
	}
	stream := follower.through(t, events[len(events)-1].Seq)
	if diff := cmp.Diff(places(events), places(stream)[:len(events)]); diff != "" {
		t.Errorf("the stream is not the log (-log +stream):\n%s", diff)
	}
	t.Logf("%d kills, %d events, %d generations of %d crashers", kills, len(events), generations, len(names.crashers))
	if generations < 2*len(names.crashers) {
		t.Errorf("only %d generations: there was no load", generations)
	}
	r.ok("down")
	if left := r.cgroupsOf(); len(left) > 0 {
		t.Errorf("cgroups are left: %q", left)
	}
}
