//go:build linux

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// disk mounts a small file system of its own at a path of the rig.
func (r *rig) disk(name, size string) {
	r.t.Helper()
	if err := r.mount(name, size); err != nil {
		r.t.Skip("cannot mount a file system (root can): ", err)
	}
}

// mount is disk, for who can do without.
func (r *rig) mount(name, size string) error {
	r.t.Helper()
	path := r.path(name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		return err
	}
	r.t.Cleanup(func() {
		if len(r.marked()) > 0 {
			_ = r.command(context.Background(), "down", "--timeout", "1s").Run() // what it leaves is told by the rig
		}
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			r.t.Error(err)
		}
	})
	return nil
}

// fill takes all space that is left, to the last byte.
func (r *rig) fill(name string) {
	r.t.Helper()
	f, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	for size := len(b); size > 0; {
		n, err := f.Write(b[:size])
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			r.t.Fatal(err)
		}
		if n == 0 {
			size /= 2
		}
	}
	if err := f.Close(); err != nil {
		r.t.Fatal(err)
	}
}

const diskProcesses = `
processes:
  steady: {command: [sleep, "100000"]}
  victim: {command: [sleep, "100000"]}
  later: {command: [sleep, "100000"], autostart: false}
  crasher: {command: [sh, crash.sh, crasher, "100000", "5"], backoff: {kind: fixed, initial: 10ms}, breaker: {failures: -1}}
`

func newDiskRig(t *testing.T, mounts ...string) *rig {
	t.Helper()
	r := newRig(t, diskProcesses)
	r.write("crash.sh", crashScript)
	r.write("runs/.keep", "")
	for _, m := range mounts {
		name, size, _ := strings.Cut(m, " ")
		r.disk(name, size)
	}
	r.ok("up", "-d", "--no-wait")
	for _, name := range []string{"steady", "victim", "crasher"} {
		r.wait(name, "running")
	}
	return r
}

// The state directory is full: what runs goes on, a stop stops, a start waits
// and says why, and all goes on by itself when there is space again (E6).
func TestDiskFull(t *testing.T) {
	t.Parallel()
	r := newDiskRig(t, ".perdure 4m")
	before := r.identities("steady")
	victim, crasher := r.process("victim"), r.process("crasher")
	r.fill(".perdure/filler")
	if err := r.stopOnly("victim"); err != nil {
		t.Errorf("a stop with a full disk: %v", err)
	}
	eventually(t, "the end of the victim", func() bool { return !alive(victim.PID) })
	strike(t, crasher.PID)
	if err := r.startOnly("later"); err != nil {
		t.Errorf("a start with a full disk is refused, it should wait: %v", err)
	}
	eventually(t, "a word of doctor", func() bool {
		return slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, "cannot be written") })
	})
	if p := r.process("later"); p.PID != 0 {
		t.Errorf("it was started though its start could not be written down: %+v", p)
	}
	r.same("a full disk", before, []string{"steady"})
	for _, args := range [][]string{{"ps"}, {"status", "later"}} {
		if out := r.ok(args...); !strings.HasPrefix(out, "! the journal cannot be written") {
			t.Errorf("%q does not begin with the trouble:\n%s", args, out)
		}
	}
	freed := time.Now()
	if err := os.Remove(r.path(".perdure/filler")); err != nil {
		t.Fatal(err)
	}
	r.wait("later", "running")
	r.generation("crasher", crasher.Generation)
	r.wait("victim", "stopped")
	r.same("a disk that has space again", before, []string{"steady"})
	eventually(t, "doctor to be content", func() bool {
		return !slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, "cannot be written") })
	})
	r.rest()
	c := audit(t, r.allEvents())
	r.checkRuns(c, "crasher", 137, false)
	if l := c.of(t, "victim")[1]; l == nil || l.exited != 1 || !l.expected {
		t.Errorf("the end of the victim is told so: %+v", l)
	}
	// What happened meanwhile has its own time, not that at which it could be told.
	for _, name := range []string{"victim", "crasher"} {
		if e := r.event(0, name, "process.exited", nil); !e.Time.Before(freed) {
			t.Errorf("the exit of %s is told as of %s, and there was space again at %s", name, e.Time, freed)
		}
	}
	journal := func(typ string) []api.Event {
		return slices.DeleteFunc(r.events("", typ), func(e api.Event) bool { return fields(t, e)["kind"] != "journal" })
	}
	failed, recovered := journal("storage.failed"), journal("storage.recovered")
	n := len(failed)
	if n == 0 || n != len(recovered) || !failed[0].Time.Before(freed) || recovered[n-1].Time.Before(freed) || fields(t, failed[0])["cause"] != "full" {
		t.Errorf("there was space again at %s; told are %+v and %+v", freed, failed, recovered)
	}
	if left := r.info().Troubles; len(left) > 0 {
		t.Errorf("still told: %+v", left)
	}
	r.ok("down")
}

