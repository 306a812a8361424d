//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/perdure/perdure/api"
)

// chatter writes 3 MB in one line and a second line, says that it is through, and
// writes a third line when it is told to.
const chatterScript = `head -c 3000000 /dev/zero | tr '\0' x
echo
echo second
echo > "through-$1"
while ! test -e more; do sleep 0.02; done
echo third
exec sleep 100000
`

// written is how much it has written when it is through.
const written = 3000000 + len("\nsecond\n")

// trouble waits for one that concerns a process.
func (r *rig) trouble(kind api.TroubleKind, name string) (found api.Trouble) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("trouble with %s of %q", kind, name), func() bool {
		for _, tr := range r.info().Troubles {
			if tr.Kind == kind && tr.Name == name {
				found = tr
				return true
			}
		}
		return false
	})
	return found
}

func (r *rig) exists(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

// The disk of the logs is full. Who may lose output goes on and is told how much
// it has lost; who may not waits, goes on when there is space, and has lost nothing.
func TestLogsOnAFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  waiter: {command: [sh, chatter.sh, waiter], autostart: false}
  dropper: {command: [sh, chatter.sh, dropper], autostart: false, logs: {on_full: drop}}
`)
	r.write("chatter.sh", chatterScript)
	r.disk(".perdure/logs", "8m")
	r.ok("up", "-d", "--no-wait")
	r.fill(".perdure/logs/filler")
	r.ok("start", "waiter", "dropper")
	eventually(t, "the end of what dropper writes", func() bool { return r.exists("through-dropper") })
	for name, effect := range map[string]string{"waiter": "it waits", "dropper": "it is discarded"} {
		if tr := r.trouble(api.TroubleOutput, name); tr.Cause != "full" || !strings.Contains(tr.Effect, effect) {
			t.Errorf("%s: %+v", name, tr)
		}
	}
	if r.exists("through-waiter") {
		t.Error("waiter has written more than anybody could take")
	}
	if err := os.Remove(r.path(".perdure/logs/filler")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of what waiter writes", func() bool { return r.exists("through-waiter") })
	recovered := func(name string) map[string]any {
		return fields(t, r.event(0, name, "storage.recovered", nil))
	}
	if d := recovered("dropper"); d["lost_bytes"] != float64(written) {
		t.Errorf("dropper has lost %v bytes, told is %v", written, d)
	}
	if d := recovered("waiter"); d["lost_bytes"] != nil {
		t.Errorf("waiter has lost nothing, told is %v", d)
	}
	r.write("more", "")
	for name, want := range map[string][]string{"waiter": {strings.Repeat("x", 3000000), "second", "third"}, "dropper": {"third"}} {
		var have []string
		eventually(t, "the third line of "+name, func() bool {
			have = nil
			for line, err := range r.client().Logs(bounded(t), api.LogQuery{Names: []string{name}, Lines: -1}) {
				if err != nil {
					t.Fatal(err)
				}
				have = append(have, line.Text)
			}
			return len(have) > 0 && have[len(have)-1] == "third"
		})
		// A long line is given in pieces.
		if got := strings.Join(have, ""); got != strings.Join(want, "") {
			t.Errorf("%s has %d lines with %d bytes, want %d with %d", name, len(have), len(got), len(want), len(strings.Join(want, "")))
		}
	}
	for _, name := range []string{"waiter", "dropper"} {
		if told := r.events(name, "storage.failed"); len(told) != 1 {
			t.Errorf("%s: told %d times", name, len(told))
		}
	}
	r.ok("down")
}

// Both parts are dead, and the file system is read-only when they are to come
// again: that is said, nothing is touched, and all is well when it can be written.
func TestReadOnlyStateDirectory(t *testing.T) {
	t.Parallel()
	r := newDiskRig(t, ".perdure 16m")
	before := r.identities("steady", "victim")
	info := r.info()
	strikeAll(t, info.PID, info.SupervisorPID)
	remount := func(flags uintptr) {
		t.Helper()
		// The files of the dead may be closed a moment after them.
		eventually(t, "the file system to be mounted anew", func() bool {
			err := syscall.Mount("tmpfs", r.state(), "tmpfs", syscall.MS_REMOUNT|flags, "mode=0700,size=16m")
			if err != nil && !errors.Is(err, syscall.EBUSY) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	remount(syscall.MS_RDONLY)
	if res := r.run("up", "-d", "--no-wait"); res.code == 0 || !strings.Contains(res.errOut, "read-only file system") {
		t.Errorf("up ended with %d: %s", res.code, res.errOut)
	}
	remount(0)
	r.ok("up", "-d", "--no-wait")
	r.same("a file system that was read-only", before, []string{"steady", "victim"})
	r.rest()
	audit(t, r.allEvents())
	r.ok("down")
}

// Files may not grow beyond a limit: log segments are smaller, and nothing is lost.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  loud: {command: [sh, -c, "seq 1000000 1700000; exec sleep 100000"], logs: {compress: false, max_files: 50}}
`)
	const limit = 2 << 20
	cmd := r.command(context.Background(), "up", "-d", "--no-wait")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", fmt.Sprintf("ulimit -f %d && exec \"$@\"", limit/512), "sh", bin(), "up", "-d", "--no-wait"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s%s", err, out, r.serverLog())
	}
	var want strings.Builder
	for n := 1000000; n <= 1700000; n++ {
		fmt.Fprintln(&want, n)
	}
	var segments []string
	var have string
	eventually(t, "all of the output", func() bool {
		// Their names are the places of their first bytes.
		segments, _ = filepath.Glob(filepath.Join(r.state(), "logs", "loud", "0*.log"))
		have = ""
		for _, path := range segments {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			have += string(b)
		}
		return len(have) >= want.Len()
	})
	if len(segments) < 3 || have != want.String() {
		t.Errorf("%d segments have %d bytes, want those of 1000000 to 1700000: %d", len(segments), len(have), want.Len())
	}
	if told := r.events("", "storage.*"); len(told) > 0 || len(r.info().Troubles) > 0 {
		t.Errorf("told %+v", told)
	}
	r.ok("down")
}

