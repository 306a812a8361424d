//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// old is a commit before any part could become another program, or start another.
const old = "7e3dca4e6fe1238c4294b8105084288d3c3c6bf4"

// fromHistory builds the program of an earlier commit. Where the history is not
// there, such as in a source package or a shallow clone, the test is skipped.
func fromHistory(t *testing.T, commit string) string {
	t.Helper()
	if out, err := exec.Command("git", "-C", "..", "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("the history does not have commit %s: %v %s", commit, err, out)
	}
	dir := t.TempDir()
	c := exec.Command("sh", "-c", fmt.Sprintf("git -C .. archive %s | tar -x -C %q", commit, dir))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot unpack commit %s: %v\n%s", commit, err, out)
	}
	path := filepath.Join(dir, "perdure")
	build(t, dir, path, "v-old")
	return path
}

// A Perdure of an older commit is upgraded: it cannot become another program, so
// both parts are ended without the processes, and the new ones adopt them. Then a
// program of that commit refuses nothing and loses nothing when it comes back.
func TestUpgradeFromAnOlderCommit(t *testing.T) {
	t.Parallel()
	before := fromHistory(t, old)
	next := buildVersion(t, "v-new")
	text, names, _ := loggers(10, 0)
	r := newRig(t, text)
	r.write("logger.sh", loggerScript)
	r.env = append(r.env, "GREETING=kept")
	r.as(before, "up", "-d")
	alive, info := r.identities(names...), r.info()
	follower := r.follow()
	out := r.as(next, "upgrade")
	if !strings.Contains(out, "from v-old to v-new") || !strings.Contains(out, "10 processes live on") || !strings.Contains(out, "has adopted them") {
		t.Errorf("it says %q", out)
	}
	now := r.info()
	if now.Version != "v-new" || now.PID == info.PID || now.SupervisorPID == info.SupervisorPID {
		t.Errorf("%+v, it was %+v", now, info)
	}
	r.same("the upgrade", alive, names)
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", now.PID))
	if err != nil || !strings.Contains(string(env), "\x00GREETING=kept\x00") {
		t.Errorf("the server has lost its environment: %v", err)
	}
	// From now on it can.
	r.as(buildVersion(t, "v-newer"), "upgrade")
	if again := r.info(); again.Version != "v-newer" || again.PID != now.PID || again.SupervisorPID != now.SupervisorPID {
		t.Errorf("%+v, it was %+v", again, now)
	}
	r.same("the second upgrade", alive, names)
	r.writesOn(names, 2)
	r.rest()
	events := r.allEvents()
	audit(t, events)
	for _, name := range names {
		if first, last := r.numbers(name, "stdout", "line"); first != 1 || last < 3 {
			t.Errorf("%s has lines %d to %d", name, first, last)
		}
	}
	follower.through(t, events[len(events)-1].Seq)
	r.as(next, "down")
	r.nothingLeft()
}

// A journal of a newer version is refused with both versions named, by up and
// before an upgrade, and it is left as it is.
func TestNewerJournalIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, "processes:\n  steady: {command: [sleep, \"100000\"]}\n")
	r.ok("up", "-d")
	before := r.process("steady").ID
	r.ok("down")
	segments, err := filepath.Glob(filepath.Join(r.state(), "journal", "*.journal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	slices.Sort(segments)
	path := segments[len(segments)-1]
	ours, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The first 16 bytes are the same in all versions (docs/reference/journal.md).
	newer := slices.Clone(ours)
	binary.LittleEndian.PutUint32(newer[8:], 2)
	binary.LittleEndian.PutUint32(newer[12:], crc32.Checksum(newer[:12], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	res := r.run("up", "-d")
	if log := r.serverLog(); res.code == 0 || !strings.Contains(log, "format version 2") || !strings.Contains(log, "versions up to 1") {
		t.Errorf("up ended with %d: %s\n%s", res.code, res.errOut, log)
	}
	if check := r.run("supervisor", "--check", "--state-dir", r.state()); check.code != 1 || !strings.Contains(check.errOut, "format version 2") {
		t.Errorf("the check ended with %d: %s", check.code, check.errOut)
	}
	if after, err := os.ReadFile(path); err != nil || !slices.Equal(after, newer) {
		t.Error("the newer journal was touched")
	}
	if err := os.WriteFile(path, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	r.ok("up", "-d")
	if after := r.process("steady").ID; after != before {
		t.Errorf("steady is %s, it was %s", after, before)
	}
	r.ok("down")
}
