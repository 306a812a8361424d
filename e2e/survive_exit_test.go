//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/perdure/perdure/api"
)

// ending is a program that ends while nobody supervises it.
type ending struct {
	name   string
	script string // what it does once the file "go" is there
	policy string
	code   float64
	signal string
	core   bool
	// after is its state once that is decided upon, when its exit is known; after
	// an unknown exit it is failed where it may not be started again.
	after api.State
}

func endings() []ending {
	return []ending{
		{"seven", "exit 7", "restart: never", 7, "", false, api.StateFailed},
		{"done", "exit 0", "oneshot: true", 0, "", false, api.StateExited},
		{"killed", "kill -KILL $$", "restart: never", 137, "SIGKILL", false, api.StateFailed},
		{"core", "ulimit -c unlimited; kill -ABRT $$", "restart: never", 134, "SIGABRT", true, api.StateFailed},
		{"forty", "exit 40", "backoff: {kind: fixed, initial: 1h, max: 1h}", 40, "", false, api.StateBackoff},
	}
}

// newEndings is a rig in which each of them runs and waits for the file.
func newEndings(t *testing.T, env ...string) *rig {
	t.Helper()
	var b strings.Builder
	b.WriteString("processes:\n")
	for _, e := range endings() {
		fmt.Fprintf(&b, "  %s:\n    command: [sh, ending.sh, %s]\n    %s\n", e.name, e.name, e.policy)
	}
	r := newRig(t, b.String())
	r.write("ending.sh", `
echo $$ > "$1.pid.new"; mv "$1.pid.new" "$1.pid"
echo begun
while ! test -e go; do sleep 0.02; done
printf "last of $1"
. "./$1.sh"
`)
	for _, e := range endings() {
		r.write(e.name+".sh", e.script)
	}
	r.env = append(r.env, env...)
	r.ok("up", "-d", "--no-wait")
	for _, e := range endings() {
		r.number(e.name+".pid", 0)
	}
	return r
}

// letThemEnd creates the file and waits until all are dead.
func (r *rig) letThemEnd() {
	r.t.Helper()
	r.write("go", "")
	for _, e := range endings() {
		pid := r.number(e.name+".pid", 0)
		eventually(r.t, "the end of "+e.name, func() bool { return !alive(pid) })
	}
}

// freeze stops a process (SIGSTOP) until thaw is called or the test ends. A
// frozen server lives and holds what it has, and starts no supervisor.
func freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it may be gone
	eventually(t, "that it stands still", func() bool { st, ok := statOf(pid); return ok && st.state == "T" })
	return func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// checkEndings holds what is told of each end against what it was.
func (r *rig) checkEndings(known bool) {
	r.t.Helper()
	pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
	cores := string(pattern) == "core\n"
	for _, want := range endings() {
		e := r.event(0, want.name, "process.exited", nil)
		got := fields(r.t, e)
		code, has := got["code"].(float64)
		switch {
		case !known && (has || got["cause"] != "unknown"):
			r.t.Errorf("%s: %s, though nobody can know", want.name, e.Data)
		case known && (!has || code != want.code || got["signal"] != want.signal || got["cause"] != "exit"):
			r.t.Errorf("%s: %s, it was %v %s", want.name, e.Data, want.code, want.signal)
		case known && cores && (got["core_dumped"] == true) != want.core:
			r.t.Errorf("%s: %s, a core: %v", want.name, e.Data, want.core)
		}
		if n := len(r.events(want.name, "process.exited")); n != 1 {
			r.t.Errorf("%s: its exit was told %d times", want.name, n)
		}
		after := want.after
		if !known && after == api.StateExited {
			after = api.StateFailed // it may not have succeeded, and must not run twice
		}
		eventually(r.t, want.name+" "+string(after), func() bool { return r.process(want.name).State == after })
		if p := r.process(want.name); p.Generation != 1 || p.Starts != 1 {
			r.t.Errorf("%s: in generation %d after %d starts", want.name, p.Generation, p.Starts)
		}
	}
	audit(r.t, r.allEvents())
}

// checkLastWords holds that what they wrote last is there, once.
func (r *rig) checkLastWords() {
	r.t.Helper()
	for _, e := range endings() {
		if got, want := r.ok("logs", e.name, "-n", "10"), "begun\nlast of "+e.name+"\n"; got != want {
			r.t.Errorf("%s: its log is %q, not %q", e.name, got, want)
		}
	}
}

