//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// footprint is what the two parts of Perdure take.
type footprint struct {
	serverFiles, supervisorFiles int
	serverKB, supervisorKB       int
}

func (r *rig) footprint() footprint {
	info := r.info()
	return footprint{openFiles(r.t, info.PID), openFiles(r.t, info.SupervisorPID), private(r.t, info.PID), private(r.t, info.SupervisorPID)}
}

// private is the memory in KiB that a process has for itself, what it shares with
// others of the same program not counted (proc_pid_smaps(5)).
func private(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "Anonymous:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no Anonymous in smaps_rollup")
	return 0
}

// many is a file of n small processes that come back at once.
func many(n int) string {
	if n == 0 {
		return "version: 1\nprocesses: {}\n"
	}
	var b strings.Builder
	b.WriteString("version: 1\nprocesses:\n")
	for i := range n {
		fmt.Fprintf(&b, "  p%d:\n    command: [sh, -c, 'echo up; exec sleep 100000']\n"+
			"    backoff: {kind: fixed, initial: 50ms}\n    breaker: {failures: -1}\n    stop: {grace: 1s}\n", i)
	}
	return b.String()
}

// massacre kills processes at random for a while and returns how many.
func (r *rig) massacre(d time.Duration) (kills int) {
	end := time.After(d)
	for {
		for _, pid := range r.pids() {
			// A pid may be gone by now; a stranger cannot have it so soon.
			if pid > 1 && rand.IntN(4) == 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
				kills++
			}
		}
		select {
		case <-end:
			return kills
		case <-tick():
		}
	}
}

// zombies are the dead children of a process that nobody has waited for.
func zombies(parent int) (out []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is sound
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if st, ok := statOf(pid); ok && st.state == "Z" && st.ppid == parent {
			out = append(out, pid)
		}
	}
	return out
}

// allUp waits until all processes of the rig run.
func (r *rig) allUp(n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d processes that run", n), func() bool {
		list, err := r.client().Processes(bounded(r.t))
		if err != nil {
			r.t.Fatal(err)
		}
		up := 0
		for i := range list {
			if list[i].State == api.StateRunning {
				up++
			}
		}
		return up == n
	})
}

// round starts n processes, kills them at random, and removes them all.
func (r *rig) round(n int, d time.Duration) (kills int) {
	r.t.Helper()
	r.write("perdure.yaml", many(n))
	r.ok("reload")
	r.allUp(n)
	kills = r.massacre(d)
	r.allUp(n)
	r.write("perdure.yaml", many(0))
	r.ok("reload")
	eventually(r.t, "the removal of all", func() bool { return len(r.pids()) == 0 })
	return kills
}

// Processes are killed at random, many at a time, come back, and are removed.
// Nothing of them is left: no zombie, no descriptor, no cgroup, no FIFO, no
// goroutine, and no memory beyond what the first such round has taken (P4, P17).
func TestChurnLeavesNothing(t *testing.T) {
	t.Parallel()
	n, d := scale(100, 1000), time.Duration(scale(2, 60))*time.Second
	r := newRig(t, many(0))
	r.ok("up", "-d")
	r.round(n, d/2) // pools and caches grow to their size
	before := r.footprint()
	kills := r.round(n, d)
	info := r.info()
	if left := append(zombies(info.PID), zombies(info.SupervisorPID)...); len(left) > 0 {
		t.Errorf("zombies are left: %v", left)
	}
	// A connection of ours may be closing still.
	eventually(t, "descriptors as before", func() bool {
		now := r.footprint()
		return now.serverFiles <= before.serverFiles+2 && now.supervisorFiles <= before.supervisorFiles
	})
	after := r.footprint()
	slack := 8<<10 + before.supervisorKB/2
	if after.supervisorKB > before.supervisorKB+slack || after.serverKB > before.serverKB+slack+before.serverKB/2 {
		t.Errorf("memory has grown: %+v, it was %+v", after, before)
	}
	if left := r.cgroupsOf(); len(left) > 1 {
		t.Errorf("cgroups are left: %q", left)
	}
	if fifos, err := filepath.Glob(filepath.Join(r.state(), "run", "*")); err != nil || len(fifos) > 0 {
		t.Errorf("FIFOs are left: %d %v", len(fifos), err)
	}
	if logs, err := filepath.Glob(filepath.Join(r.state(), "logs", "*")); err != nil || len(logs) > 0 {
		t.Errorf("logs of removed processes are left: %d %v", len(logs), err)
	}
	audit(t, r.allEvents())
	t.Logf("%d kills of %d processes; before %+v, after %+v", kills, n, before, after)
	if kills < n {
		t.Errorf("only %d kills: this proves little", kills)
	}
	fresh := newRig(t, many(0))
	fresh.ok("up", "-d")
	for _, part := range []string{"server", "supervisor"} {
		if got, want := r.goroutines(part), fresh.goroutines(part); got > want+2 {
			t.Errorf("the %s has %d goroutines, a fresh one has %d", part, got, want)
		}
	}
	fresh.ok("up", "-d", "--no-wait") // both parts have died of the dump
	r.ok("up", "-d", "--no-wait")
	fresh.ok("down")
	r.ok("down")
}

var goroutine = regexp.MustCompile(`(?m)^goroutine \d+`)

// goroutines ends a part of Perdure with SIGQUIT, which makes the Go runtime
// write down all goroutines, and counts them. The server goes first.
func (r *rig) goroutines(part string) int {
	r.t.Helper()
	path := filepath.Join(r.state(), part+".log")
	b, err := os.ReadFile(filepath.Join(r.state(), map[string]string{"server": "lock", "supervisor": "supervisor.lock"}[part]))
	if err != nil {
		r.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		r.t.Fatalf("the lock of the %s has %q", part, b)
	}
	fi, err := os.Stat(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the end of the "+part, func() bool { return !alive(pid) })
	b, err = os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	n := len(goroutine.FindAll(b[fi.Size():], -1))
	if n == 0 {
		r.t.Fatalf("the %s has written no dump:\n%s", part, b[fi.Size():])
	}
	return n
}
