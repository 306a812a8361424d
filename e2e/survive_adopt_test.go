//go:build linux

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// memory is all of a record that a death of the supervisor must not change.
func memory(p api.Process) api.Process {
	p.Uptime, p.CPU, p.Memory, p.Processes = 0, 0, 0, 0 // they go on
	return p
}

// Whatever is known of a process is known to the next supervisor: identity,
// counters, the wait for the next start, readiness and health, and the events
// that the breaker counts.
// Keeps out Q32.
func TestAdoptionKeepsEverything(t *testing.T) {
	t.Parallel()
	for _, both := range []bool{false, true} {
		t.Run(map[bool]string{false: "supervisor", true: "both parts"}[both], func(t *testing.T) {
			t.Parallel()
			r := newRig(t, `
processes:
  ready:
    command: [sleep, "1000"]
    ready: {exec: {command: ["true"]}, interval: 50ms}
    health: {exec: {command: ["true"]}, interval: 50ms}
  ill:
    command: [sleep, "1001"]
    health: {exec: {command: ["false"]}, interval: 50ms, failures: 2, on_fail: event}
  gate:
    command: [sleep, "1002"]
    ready: {exec: {command: [test, -e, open]}, interval: 50ms, deadline: 1h}
  waits:
    command: [sh, -c, "exit 3"]
    backoff: {kind: fixed, initial: 1h, max: 1h}
    breaker: {failures: -1}
  fickle:
    command: [sh, fickle.sh]
    backoff: {kind: fixed, initial: 1ms, max: 1ms}
    breaker: {failures: 3, window: 1h, on_open: park}
    stable: {after: 1h}
  off:
    command: [sleep, "1003"]
`)
			r.write("fickle.sh", "while ! test -e fall$PERDURE_GENERATION; do sleep 0.02; done\nexit 4\n")
			r.ok("up", "-d", "--no-wait")
			r.wait("ready", "healthy")
			r.event(0, "gate", "process.started", nil)
			r.event(0, "ill", "process.unhealthy", nil)
			r.event(0, "waits", "process.backoff", nil)
			for _, n := range []string{"1", "2"} {
				r.write("fall"+n, "")
			}
			r.event(0, "fickle", "process.started", func(e api.Event) bool { return e.Generation == 3 })
			r.ok("stop", "off")
			names := []string{"ready", "ill", "gate", "waits", "fickle", "off"}
			before := map[string]api.Process{}
			for _, name := range names {
				before[name] = memory(r.process(name))
			}
			info := r.info()
			if both {
				strikeAll(t, info.PID, info.SupervisorPID)
				r.ok("up", "-d", "--no-wait")
			} else {
				strike(t, info.SupervisorPID)
				r.newSupervisor(info.SupervisorPID)
			}
			for _, name := range names {
				was, is := before[name], memory(r.process(name))
				if name == "ill" {
					// It goes on to fail.
					was.HealthFailures, was.LastError = is.HealthFailures, is.LastError
				}
				if diff := cmp.Diff(was, is, cmp.Comparer(closeTimes)); diff != "" {
					t.Errorf("%s (-before +after):\n%s", name, diff)
				}
			}
			// The third failure opens the breaker: the two before are remembered.
			r.write("fall3", "")
			r.event(0, "fickle", "process.breaker_open", nil)
			// The gate is asked on.
			r.write("open", "")
			r.wait("gate", "ready")
			audit(t, r.allEvents())
			r.ok("down")
		})
	}
}

// closeTimes compares times that are reckoned from two clocks at each reading.
func closeTimes(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second }

// A recorded pid belongs to another program by now. That is left alone, and what
// had it is told as ended (P3, K8). It happens in a namespace of processes of its
// own, in which pids can be given at will.
func TestReusedPIDIsLeftAlone(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a namespace of processes")
	}
	need(t, "unshare")
	r := newRig(t, `
processes:
  web:
    command: [sh, web.sh]
`)
	r.write("web.sh", "echo $$ > pid.new; mv pid.new pid$PERDURE_GENERATION; exec sleep 1000\n")
	r.write("reuse.sh", `
set -e
until_() { while ! "$@"; do sleep 0.02; done; }
owner() { cut -d" " -f1 .perdure/$1; }
"$1" up -d
until_ test -e pid1
pid=$(cat pid1)
all="$(owner lock) $(owner supervisor.lock) $pid"
kill -STOP $all
kill -KILL $all
until_ sh -c "! test -d /proc/$pid"
echo $((pid-1)) > /proc/sys/kernel/ns_last_pid; sleep 2000 & stranger=$!
echo "pid $pid stranger $stranger"
"$1" up -d --no-wait
until_ test -e pid2
"$1" events --name web --json > events
"$1" restart web
until_ test -e pid3
"$1" down
kill -0 $stranger && echo "the stranger lives"
kill -9 $stranger
`)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "reuse.sh", bin())
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, r.serverLog())
	}
	pid := strings.TrimSpace(r.read("pid1"))
	if !strings.Contains(string(out), "pid "+pid+" stranger "+pid+"\n") {
		t.Fatalf("the pid was not given anew: this proves nothing\n%s", out)
	}
	if !strings.Contains(string(out), "the stranger lives") {
		t.Errorf("the stranger was touched\n%s%s", out, r.serverLog())
	}
	if strings.TrimSpace(r.read("pid2")) == pid {
		t.Error("the stranger was taken for the process")
	}
	exits := 0
	for line := range strings.Lines(r.read("events")) {
		if strings.Contains(line, "process.exited") {
			exits++
			if !strings.Contains(line, `"cause":"unknown"`) || !strings.Contains(line, `"code":null`) {
				t.Errorf("told as %s", line)
			}
		}
	}
	if exits != 1 {
		t.Errorf("%d exits were told", exits)
	}
	if left, err := filepath.Glob(r.path("pid4")); err != nil || left != nil {
		t.Errorf("%v %v", left, err)
	}
}
