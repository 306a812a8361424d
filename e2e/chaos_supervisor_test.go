//go:build linux

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// newSupervisor waits until another supervisor than an earlier one is attached.
func (r *rig) newSupervisor(before int) {
	r.t.Helper()
	eventually(r.t, "another supervisor", func() bool {
		now := r.info().SupervisorPID
		return now != 0 && now != before
	})
}

// same fails unless the processes are those of before, each the same generation.
func (r *rig) same(what string, before map[string]procStat, names []string) {
	r.t.Helper()
	if diff := cmp.Diff(before, r.identities(names...), cmp.AllowUnexported(procStat{})); diff != "" {
		r.t.Fatalf("%s was noticed (-before +after):\n%s%s", what, diff, r.serverLog())
	}
}

// The supervisor is killed under load, then both parts are, in either order:
// what lived lives on under the next one, nothing runs twice, and no line is
// lost (P1, P2, P3, S1, N3).
func TestSupervisorKilledUnderLoad(t *testing.T) {
	t.Parallel()
	r, names := newLoad(t, 5, 15, 2)
	stay := slices.Concat(names.steady, names.floods)
	before := r.identities(stay...)
	for i := range 4 {
		r.progress(20)
		supervisor := r.info().SupervisorPID
		strike(t, supervisor)
		r.newSupervisor(supervisor)
		r.same(fmt.Sprintf("kill %d of the supervisor", i), before, stay)
	}
	for i := range 4 {
		r.progress(20)
		both := r.info()
		order := []int{both.PID, both.SupervisorPID}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		strikeAll(t, order...)
		r.ok("up", "-d", "--no-wait")
		r.same(fmt.Sprintf("kill %d of both", i), before, stay)
	}
	r.progress(20)
	r.writesOn(names.floods, 500)
	r.rest()
	c := audit(t, r.allEvents())
	for i, name := range names.crashers {
		r.checkRuns(c, name, crashCode(i), true)
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
	r.ok("down")
	if left := r.cgroupsOf(); len(left) > 0 {
		t.Errorf("cgroups are left: %q", left)
	}
}

// What was adopted is no child of ours, and yet its exit code is known where the
// kernel keeps it (PIDFD_INFO_EXIT, Linux 6.15) or a server is its parent.
func TestExitCodeOfTheAdopted(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  seven:
    command: [sh, -c, 'trap "exit 7" USR1; echo up; while :; do sleep 0.05; done']
    restart: never
    ready: {exec: {command: [sh, -c, "grep -q up .perdure/logs/seven/current.log"]}, interval: 50ms}
`)
	r.ok("up", "-d")
	before := r.wait("seven", "ready")
	info := r.info()
	strike(t, info.SupervisorPID)
	r.newSupervisor(info.SupervisorPID)
	if p := r.process("seven"); p.PID != before.PID || p.Generation != 1 || p.ID != before.ID || !p.Ready {
		t.Fatalf("adopted %+v, it was %+v", p, before)
	}
	if err := syscall.Kill(before.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	e := r.event(0, "seven", "process.exited", nil)
	code, known := fields(t, e)["code"].(float64)
	unknowable := slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, "does not keep exit codes") })
	// The server is the parent of what the supervisor has left, and tells it then.
	if !known && !unknowable || known && code != 7 {
		t.Errorf("exit %s; the kernel keeps codes: %v", e.Data, !unknowable)
	}
	r.ok("down")
}

// findings are what doctor says.
func (r *rig) findings() []api.Finding {
	r.t.Helper()
	out, err := r.client().Doctor(bounded(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// A leader ends while nobody watches and leaves a descendant in another session.
// It is ended before the next generation starts.
func TestLeftoversOfADeadLeader(t *testing.T) {
	t.Parallel()
	for _, mode := range cgroupModes() {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "processes:\n  leaver: {command: [sh, leaver.sh], stop: {grace: 100ms}, backoff: {kind: fixed, initial: 10ms}, breaker: {failures: -1}}\n")
			r.env = append(r.env, "PERDURE_CGROUP="+mode)
			r.write("leaver.sh", `
if [ -e left ]; then
  case "$(cut -d' ' -f3 /proc/$(cat left)/stat 2>/dev/null)" in ''|Z) ;; *) echo "$(cat left) lives" > overlap ;; esac
fi
setsid sh -c 'trap "" TERM HUP; echo $$ > left.new; mv left.new left; while :; do sleep 0.1; done' &
while :; do sleep 0.1; done
`)
			r.ok("up", "-d")
			before := r.wait("leaver", "running")
			left := r.number("left", 0)
			info := r.info()
			strikeAll(t, info.PID, info.SupervisorPID, before.PID)
			if !alive(left) {
				t.Fatal("the leftover died with its leader: this proves nothing")
			}
			r.ok("up", "-d", "--no-wait")
			after := r.generation("leaver", before.Generation)
			if again := r.number("left", left); alive(left) || again == left {
				t.Errorf("pid %d of generation 1 lives beside generation %d", left, after.Generation)
			}
			if b, err := os.ReadFile(r.path("overlap")); err == nil {
				t.Errorf("the next generation was started beside the rest of the first: %s", b)
			}
			audit(t, r.allEvents())
			r.ok("down")
			r.nothingLeft()
		})
	}
}

// nothingLeft waits until the last of the rig's processes has ended, which may be
// the server itself.
func (r *rig) nothingLeft() {
	r.t.Helper()
	eventually(r.t, "the end of everything", func() bool { return len(r.marked()) == 0 })
}

// number waits for another number in a file than an earlier one.
func (r *rig) number(name string, before int) (n int) {
	r.t.Helper()
	eventually(r.t, "a number in "+name, func() bool {
		b, err := os.ReadFile(r.path(name))
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(b), &n)
		return err == nil && n != before
	})
	return n
}

// cgroupModes are the values of PERDURE_CGROUP: with a cgroup for each process
// where the system can, and without.
func cgroupModes() []string { return []string{"on", "off"} }