// Everything beside the journal's segments is damaged. The processes live on, each
// exit is told once, and what could not be kept is told.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	r := newDiskRig(t)
	for i := range 3 {
		strike(t, r.lastPID("crasher", i))
	}
	r.lastPID("crasher", 3)
	before, last, info := r.identities("steady", "victim"), r.lastSeq(), r.info()
	strikeAll(t, info.PID, info.SupervisorPID)
	for _, name := range []string{"lock", "supervisor.lock", "server.json", "journal/id", "perdure.db"} {
		r.write(".perdure/"+name, strings.Repeat("damaged ", 3000))
	}
	for _, name := range []string{"perdure.db-wal", "perdure.db-shm"} {
		if err := os.Truncate(filepath.Join(r.state(), name), 100); err != nil {
			t.Fatal(err)
		}
	}
	r.ok("up", "-d", "--no-wait")
	r.same("damaged files", before, []string{"steady", "victim"})
	replaced := r.event(0, "", "server.database_replaced", nil)
	if replaced.Seq <= last {
		t.Errorf("its number is %d, and %d was told before", replaced.Seq, last)
	}
	old, _ := fields(t, replaced)["old"].(string)
	if b, err := os.ReadFile(old); err != nil || !strings.HasPrefix(string(b), "damaged ") {
		t.Errorf("the old file is not kept as %q: %v", old, err)
	}
	if !slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, old) }) {
		t.Error("doctor does not tell it")
	}
	strike(t, r.lastPID("crasher", 3))
	r.lastPID("crasher", 4)
	r.rest()
	// All of it is still in the journal, so all of it is told again, once.
	c := audit(t, r.allEvents())
	if n := r.checkRuns(c, "crasher", 137, false); n != 5 {
		t.Errorf("%d generations are told, 5 have run", n)
	}
	r.ok("down")
}

// A journal that is damaged in the middle is read around the damage, and what lives
// and is not recorded any more is not started beside itself.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	r := newDiskRig(t)
	before, info := r.identities("steady", "victim"), r.info()
	strikeAll(t, info.PID, info.SupervisorPID)
	segments, err := filepath.Glob(filepath.Join(r.state(), "journal", "*.journal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	path := slices.Max(segments)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// All that is known of steady, but for its definition, is of no use any more.
	found := 0
	for at := 0; ; found++ {
		next := strings.Index(string(b[at:]), `process/steady{`)
		if next < 0 {
			break
		}
		at += next + 1
		copy(b[at:], "DAMAGE")
	}
	if found == 0 {
		t.Fatal("steady is not in the journal")
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r.ok("up", "-d", "--no-wait")
	r.same("a damaged journal", before, []string{"steady", "victim"})
	if !slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, "the journal was damaged") }) {
		t.Errorf("doctor does not tell it: %+v", r.findings())
	}
	e := r.event(0, "", "supervisor.started", func(e api.Event) bool { return fields(t, e)["journal_repairs"] != nil })
	if !strings.Contains(string(e.Data), `"corrupt"`) {
		t.Errorf("told is %s", e.Data)
	}
	r.ok("down")
}

