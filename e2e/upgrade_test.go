//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// buildVersion builds the program with a version of its own.
func buildVersion(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "perdure")
	build(t, "..", path, version)
	return path
}

func build(t *testing.T, dir, path, version string, flags ...string) {
	t.Helper()
	c := exec.Command("go", append(append([]string{"build"}, flags...), "-ldflags", "-X main.version="+version, "-o", path, "./cmd/perdure")...)
	c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
}

// as runs a command with another binary, which must succeed.
func (r *rig) as(bin string, args ...string) string {
	r.t.Helper()
	res := r.runAs(bin, args...)
	if res.code != 0 {
		r.t.Fatalf("%s %q ended with %d\n%s%s%s", bin, args, res.code, res.out, res.errOut, r.serverLog())
	}
	return res.out
}

func (r *rig) runAs(bin string, args ...string) result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run() // the state tells
	return result{exitCode(cmd.ProcessState), out.String(), errOut.String()}
}

// loggers is a file of processes that write numbered lines, and of crashers.
func loggers(n, crashers int) (text string, names, crash []string) {
	var b strings.Builder
	b.WriteString("processes:\n")
	for i := range n {
		names = append(names, fmt.Sprintf("logger%d", i))
		fmt.Fprintf(&b, "  %s: {command: [sh, logger.sh, \"0.5\"]}\n", names[i])
	}
	for i := range crashers {
		crash = append(crash, fmt.Sprintf("crasher%d", i))
		fmt.Fprintf(&b, "  %s:\n    command: [sh, crash.sh, %s, \"0.%d\", \"%d\"]\n    restart: always\n"+
			"    backoff: {kind: fixed, initial: 50ms}\n    breaker: {failures: -1}\n", crash[i], crash[i], i%5, crashCode(i))
	}
	return b.String(), names, crash
}

const loggerScript = `i=0
while :; do
  i=$((i+1)); echo "line $i"
  sleep "$1"
done
`

// knocker connects to the API again and again, and counts who is not let in.
type knocker struct {
	stop            chan struct{}
	done            sync.WaitGroup
	knocks, refused int
	last            error
}

func (r *rig) knock() *knocker {
	k := &knocker{stop: make(chan struct{})}
	socket := filepath.Join(r.state(), "api.sock")
	k.done.Go(func() {
		for {
			select {
			case <-k.stop:
				return
			case <-tick():
			}
			c, err := net.Dial("unix", socket)
			k.knocks++
			if err != nil {
				k.refused++
				k.last = err
				continue
			}
			_ = c.Close()
		}
	})
	return k
}

func (k *knocker) end() {
	close(k.stop)
	k.done.Wait()
}

// A hundred processes write and twenty crash while supervisor and server become
// another program three times: same pids, every line, every event once, every
// exit code, and nobody who knocks is turned away.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	text, names, crash := loggers(100, 20)
	r := newRig(t, text)
	r.write("logger.sh", loggerScript)
	r.write("crash.sh", crashScript)
	r.write("runs/.keep", "")
	// Exit codes are those that a parent waits for, whatever the kernel keeps for others.
	r.env = append(r.env, "PERDURE_PIDFD_INFO=off")
	a, b := buildVersion(t, "v-a"), buildVersion(t, "v-b")
	r.as(a, "up", "-d", "--no-wait")
	for _, name := range names {
		r.wait(name, "running")
	}
	before, info := r.identities(names...), r.info()
	follower, knocks := r.follow(), r.knock()
	for i, to := range []string{b, a, b} {
		r.progress(40)
		out := r.as(to, "upgrade")
		version := []string{"v-a", "v-b"}[(i+1)%2]
		now := r.info()
		if now.PID != info.PID || now.SupervisorPID != info.SupervisorPID || now.Version != version {
			t.Errorf("upgrade %d: %+v, it was %+v", i, now, info)
		}
		if !strings.Contains(out, "to "+version+":") {
			t.Errorf("upgrade %d says %q", i, out)
		}
		r.same(fmt.Sprintf("upgrade %d", i), before, names)
	}
	r.progress(40)
	r.writesOn(names, 2)
	knocks.end()
	if knocks.refused > 0 || knocks.knocks < 3 {
		t.Errorf("%d of %d who knocked were turned away: %v", knocks.refused, knocks.knocks, knocks.last)
	}
	r.rest()
	events := r.allEvents()
	c := audit(t, events)
	for i, name := range crash {
		r.checkRuns(c, name, crashCode(i), false)
	}
	for _, name := range names {
		if n := len(c.of(t, name)); n != 1 {
			t.Errorf("%s has had %d generations, it should have had 1", name, n)
		}
		if first, last := r.numbers(name, "stdout", "line"); first != 1 || last < 3 {
			t.Errorf("%s has lines %d to %d", name, first, last)
		}
	}
	stream := follower.through(t, events[len(events)-1].Seq)
	if diff := cmp.Diff(places(events), places(stream)[:len(events)]); diff != "" {
		t.Errorf("the stream is not the log (-log +stream):\n%s", diff)
	}
	for _, typ := range []string{"supervisor.upgraded", "server.upgraded"} {
		if n := len(r.events("", typ)); n != 3 {
			t.Errorf("%d events %s, there were 3", n, typ)
		}
	}
	if lost := r.events("", "*.lost"); len(lost) > 0 {
		t.Errorf("an upgrade is told as a death: %+v", lost)
	}
	r.as(b, "down")
	r.nothingLeft()
}

