//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
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
			if rand.IntN(4) > 0 {
				continue
			}
			// A pid may be gone by now, or dead and not waited for, which is no
			// kill; a stranger cannot have it so soon.
			st, ok := statOf(pid)
			if pid > 1 && ok && st.state != "Z" && syscall.Kill(pid, syscall.SIGKILL) == nil {
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

// progress waits until nothing is left to come. It gives up when there has been
// no less of it for as long as patience, so that no machine is too slow for it.
func progress(t *testing.T, what string, left func() int) {
	t.Helper()
	least, since := left(), time.Now()
	for least > 0 {
		<-tick()
		switch now := left(); {
		case now < least:
			least, since = now, time.Now()
		case time.Since(since) > patience:
			t.Fatalf("in vain: %s; %d are left", what, now)
		}
	}
}

// allUp waits until all processes of the rig run, each with the pid of a child
// of the supervisor, and no other child is there.
func (r *rig) allUp(n int) {
	r.t.Helper()
	supervisor := r.info().SupervisorPID
	progress(r.t, fmt.Sprintf("%d processes that run", n), func() int {
		list, err := r.client().Processes(bounded(r.t))
		if err != nil {
			r.t.Fatal(err)
		}
		real := childrenOf(supervisor)
		left := n + len(real)
		for i := range list {
			if list[i].State == api.StateRunning && real[list[i].PID] {
				left -= 2
			}
		}
		return left
	})
}

// childrenOf are the live children of a process (proc_tid_children(5)).
func childrenOf(pid int) map[int]bool {
	out := map[int]bool{}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is sound
	for _, path := range lists {
		b, _ := os.ReadFile(path) // a thread that has ended has none
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				if st, ok := statOf(n); ok && st.state != "Z" {
					out[n] = true
				}
			}
		}
	}
	return out
}

// lag says how far the server's picture is behind: from the entry in the journal
// to the event that a client has got.
type lag []time.Duration

func (l lag) String() string {
	if len(l) == 0 {
		return "nothing was seen"
	}
	slices.Sort(l)
	at := func(q float64) time.Duration { return l[int(q*float64(len(l)-1))].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%d events, behind by %s (p50), %s (p99), %s at most", len(l), at(0.5), at(0.99), at(1))
}

// watchLag measures until the function that it returns is called, which takes
// in all that has happened by then.
func (r *rig) watchLag() func() lag {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	out := make(chan lag, 1)
	c, q := r.client(), api.EventQuery{After: r.lastSeq(), Pattern: "process.*"}
	var seen atomic.Uint64
	go func() {
		var l lag
		for e, err := range c.FollowEvents(ctx, q) {
			if err != nil {
				r.t.Errorf("cannot follow the events: %v", err)
				break
			}
			l = append(l, time.Since(e.Time))
			seen.Store(e.Seq)
		}
		out <- l
	}()
	return func() lag {
		r.t.Helper()
		page, err := r.client().Events(bounded(r.t), api.EventQuery{Last: 1, Pattern: q.Pattern})
		if err != nil || len(page.Events) == 0 {
			r.t.Fatalf("the newest event: %+v, %v", page, err)
		}
		eventually(r.t, "the newest event in the stream", func() bool { return seen.Load() >= page.Events[0].Seq })
		cancel()
		return <-out
	}
}

// round starts n processes, kills them at random, and removes them all.
func (r *rig) round(n int, d time.Duration) (kills int, behind lag) {
	r.t.Helper()
	r.write("perdure.yaml", many(n))
	r.ok("reload")
	r.allUp(n)
	stop := r.watchLag()
	kills = r.massacre(d)
	r.allUp(n)
	behind = stop()
	r.write("perdure.yaml", many(0))
	r.ok("reload")
	progress(r.t, "the removal of all", func() int { return len(r.pids()) })
	return kills, behind
}

// Processes are killed at random, many at a time, come back, and are removed.
// Nothing of them is left: no zombie, no descriptor, no cgroup, no FIFO, no
// goroutine, and no memory beyond what the first such round has taken (P4, P17).
// All the while the server's picture keeps up with what happens.
func TestChurnLeavesNothing(t *testing.T) {
	t.Parallel()
	n, d := scale(100, 1000), time.Duration(scale(2, 60))*time.Second
	r := newRig(t, many(0))
	r.ok("up", "-d")
	r.round(n, d/2) // pools and caches grow to their size
	before := r.footprint()
	kills, behind := r.round(n, d)
	t.Logf("%d processes, killed at random for %s: %s", n, d, behind)
	if len(behind) < kills || behind[len(behind)-1] > patience {
		t.Errorf("the picture does not keep up: %d kills, %s", kills, behind)
	}
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
	for _, folder := range []string{"run", "logs"} {
		if left := r.under(folder); len(left) > 0 {
			t.Errorf("of removed processes is left in %s: %d", folder, len(left))
		}
	}
	audit(t, r.allEvents())
	t.Logf("%d kills of %d processes; before %+v, after %+v", kills, n, before, after)
	if kills < n {
		t.Errorf("only %d kills: this proves little", kills)
	}
	fresh := newRig(t, many(0))
	fresh.ok("up", "-d")
	for _, part := range []string{"server", "supervisor"} {
		_ = r.client().Close() // it cannot fail
		if got, want := r.goroutines(part), fresh.goroutines(part); got > want+2 {
			t.Errorf("the %s has %d goroutines, a fresh one has %d", part, got, want)
		}
	}
	fresh.ok("up", "-d", "--no-wait") // both parts have died of the dump, and may be back
	r.ok("up", "-d", "--no-wait")
	fresh.ok("down")
	r.ok("down")
}

// under is what lies in a folder of the state directory.
func (r *rig) under(folder string) []string {
	r.t.Helper()
	paths, err := filepath.Glob(filepath.Join(r.state(), folder, "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return paths
}

var goroutine = regexp.MustCompile(`(?m)^goroutine \d+`)

// goroutines ends a part of Perdure with SIGQUIT, which makes the Go runtime
// write down all goroutines, and counts them. The server goes first.
func (r *rig) goroutines(part string) int {
	r.t.Helper()
	path := filepath.Join(r.state(), part+".log")
	pid := r.owner(map[string]string{"server": "lock", "supervisor": "supervisor.lock"}[part])
	fi, err := os.Stat(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the end of the "+part, func() bool { return !alive(pid) })
	b, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	n := len(goroutine.FindAll(b[fi.Size():], -1))
	if n == 0 {
		r.t.Fatalf("the %s has written no dump:\n%s", part, b[fi.Size():])
	}
	return n
}