// withFaults builds the program with points of failure.
func withFaults(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "perdure")
	build(t, "..", path, "v-faults", "-tags", "faults")
	return path
}

// The disk is slow to flush, and then the machine boots. One program serves both,
// so that it is built once.
func TestWithFaults(t *testing.T) {
	t.Parallel()
	program := withFaults(t)
	t.Run("slow disk", func(t *testing.T) { t.Parallel(); slowDisk(t, program) })
	t.Run("reboot", func(t *testing.T) { t.Parallel(); reboot(t, program) })
}

// A flush takes longer than 2 s, while sync asks that nothing is begun before it:
// a start waits, a stop does not, and it is told.
func slowDisk(t *testing.T, program string) {
	r := newRig(t, "settings: {sync: 0s}\nprocesses:\n  web: {command: [sleep, \"100000\"]}\n  other: {command: [sleep, \"100000\"], autostart: false}\n")
	r.env = append(r.env, "PERDURE_FAULT=journal.sync=delay:2200ms")
	r.as(program, "up", "-d", "--no-wait")
	if tr := r.trouble(api.TroubleSync, ""); tr.Cause != "slow" {
		t.Errorf("%+v", tr)
	}
	web := r.wait("web", "running")
	r.as(program, "stop", "web")
	if alive(web.PID) {
		t.Error("web lives after its stop")
	}
	if e := r.event(0, "", "storage.failed", nil); fields(t, e)["kind"] != "sync" {
		t.Errorf("told is %s", e.Data)
	}
	r.as(program, "down")
}

const rebootProcesses = `
processes:
  web: {command: [sleep, "100000"]}
  stopped: {command: [sleep, "100000"]}
  stays: {command: [sleep, "100000"], restart: unless-stopped}
  hand: {command: [sleep, "100000"], autostart: false}
  idle: {command: [sleep, "100000"], autostart: false}
  once: {command: ["true"], oneshot: true}
  waits: {command: [sh, -c, "exit 3"], backoff: {kind: fixed, initial: 1h, max: 1h}, breaker: {failures: -1}}
`

// The machine boots, and the pids of before belong to others, which started in
// the same tick even. Nothing is adopted; what was wished to run and what has
// autostart starts, and no wait of before holds.
func reboot(t *testing.T, program string) {
	r := newRig(t, rebootProcesses)
	r.env = append(r.env, "PERDURE_CGROUP=off")
	r.as(program, "up", "-d", "--no-wait")
	for _, name := range []string{"web", "stopped", "stays"} {
		r.wait(name, "running")
	}
	r.wait("once", "exited")
	r.wait("waits", "backoff")
	r.as(program, "start", "hand")
	r.as(program, "stop", "stopped", "stays")
	before, hand, info := r.process("web"), r.process("hand"), r.info()
	strikeAll(t, info.PID, info.SupervisorPID)
	// They stand for strangers now.
	strangers := []procStat{}
	for _, pid := range []int{before.PID, hand.PID} {
		st, ok := statOf(pid)
		if !ok {
			t.Fatalf("process %d is gone", pid)
		}
		strangers = append(strangers, st)
	}
	r.env = append(r.env, "PERDURE_FAULT_BOOT=the-next-one")
	r.as(program, "up", "-d", "--no-wait")
	for _, name := range []string{"web", "stopped", "hand"} {
		if p := r.generation(name, 1); p.Generation != 2 || p.PID == before.PID || p.PID == hand.PID {
			t.Errorf("%s: %+v", name, p)
		}
	}
	r.event(0, "once", "process.exited", func(e api.Event) bool { return e.Generation == 2 })
	r.event(0, "waits", "process.exited", func(e api.Event) bool { return e.Generation == 2 })
	for _, name := range []string{"stays", "idle"} {
		if p := r.process(name); p.Generation > 1 || p.PID != 0 {
			t.Errorf("%s was started: %+v", name, p)
		}
	}
	// How it ended nobody knows, and nobody guesses.
	if e := r.event(0, "web", "process.exited", nil); e.Generation != 1 || fields(t, e)["code"] != nil {
		t.Errorf("the end of the first generation is told as %s", e.Data)
	}
	if left := stillThere(strangers); len(left) != len(strangers) {
		t.Errorf("strangers were ended: of %+v live %+v", strangers, left)
	}
	for _, st := range strangers {
		strike(t, st.pid)
	}
	r.as(program, "down")
}
