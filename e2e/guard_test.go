//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// owner is the pid that a lock file of the state directory names, 0 for none.
func (r *rig) owner(lock string) int {
	b, err := os.ReadFile(filepath.Join(r.state(), lock))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

// spans are durations for people: the middle one and the longest.
type spans []time.Duration

func (s spans) String() string {
	slices.Sort(s)
	return fmt.Sprintf("median %s, longest %s", s[len(s)/2].Round(time.Millisecond/10), s[len(s)-1].Round(time.Millisecond/10))
}

// The supervisor is killed ten times under load. Each time the server has started
// another one, which adopts everything; what is asked meanwhile waits.
func TestSupervisorIsGuarded(t *testing.T) {
	t.Parallel()
	r, names := newLoad(t, 10, 10, 2)
	stay := slices.Concat(names.steady, names.floods)
	before, server := r.identities(stay...), r.info().PID
	var started, attached spans
	there := time.Now()
	for i := range 10 {
		r.progress(20)
		// One that has served for a second was sound, and is replaced at once.
		eventually(t, "a sound supervisor", func() bool { return time.Since(there) > 1200*time.Millisecond })
		pid := r.info().SupervisorPID
		began := time.Now()
		strike(t, pid)
		eventually(t, "another owner of the lock", func() bool { now := r.owner("supervisor.lock"); return now != 0 && now != pid })
		started = append(started, time.Since(began))
		// A command does not have to know of it.
		r.ok("reset", "steady0")
		r.newSupervisor(pid)
		attached, there = append(attached, time.Since(began)), time.Now()
		r.same(fmt.Sprintf("kill %d of the supervisor", i), before, stay)
	}
	if now := r.info().PID; now != server {
		t.Errorf("the server is %d, it was %d", now, server)
	}
	r.rest()
	events := r.allEvents()
	audit(t, events)
	lost := r.events("", "supervisor.lost")
	if len(lost) != 10 {
		t.Errorf("%d deaths of the supervisor are told, there were 10", len(lost))
	}
	if data := fields(t, lost[0]); data["signal"] != "SIGKILL" || data["restarted"] != true {
		t.Errorf("told as %v", data)
	}
	t.Logf("from SIGKILL to the next supervisor's lock: %s; to its first answer: %s", started, attached)
	r.ok("down")
}

// A supervisor that cannot live is given up for a while and not for ever: the API
// says so and goes on reading, and it comes back by itself.
func TestSupervisorThatCannotLive(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  steady: {command: [sleep, \"100000\"]}\n")
	r.ok("up", "-d")
	before := r.identities("steady")
	// A folder in the place of its socket: it can take its lock, but never answer.
	r.write(".perdure/blocked", "")
	socket := filepath.Join(r.state(), "supervisor.sock")
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	r.write(".perdure/supervisor.sock/in the way", "")
	strike(t, r.info().SupervisorPID)
	e := r.event(0, "", "supervisor.breaker_open", nil)
	if fields(t, e)["deaths"] != 12.0 {
		t.Errorf("told as %s", e.Data)
	}
	res := r.exits(3, "stop", "steady")
	if !strings.Contains(res.errOut, "died 12 times") || !strings.Contains(res.errOut, "supervisor.log") {
		t.Errorf("a command is told %q", res.errOut)
	}
	if p := r.process("steady"); p.State != api.StateRunning || p.PID != before["steady"].pid {
		t.Errorf("read as %+v", p)
	}
	if out := r.exits(1, "doctor").out; !strings.Contains(out, "died 12 times") {
		t.Errorf("doctor says %q", out)
	}
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	r.event(e.Seq, "", "supervisor.lost", nil)
	r.same("the time without a supervisor", before, []string{"steady"})
	r.ok("down")
}

// newServer waits until a server other than an earlier one answers.
func (r *rig) newServer(before int) api.Info {
	r.t.Helper()
	var info api.Info
	eventually(r.t, "another server", func() bool {
		var err error
		info, err = r.client().Info(bounded(r.t))
		return err == nil && info.PID != before && info.SupervisorPID != 0
	})
	return info
}

// servers are the servers in the background that live in the rig's name.
func (r *rig) servers() (pids []int) {
	r.t.Helper()
	for _, st := range r.marked() {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", st.pid)); err == nil && strings.Contains(string(b), "\x00server\x00") {
			pids = append(pids, st.pid)
		}
	}
	return pids
}

// A server in the background is killed ten times under load. Each time the
// supervisor has started another one, with the environment of the first; where an
// operator does so at the same moment, there is one all the same.
func TestServerIsGuarded(t *testing.T) {
	t.Parallel()
	r, names := newLoad(t, 10, 10, 2)
	stay := slices.Concat(names.steady, names.floods)
	before, supervisor := r.identities(stay...), r.info().SupervisorPID
	follower := r.follow()
	var started, answered spans
	there := time.Now()
	for i := range 10 {
		r.progress(20)
		// One that has served for a second was sound, and is replaced at once.
		eventually(t, "a sound server", func() bool { return time.Since(there) > 1200*time.Millisecond })
		pid := r.info().PID
		began := time.Now()
		strike(t, pid)
		if i%2 == 1 {
			r.ok("up", "-d", "--no-wait")
		}
		eventually(t, "another owner of the lock", func() bool { now := r.owner("lock"); return now != 0 && now != pid })
		if i%2 == 0 {
			started = append(started, time.Since(began))
		}
		info := r.newServer(pid)
		if i%2 == 0 {
			answered = append(answered, time.Since(began))
		}
		there = time.Now()
		if info.SupervisorPID != supervisor {
			t.Fatalf("kill %d: the supervisor is %d, it was %d\n%s", i, info.SupervisorPID, supervisor, r.serverLog())
		}
		if left := r.servers(); len(left) != 1 || left[0] != info.PID {
			t.Errorf("kill %d: there are servers %v, and %d answers", i, left, info.PID)
		}
		r.same(fmt.Sprintf("kill %d of the server", i), before, stay)
	}
	r.rest()
	events := r.allEvents()
	audit(t, events)
	if lost := r.events("", "server.lost"); len(lost) != 10 || fields(t, lost[0])["restarted"] != true {
		t.Errorf("%d deaths of the server are told, there were 10: %+v", len(lost), lost)
	}
	stream := follower.through(t, events[len(events)-1].Seq)
	if diff := cmp.Diff(places(events), places(stream)[:len(events)]); diff != "" {
		t.Errorf("the stream is not the log (-log +stream):\n%s", diff)
	}
	t.Logf("from SIGKILL to the next server's lock: %s; to its first answer: %s", started, answered)
	if b, err := os.ReadFile(filepath.Join(r.state(), "server.json")); err != nil || strings.Contains(string(b), r.mark) {
		t.Errorf("server.json holds the environment, or is not there: %s %v", b, err)
	}
	r.ok("down")
	r.nothingLeft()
}

// A server that belongs to a terminal is not started again: the processes live on
// under the supervisor, and the next up takes over.
func TestServerOfATerminalIsNotGuarded(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  steady: {command: [sleep, \"100000\"]}\n")
	w := r.start("up")
	w.line("started")
	r.wait("steady", "running")
	before, info := r.identities("steady"), r.info()
	strike(t, info.PID)
	if code := w.wait(); code != 137 {
		t.Errorf("up ended with %d", code)
	}
	r.ok("up", "-d")
	r.same("the death of the server", before, []string{"steady"})
	if now := r.info(); now.SupervisorPID != info.SupervisorPID {
		t.Errorf("the supervisor is %d, it was %d", now.SupervisorPID, info.SupervisorPID)
	}
	if e := r.event(0, "", "server.lost", nil); fields(t, e)["restarted"] != false || fields(t, e)["pid"] != float64(info.PID) {
		t.Errorf("told as %s", e.Data)
	}
	r.ok("down")
}

// SIGTERM to the supervisor ends everything, the server too.
func TestTermOfTheSupervisorEndsAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  steady: {command: [sleep, \"100000\"]}\n")
	r.ok("up", "-d")
	pid := r.pids()["steady"]
	if err := syscall.Kill(r.info().SupervisorPID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.nothingLeft()
	if alive(pid) {
		t.Error("a process has survived")
	}
}