// The supervisor dies on a full disk, with ends of processes that it has seen and could
// not write down. The next one learns them from what the server holds, and tells
// them when there is space.
func TestSupervisorDiesOnAFullDisk(t *testing.T) {
	t.Parallel()
	r := newDiskRig(t, ".perdure 4m")
	before := r.identities("steady")
	victim, crasher, supervisor := r.process("victim"), r.process("crasher"), r.info().SupervisorPID
	r.fill(".perdure/filler")
	strike(t, crasher.PID)
	r.trouble(api.TroubleJournal, "")
	strike(t, supervisor)
	r.newSupervisor(supervisor)
	if err := r.stopOnly("victim"); err != nil {
		t.Errorf("a stop with a full disk: %v", err)
	}
	eventually(t, "the end of the victim", func() bool { return !alive(victim.PID) })
	if err := os.Remove(r.path(".perdure/filler")); err != nil {
		t.Fatal(err)
	}
	r.generation("crasher", crasher.Generation)
	r.wait("victim", "stopped")
	r.same("the death of a supervisor on a full disk", before, []string{"steady"})
	unknowable := slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, "does not keep exit codes") })
	r.rest()
	r.checkRuns(audit(t, r.allEvents()), "crasher", 137, unknowable)
	r.ok("down")
}

// stopOnly and startOnly give a command and do not wait for it to come true.
func (r *rig) stopOnly(name string) error {
	_, err := r.client().Command(bounded(r.t), name, api.CommandRequest{Verb: "stop"})
	return err
}

func (r *rig) startOnly(name string) error {
	_, err := r.client().Command(bounded(r.t), name, api.CommandRequest{Verb: "start"})
	return err
}

// Only the database cannot be written: supervision goes on, the journal keeps
// what happens, and the events arrive later, each once, even if the server is
// killed meanwhile (E6).
func TestDatabaseFull(t *testing.T) {
	t.Parallel()
	r := newDiskRig(t, ".perdure 3m", ".perdure/journal 16m", ".perdure/logs 1m")
	r.fill(".perdure/filler")
	last := r.lastSeq()
	const rounds = 10
	for i := range rounds {
		pid := r.lastPID("crasher", i)
		strike(t, pid)
	}
	r.lastPID("crasher", rounds)
	if err := r.startOnly("later"); err != nil {
		t.Errorf("a start with a full database: %v", err)
	}
	if got := r.lastSeq(); got > last+2*rounds {
		t.Errorf("the database took events all the same, %d to %d: this proves nothing", last, got)
	}
	eventually(t, "a word of doctor", func() bool {
		return slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, "event log cannot be written") })
	})
	// The next server meets the full database as well.
	strike(t, r.info().PID)
	r.ok("up", "-d", "--no-wait")
	if err := os.Remove(r.path(".perdure/filler")); err != nil {
		t.Fatal(err)
	}
	r.wait("later", "running")
	r.generation("crasher", rounds)
	r.rest()
	c := audit(t, r.allEvents())
	if n := r.checkRuns(c, "crasher", 137, false); n != rounds+1 {
		t.Errorf("%d generations are told, %d have run", n, rounds+1)
	}
	r.ok("down")
}

// lastPID waits until a program has written down more than n generations, and
// returns the pid of the last one: it asks nobody.
func (r *rig) lastPID(name string, n int) (pid int) {
	r.t.Helper()
	eventually(r.t, "the next generation of "+name, func() bool {
		b, err := os.ReadFile(r.path(filepath.Join("runs", name)))
		if err != nil {
			return false
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		f := strings.Fields(lines[len(lines)-1])
		if len(lines) <= n || len(f) != 2 {
			return false
		}
		pid = int(decode[int64](r.t, f[1]))
		return true
	})
	return pid
}