// Processes end while no supervisor lives. The server holds their pidfds and
// FIFOs, and may be their parent: the next supervisor tells each exit once and as
// it was, decides on it once, and nothing of their output is lost. Only where the
// kernel keeps no exits (Linux before 6.15, or the switch) and the server is not
// the parent is the exit unknown, and told so.
// Keeps out Q2.
func TestExitsWhileNoSupervisorLives(t *testing.T) {
	t.Parallel()
	for _, kernel := range []string{"on", "off"} {
		for _, successor := range []bool{false, true} {
			t.Run(fmt.Sprintf("kernel %s, successor %v", kernel, successor), func(t *testing.T) {
				t.Parallel()
				r := newEndings(t, "PERDURE_PIDFD_INFO="+kernel)
				if successor {
					// The next server is not above the supervisor, so orphans go to init.
					before := r.info().PID
					strike(t, before)
					r.newServer(before)
				}
				eventually(t, "that all are held", func() bool { return r.says("of 5 processes are held") })
				info := r.info()
				thaw := freeze(t, info.PID)
				strike(t, info.SupervisorPID)
				r.letThemEnd()
				if successor {
					// Init reaps them; a zombie would tell its exit to root.
					for _, e := range endings() {
						pid := r.number(e.name+".pid", 0)
						eventually(t, "that "+e.name+" is reaped", func() bool { _, there := statOf(pid); return !there })
					}
				}
				thaw()
				r.newSupervisor(info.SupervisorPID)
				r.checkEndings(!successor || kernel == "on" && !r.says("does not keep exit codes"))
				r.checkLastWords()
				r.ok("down")
			})
		}
	}
}

// says is whether doctor says something.
func (r *rig) says(part string) bool {
	for _, f := range r.findings() {
		if strings.Contains(f.Message, part) {
			return true
		}
	}
	return false
}

// The same when the supervisor dies again and again before and after, so that
// what is held has gone through many hands, and those that end have been adopted.
func TestExitsAfterManyDeaths(t *testing.T) {
	t.Parallel()
	r := newEndings(t)
	for range scale(3, 20) {
		before := r.info().SupervisorPID
		strike(t, before)
		r.newSupervisor(before)
		eventually(t, "that all are held", func() bool { return r.says("of 5 processes are held") })
	}
	info := r.info()
	thaw := freeze(t, info.PID)
	strike(t, info.SupervisorPID)
	r.letThemEnd()
	thaw()
	for range 2 {
		r.newSupervisor(info.SupervisorPID)
		info = r.info()
		strike(t, info.SupervisorPID)
	}
	r.newSupervisor(info.SupervisorPID)
	r.checkEndings(true)
	r.checkLastWords()
	r.ok("down")
}

// Adopted processes end under the next supervisor, which is not their parent.
func TestExitsOfTheAdopted(t *testing.T) {
	t.Parallel()
	for _, kernel := range []string{"on", "off"} {
		t.Run("kernel "+kernel, func(t *testing.T) {
			t.Parallel()
			r := newEndings(t, "PERDURE_PIDFD_INFO="+kernel)
			before := r.info().SupervisorPID
			strike(t, before)
			r.newSupervisor(before)
			r.letThemEnd()
			r.checkEndings(true)
			r.checkLastWords()
			r.ok("down")
		})
	}
}

// Both parts are dead when they end: nobody is left who could know. It is told as
// unknown, once; policy decides once, and what must run once does not run twice.
func TestExitsWhileNeitherLives(t *testing.T) {
	t.Parallel()
	r := newEndings(t)
	for _, e := range endings() {
		eventually(t, "the first words of "+e.name+" in its log", func() bool { return r.ok("logs", e.name) == "begun\n" })
	}
	info := r.info()
	strikeAll(t, info.PID, info.SupervisorPID)
	r.letThemEnd()
	for _, e := range endings() {
		pid := r.number(e.name+".pid", 0)
		// As long as init has not reaped it, the next supervisor could still know.
		eventually(t, "the last trace of "+e.name+" to go", func() bool { _, there := statOf(pid); return !there })
	}
	r.ok("up", "-d", "--no-wait")
	r.checkEndings(false)
	for _, e := range endings() {
		// What was captured before is there; what it wrote after that is gone with
		// the last who held the FIFO.
		if got := r.ok("logs", e.name, "-n", "10"); got != "begun\n" && got != "begun\nlast of "+e.name+"\n" {
			t.Errorf("%s: its log is %q", e.name, got)
		}
	}
	audit(t, r.allEvents())
	r.ok("down")
}

// What both have captured before, and what waits in a FIFO that its process still
// holds, outlives both parts.
func TestOutputOutlivesBothParts(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  talker:\n    command: [sh, -c, 'echo first; while ! test -e go; do sleep 0.02; done; printf \"half a \"; touch said; while ! test -e on; do sleep 0.02; done; echo line; exec sleep 1000']\n")
	r.ok("up", "-d")
	pid := r.process("talker").PID
	info := r.info()
	strikeAll(t, info.PID, info.SupervisorPID)
	r.write("go", "")
	eventually(t, "its words", func() bool { _, err := os.Stat(filepath.Join(r.dir, "said")); return err == nil })
	r.ok("up", "-d", "--no-wait")
	r.write("on", "")
	eventually(t, "its whole log", func() bool { return r.ok("logs", "talker", "-n", "10") == "first\nhalf a line\n" })
	if p := r.process("talker"); p.PID != pid || p.Generation != 1 {
		t.Errorf("%+v", p)
	}
	r.ok("down")
}
