//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// familyScript starts one descendant of each kind that may escape from a stop: a
// plain child, one in a session of its own, one that was forked twice, and one
// with both. Each ignores TERM and HUP and writes its pid down.
const familyScript = `
cat > member.sh <<'EOF'
trap '' TERM HUP INT
echo $$ > "$1.new"; mv "$1.new" "$1"
while :; do sleep 0.2; done
EOF
sh member.sh plain &
setsid sh member.sh session &
(sh member.sh twice &)
(setsid sh member.sh both &)
for f in plain session twice both; do while [ ! -e $f ]; do sleep 0.01; done; done
touch all
while :; do sleep 0.2; done
`

// After a stop nothing of a process is left, whatever its descendants have done
// to get away (P4, R4, S4), with a cgroup and without; so it is after a restart,
// after the leader alone was killed, and under a supervisor that adopted it.
func TestEscapedDescendantsEnd(t *testing.T) {
	t.Parallel()
	for _, mode := range cgroupModes() {
		for _, way := range []string{"stop", "restart", "leader killed", "adopted"} {
			t.Run(mode+" "+way, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, `
processes:
  family:
    command: [sh, family.sh]
    stop: {grace: 100ms}
    restart: never
    ready: {exec: {command: [test, -e, all]}, interval: 50ms}
`)
				r.env = append(r.env, "PERDURE_CGROUP="+mode)
				r.write("family.sh", familyScript)
				r.ok("up", "-d")
				leader := r.wait("family", "ready")
				var members []procStat
				for _, name := range []string{"plain", "session", "twice", "both"} {
					pid := r.number(name, 0)
					st, ok := statOf(pid)
					if !ok {
						t.Fatalf("%s (pid %d) does not live", name, pid)
					}
					members = append(members, st)
				}
				switch way {
				case "stop":
					r.ok("stop", "family")
				case "restart":
					for _, name := range []string{"all", "plain", "session", "twice", "both"} {
						r.remove(name)
					}
					r.ok("restart", "family")
				case "leader killed":
					strike(t, leader.PID)
					r.wait("family", "failed")
				case "adopted":
					info := r.info()
					strike(t, info.SupervisorPID)
					r.newSupervisor(info.SupervisorPID)
					r.ok("stop", "family")
				}
				if left := stillThere(members); len(left) > 0 {
					t.Errorf("%d of %d survive: %+v", len(left), len(members), left)
				}
				audit(t, r.allEvents())
				r.ok("down")
				r.nothingLeft()
				if left := r.cgroupsOf(); len(left) > 0 {
					t.Errorf("cgroups are left: %q", left)
				}
			})
		}
	}
}

// writerScript writes numbered lines on both streams, in pieces, so that it goes
// on while Perdure is killed: writer.sh PIECES LINES.
const writerScript = `i=0
while [ $i -lt "$1" ]; do
  seq -f 'out %.0f filling filling filling filling' $((i*$2+1)) $((i*$2+$2))
  seq -f 'err %.0f filling filling filling filling' $((i*$2+1)) $((i*$2+$2)) >&2
  i=$((i+1))
  sleep 0.02
done
while :; do sleep 1000; done
`

// writers is a file of n writers whose logs rotate and are compressed.
func writers(n, pieces, lines int) string {
	var b strings.Builder
	b.WriteString("processes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  writer%d:\n    command: [sh, writer.sh, \"%d\", \"%d\"]\n"+
			"    logs: {max_size: 64KiB, max_files: 100000, compress: true}\n", i, pieces, lines)
	}
	return b.String()
}

// Of a process that was adopted everything but a descendant in a session of its own
// ends by the signal. That one is no orphan of the supervisor, which is not its
// ancestor, and ends with the process all the same.
func TestEscapeeOfTheAdoptedEnds(t *testing.T) {
	t.Parallel()
	for _, mode := range cgroupModes() {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "processes:\n  family: {command: [sh, family.sh], stop: {grace: 100ms}}\n")
			r.env = append(r.env, "PERDURE_CGROUP="+mode)
			r.write("family.sh", `
setsid sh -c 'trap "" TERM HUP; echo $$ > left.new; mv left.new left; while :; do sleep 0.1; done' &
while :; do sleep 0.1; done
`)
			r.ok("up", "-d")
			st, ok := statOf(r.number("left", 0))
			if !ok {
				t.Fatal("the descendant does not live: this proves nothing")
			}
			before := r.info().SupervisorPID
			strike(t, before)
			r.newSupervisor(before)
			r.ok("stop", "family")
			if left := stillThere([]procStat{st}); len(left) > 0 {
				t.Errorf("after the stop there is %+v", left)
			}
			r.ok("down")
		})
	}
}