// What cannot take over changes nothing: neither a file that is no program, nor
// one that is another program, nor a program that does not know the journal.
func TestUpgradeToWhatCannot(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  steady: {command: [sleep, \"100000\"]}\n")
	r.ok("up", "-d")
	before, info := r.identities("steady"), r.info()
	r.write("text", "no program\n")
	r.write("other", "#!/bin/sh\necho hello\n")
	r.write("dies", "#!/bin/sh\necho cannot read it: format version 9 >&2\nexit 1\n")
	for _, name := range []string{"other", "dies"} {
		if err := os.Chmod(r.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, says := range map[string]string{"text": "permission denied", "none": "no such file", "other": "is it Perdure", "dies": "format version 9", "perdure.yaml": "permission denied"} {
		res := r.exits(1, "upgrade", "--binary", name)
		if !strings.Contains(res.errOut, says) || !strings.Contains(res.errOut, "nothing was changed") {
			t.Errorf("%s: %q", name, res.errOut)
		}
	}
	// A broken file would keep the next server from starting.
	r.write("perdure.yaml", "processes:\n  steady: {command: [sleep], restrat: always}\n")
	if res := r.exits(1, "upgrade"); !strings.Contains(res.errOut, "restrat") {
		t.Errorf("with a broken file: %q", res.errOut)
	}
	if now := r.info(); now.PID != info.PID || now.SupervisorPID != info.SupervisorPID || !now.StartedAt.Equal(info.StartedAt) {
		t.Errorf("%+v, it was %+v", now, info)
	}
	r.same("the upgrades", before, []string{"steady"})
	if n := len(r.events("", "*.upgraded")); n != 0 {
		t.Errorf("%d upgrades are told", n)
	}
	r.ok("down")
}

// A program that passes the check and dies as a supervisor: the server, still the
// old program, starts an old supervisor again, which adopts everything.
func TestUpgradeToWhatDies(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  steady: {command: [sleep, \"100000\"]}\n")
	r.ok("up", "-d")
	before, info := r.identities("steady"), r.info()
	r.write("dies", fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *--check*) exec %q \"$@\";; esac\nexit 1\n", bin()))
	if err := os.Chmod(r.path("dies"), 0o755); err != nil {
		t.Fatal(err)
	}
	res := r.exits(1, "upgrade", "--binary", "dies")
	if !strings.Contains(res.errOut, "has adopted everything") {
		t.Errorf("it says %q", res.errOut)
	}
	now := r.info()
	if now.PID != info.PID || now.SupervisorPID == info.SupervisorPID || now.SupervisorPID == 0 {
		t.Errorf("%+v, it was %+v", now, info)
	}
	r.same("the upgrade", before, []string{"steady"})
	r.event(0, "", "supervisor.lost", nil)
	r.event(0, "", "server.upgrade_failed", nil)
	r.ok("down")
}

// In a terminal the server becomes another program as well, and goes on showing.
func TestUpgradeInATerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  talker: {command: [sh, logger.sh, \"0.2\"]}\n")
	r.write("logger.sh", loggerScript)
	next := buildVersion(t, "v-next")
	w := r.start("up")
	w.line("line 1")
	before, info := r.identities("talker"), r.info()
	r.as(next, "upgrade")
	if now := r.info(); now.PID != info.PID || now.Version != "v-next" || now.SupervisorPID != info.SupervisorPID {
		t.Errorf("%+v, it was %+v", now, info)
	}
	r.same("the upgrade", before, []string{"talker"})
	n := 0
	eventually(t, "lines of the next program", func() bool {
		if line, ok := w.find("line "); ok {
			_, _ = fmt.Sscanf(line[strings.Index(line, "line "):], "line %d", &n)
		}
		return n > 10
	})
	seen := map[string]bool{}
	for line := range strings.Lines(w.text()) {
		if i := strings.Index(line, "line "); i >= 0 {
			seen[strings.TrimSpace(line[i:])] = true
		}
	}
	for i := 1; i <= n; i++ {
		if !seen[fmt.Sprintf("line %d", i)] {
			t.Errorf("line %d was not shown:\n%s", i, w.text())
			break
		}
	}
	w.signal(syscall.SIGINT)
	if code := w.wait(); code != 0 {
		t.Errorf("up ended with %d:\n%s", code, w.text())
	}
	r.nothingLeft()
}

// The signals of a server in the background and of its supervisor: SIGHUP
// reloads, or is nothing to the supervisor; SIGUSR2 takes the program that lies
// at the path now.
func TestUpgradeSignals(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  steady: {command: [sleep, \"100000\"]}\n")
	a, b := buildVersion(t, "v-a"), buildVersion(t, "v-b")
	r.as(a, "up", "-d")
	before, info := r.identities("steady"), r.info()
	// The package is replaced on disk.
	if err := os.Rename(b, a); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.findings(), func(f api.Finding) bool { return strings.Contains(f.Message, "was replaced") }) {
		t.Errorf("doctor does not tell that the program was replaced: %+v", r.findings())
	}
	if out := r.runAs(a, "doctor").out; !strings.Contains(out, "is version v-a") || !strings.Contains(out, "perdure upgrade") {
		t.Errorf("doctor of the new program says %q", out)
	}
	if out := r.as(a, "up", "-d"); !strings.Contains(out, "it is version v-a and this program is v-b") {
		t.Errorf("up of the new program says %q", out)
	}
	send := func(pid int, sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	send(info.SupervisorPID, syscall.SIGHUP)
	send(info.SupervisorPID, syscall.SIGUSR2)
	e := r.event(0, "", "supervisor.upgraded", nil)
	if data := fields(t, e); data["from"] != "v-a" || data["to"] != "v-b" || data["pid"] != float64(info.SupervisorPID) {
		t.Errorf("told as %s", e.Data)
	}
	seq := r.lastSeq()
	send(info.PID, syscall.SIGHUP)
	r.event(seq, "", "config.reloaded", nil)
	send(info.PID, syscall.SIGUSR2)
	e = r.event(seq, "", "server.upgraded", nil)
	if data := fields(t, e); data["from"] != "v-a" || data["to"] != "v-b" || data["pid"] != float64(info.PID) {
		t.Errorf("told as %s", e.Data)
	}
	r.same("the signals", before, []string{"steady"})
	r.as(a, "down")
	r.nothingLeft()
}

// The program passes the check and is gone when it shall be executed: the old one
// goes on with everything it had, and the next upgrade works.
func TestUpgradeToWhatIsGone(t *testing.T) {
	t.Parallel()
	// It is run three times for the checks, and a fourth time as the supervisor.
	for part, runs := range map[string]int{"supervisor": 3, "server": 4} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			text, names, crash := loggers(3, 3)
			r := newRig(t, text)
			r.write("logger.sh", loggerScript)
			r.write("crash.sh", crashScript)
			r.write("runs/.keep", "")
			r.ok("up", "-d", "--no-wait")
			for _, name := range names {
				r.wait(name, "running")
			}
			before, info := r.identities(names...), r.info()
			r.write("goes", fmt.Sprintf("#!/bin/sh\necho >> runs/goes\n[ $(wc -l < runs/goes) -lt %d ] || rm -f goes\nexec %q \"$@\"\n", runs, bin()))
			if err := os.Chmod(r.path("goes"), 0o755); err != nil {
				t.Fatal(err)
			}
			if res := r.exits(1, "upgrade", "--binary", "goes"); !strings.Contains(res.errOut, "old "+part+" goes on") || !strings.Contains(res.errOut, "no such file") {
				t.Errorf("it says %q", res.errOut)
			}
			now := r.info()
			if now.PID != info.PID || now.SupervisorPID != info.SupervisorPID || part == "server" && !now.StartedAt.Equal(info.StartedAt) {
				t.Errorf("%+v, it was %+v", now, info)
			}
			r.same("the upgrade", before, names)
			r.event(0, "", part+".upgrade_failed", nil)
			r.progress(10)
			r.ok("upgrade")
			r.same("the second upgrade", before, names)
			r.writesOn(names, 1)
			r.rest()
			c := audit(t, r.allEvents())
			for i, name := range crash {
				r.checkRuns(c, name, crashCode(i), false)
			}
			for _, name := range names {
				if first, last := r.numbers(name, "stdout", "line"); first != 1 || last < 2 {
					t.Errorf("%s has lines %d to %d", name, first, last)
				}
			}
			r.ok("down")
			r.nothingLeft()
		})
	}
}
