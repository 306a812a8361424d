//go:build linux

package proc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// readFamily reads what the role "family" prints, up to "ready".
func readFamily(t *testing.T, line func() string) map[string]stat {
	t.Helper()
	found := map[string]stat{}
	for {
		text := line()
		kind, pid, ok := strings.Cut(text, " ")
		n, err := strconv.Atoi(pid)
		if !ok || err != nil {
			t.Fatalf("the family says %q", text)
		}
		if kind == "ready" {
			break
		}
		st, err := readStat(n)
		if err != nil {
			t.Fatalf("%s %d: %v", kind, n, err)
		}
		found[kind] = st
	}
	if len(found) != 4 {
		t.Fatalf("the family is %v", found)
	}
	return found
}

func survivors(family map[string]stat) []string {
	var out []string
	for kind, st := range family {
		if now, err := readStat(st.pid); err == nil && now.start == st.start && now.alive() {
			out = append(out, kind)
		}
	}
	return out
}

// P4, R4: Kill leaves none of four kinds of descendants, in and out of the
// group, with a cgroup and without; Gone is told after the last has ended.
// Keeps out P15 and K6.
func TestKillLeavesNoSurvivor(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroup=%v", with), func(t *testing.T) {
			t.Parallel()
			o := Options{}
			if with {
				o = withCgroup(t)
			}
			h := testHost(t, o)
			spec := roleSpec("family")
			spec.Name, spec.Marker = "family", "PERDURE_ID=kill"+itoa(os.Getpid())+strconv.FormatBool(with)
			spec.Env = append(spec.Env, spec.Marker)
			x := start(t, h, spec)
			family := readFamily(t, x.line)
			if (x.Identity().Cgroup != "") != with {
				t.Fatalf("identity %+v", x.Identity())
			}
			if s, files, err := h.Sample(x.Identity(), true); err != nil || files < 6 || s.Count < 3 || s.RSS < 1<<20 || with && s.CPU <= 0 { // else in ticks of 10 ms
				t.Errorf("sample %+v %v", s, err)
			}
			if err := x.Kill(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Exit{Code: 137, Signal: "SIGKILL"}, x.end()); diff != "" {
				t.Error(diff)
			}
			if s := survivors(family); s != nil {
				t.Errorf("alive after Gone: %v", s)
			}
			if s, _, err := h.Sample(x.Identity(), false); !errors.Is(err, ErrGone) {
				t.Errorf("sample after the end: %+v %v", s, err)
			}
			if err := h.Release("family"); err != nil {
				t.Error(err)
			}
		})
	}
}

// The same where we are subreaper: the orphans are our children then, no
// zombie is left, and the leader may long be dead when the rest is killed.
func TestSubreaper(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"", "leave"} {
		for _, with := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,cgroup=%v", how, with), func(t *testing.T) {
				t.Parallel()
				name := ""
				if with {
					name = withCgroup(t).CgroupName
				}
				_, out := helper(t, []string{"CGROUP=" + name}, "subreaper", how)
				seen := 0
				lines := bufio.NewScanner(out)
				for lines.Scan() {
					kind, _, _ := strings.Cut(lines.Text(), " ")
					switch {
					case lines.Text() == "children 0":
						seen++
					case kind == "survivor" || strings.Contains(kind, ":") || kind == "bad" || kind == "error" || kind == "children":
						t.Error(lines.Text())
					}
				}
				if seen != 1 {
					t.Error("the supervisor did not come to its end")
				}
			})
		}
	}
}

// N8: a leader that obeys TERM is not the end of a member that ignores it.
func TestMemberIgnoresTerm(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroup=%v", with), func(t *testing.T) {
			t.Parallel()
			o := Options{}
			if with {
				o = withCgroup(t)
			}
			h := testHost(t, o)
			spec := roleSpec("obedient")
			spec.Name = "obedient"
			x := start(t, h, spec)
			_, pid, _ := strings.Cut(x.line(), " ")
			if got := x.line(); got != "ready" {
				t.Fatal(got)
			}
			if err := x.Signal("TERM"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Notice{Exited: true}, x.notice()); diff != "" {
				t.Fatal(diff)
			}
			member, _ := strconv.Atoi(pid)
			if st, err := readStat(member); err != nil || !st.alive() {
				t.Fatalf("member %d: %+v %v", member, st, err)
			}
			// S4: a new generation must not be started into what is left.
			if with {
				if _, err := h.Start(spec, nil); err == nil || !strings.Contains(err.Error(), "an earlier run are left in its cgroup") {
					t.Errorf("second start: %v", err)
				}
			}
			// TERM reaches it (and is ignored), long after the leader was reaped.
			if err := x.Signal("TERM"); err != nil {
				t.Error(err)
			}
			x.quiet()
			if err := x.Kill(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Notice{Gone: true}, x.notice()); diff != "" {
				t.Error(diff)
			}
			if st, err := readStat(member); err == nil && st.alive() {
				t.Errorf("member %d lives", member)
			}
		})
	}
}

// The rest of a group that ends by itself is noticed without any Kill.
func TestGoneWithoutKill(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroup=%v", with), func(t *testing.T) {
			t.Parallel()
			o := Options{}
			if with {
				o = withCgroup(t)
			}
			h := testHost(t, o)
			spec := roleSpec("")
			spec.Name, spec.Argv = "rest", []string{"sh", "-c", "sleep 1000 & echo $!; exit 4"}
			x := start(t, h, spec)
			pid, err := strconv.Atoi(x.line())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Notice{Exited: true, Exit: Exit{Code: 4}}, x.notice()); diff != "" {
				t.Fatal(diff)
			}
			if err := unix.Kill(pid, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Notice{Gone: true}, x.notice()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func readIdentity(t *testing.T, out *bufio.Reader) Identity {
	t.Helper()
	b, err := out.ReadBytes('\n')
	var id Identity
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return id
}

// adoptable starts a supervisor that starts role, kills the supervisor, and
// returns what it has left.
func adoptable(t *testing.T, cgroup string, role string, args ...string) (Identity, *bufio.Reader) {
	t.Helper()
	cmd, out := helper(t, []string{"CGROUP=" + cgroup, "MARK=" + cgroupName(t)}, "parent", append([]string{role}, args...)...)
	id := readIdentity(t, out)
	t.Cleanup(func() { _ = killExact(stat{pid: id.PID, start: id.StartTime}, unix.SIGKILL) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Not Wait: it would close our end of the pipe.
	if _, err := cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	return id, out
}

func adopt(t *testing.T, h *Host, id Identity) *watched {
	t.Helper()
	x := &watched{t: t, got: make(chan Notice, 4)}
	var err error
	if x.Process, err = h.Adopt(id, func(n Notice) { x.got <- n }); err != nil {
		t.Fatal(err)
	}
	return x
}

// P1, P2: a process that another supervisor has started, which was killed, is
// stopped like any other, and its exit code is known where the kernel keeps it.
func TestAdopt(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		for _, noInfo := range []bool{false, true} {
			t.Run(fmt.Sprintf("cgroup=%v,noInfo=%v", with, noInfo), func(t *testing.T) {
				t.Parallel()
				o := Options{}
				if with {
					o = withCgroup(t)
				}
				o.NoPidfdInfo = noInfo
				h := testHost(t, o)
				id, out := adoptable(t, o.CgroupName, "family")
				x := adopt(t, h, id)
				x.out = out
				family := readFamily(t, x.line)
				if err := x.Signal("TERM"); err != nil {
					t.Fatal(err)
				}
				n := x.notice()
				want := Exit{Code: 143, Signal: "SIGTERM"}
				if !n.Exited || n.Gone || n.Exit != want && !(h.opt.NoPidfdInfo && n.Exit == Exit{Unknown: true}) {
					t.Fatalf("%+v", n)
				}
				if err := x.Kill(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(Notice{Gone: true}, x.notice()); diff != "" {
					t.Error(diff)
				}
				if s := survivors(family); s != nil {
					t.Errorf("alive after Gone: %v", s)
				}
			})
		}
	}
}

// P3, K8: nothing but boot, pid and start time together name a process.
// Keeps out M11.
func TestAdoptRefuses(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	x := start(t, h, roleSpec("block"))
	good := x.Identity()
	for name, change := range map[string]func(*Identity){
		"boot":       func(id *Identity) { id.BootID = "another" },
		"pid":        func(id *Identity) { id.PID = os.Getpid() },
		"start time": func(id *Identity) { id.StartTime-- },
		"no pid":     func(id *Identity) { id.PID = 0 },
		"far pid":    func(id *Identity) { id.PID = 1 << 30 },
		"nothing":    func(id *Identity) { *id = Identity{} },
	} {
		id := good
		change(&id)
		if _, err := h.Adopt(id, nil); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := h.Sweep(id); err != nil && name != "start time" {
			t.Errorf("sweep %s: %v", name, err)
		}
	}
	x.quiet()
	if got, err := readStat(good.PID); err != nil || !got.alive() {
		t.Error("the process was touched")
	}
}

// P3: a zombie is not alive, though kill(pid, 0) succeeds: its end is told, to
// who has watched it and to who adopts it then.
func TestZombieIsGone(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	cmd, out := helper(t, nil, "hoarder", "block")
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
	if err != nil {
		t.Fatal(err)
	}
	st, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{BootID: h.bootID, PID: pid, StartTime: st.start}
	// The parent never reaps it, so its status is read off the zombie, and a group
	// of zombies counts as empty.
	for _, noInfo := range []bool{false, true} {
		x := adopt(t, testHost(t, Options{NoPidfdInfo: noInfo}), id)
		if !noInfo {
			if err := x.Signal("KILL"); err != nil {
				t.Fatal(err)
			}
		}
		if e := x.end(); e != (Exit{Code: 137, Signal: "SIGKILL"}) {
			t.Errorf("%+v", e)
		}
		if err := unix.Kill(pid, 0); err != nil {
			t.Errorf("the zombie is away: %v", err)
		}
	}
	_ = cmd.Process.Kill()
}

// What a dead supervisor's dead process has left is found and ended.
func TestSweep(t *testing.T) {
	t.Parallel()
	for _, with := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroup=%v", with), func(t *testing.T) {
			t.Parallel()
			o := Options{}
			if with {
				o = withCgroup(t)
			}
			h := testHost(t, o)
			id, out := adoptable(t, o.CgroupName, "family", "leave")
			w := &watched{t: t, out: out}
			family := readFamily(t, w.line)
			fd, err := unix.PidfdOpen(id.PID, 0)
			if err == nil { // the leader ends by itself
				for !pidfdEnded(fd) {
					_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
				}
				unix.Close(fd)
			}
			if st, err := readStat(id.PID); err == nil && st.start == id.StartTime && st.alive() {
				t.Fatalf("the leader is there: %+v", st)
			}
			if found := h.Find(id.Marker); len(found) != 4 || found[0].Cgroup != id.Cgroup || found[0].PID == id.PID {
				t.Errorf("found %+v", found)
			}
			eventually(t, func() bool {
				live, err := h.Sweep(id)
				if err != nil {
					t.Fatal(err)
				}
				return live == 0
			})
			if s := survivors(family); s != nil {
				t.Errorf("alive after the sweep: %v", s)
			}
			if found := h.Find(id.Marker); len(found) != 0 {
				t.Errorf("found %+v", found)
			}
		})
	}
}

// eventually polls what the system gives no event for.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it never came true")
		}
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Not parallel: it counts the descriptors of the whole test.
func TestManyLeaveNothing(t *testing.T) {
	// The poller of the runtime opens its own with the first pipe.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	for _, with := range []bool{true, false} {
		o := Options{}
		if with {
			o = withCgroup(t)
		}
		before := openFDs(t)
		h, err := NewHost(o)
		if err != nil {
			t.Fatal(err)
		}
		const many = 300
		type numbered struct {
			i int
			Notice
		}
		got := make(chan numbered, 2*many)
		sem := make(chan struct{}, 8)
		pids := make([]int, many)
		for i := range many {
			sem <- struct{}{}
			go func() {
				defer func() { <-sem }()
				p, err := h.Start(Spec{Name: "p" + itoa(i), Argv: []string{"sh", "-c", "exit " + itoa(i%250)}}, func(n Notice) { got <- numbered{i, n} })
				if err != nil {
					t.Error(err)
					got <- numbered{i, Notice{Exited: true, Gone: true}}
					return
				}
				pids[i] = p.PID()
			}()
		}
		exited := map[int]bool{}
		for gone := 0; gone < many; {
			n := <-got
			if n.Exited {
				if exited[n.i] || n.Exit != (Exit{Code: n.i % 250}) {
					t.Errorf("%d: %+v", n.i, n)
				}
				exited[n.i] = true
			}
			if n.Gone {
				if !exited[n.i] {
					t.Errorf("%d is gone before it has ended", n.i)
				}
				gone++
			}
		}
		for range cap(sem) {
			sem <- struct{}{}
		}
		for i, pid := range pids {
			if st, err := readStat(pid); err == nil && st.ppid == os.Getpid() {
				t.Errorf("%d is left: %+v", i, st)
			}
			if err := h.Release("p" + itoa(i)); err != nil {
				t.Error(err)
			}
		}
		if len(h.slots)+len(h.byPID)+len(h.polled) != 0 {
			t.Errorf("left: %v %v %v", h.slots, h.byPID, h.polled)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Start(Spec{Argv: []string{"true"}}, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("start after close: %v", err)
		}
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	sh := func(text string) Spec { return Spec{Argv: []string{"sh", "-c", text}} }
	e, out, err := h.Run(t.Context(), sh("echo out; echo err >&2; exit 3"), 100)
	if e.Code != 3 || string(out) != "out\nerr\n" || err != nil {
		t.Errorf("%+v %q %v", e, out, err)
	}
	e, out, err = h.Run(t.Context(), sh("yes | head -c 1000000"), 10)
	if e.Code != 0 || string(out) != "y\ny\ny\ny\ny\n" || err != nil {
		t.Errorf("%+v %q %v", e, out, err)
	}
	// M8: what it leaves behind ends with it, and does not keep us waiting.
	e, out, err = h.Run(t.Context(), sh("sleep 1000 & echo $!"), 100)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(out)))
	if st, statErr := readStat(pid); e.Code != 0 || err != nil || statErr == nil && st.alive() {
		t.Errorf("%+v %q %v", e, out, err)
	}
	if _, _, err = h.Run(t.Context(), Spec{Argv: []string{"no-such-tool"}}, 0); err == nil {
		t.Error("no error")
	}
}

// M7: a command that was killed at its deadline has not succeeded.
func TestRunTimeout(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	ctx, cancel := timeoutAtReady(t)
	defer cancel()
	e, _, err := h.Run(ctx, Spec{Argv: []string{"sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"}}, 100)
	if e != (Exit{Code: 137, Signal: "SIGKILL"}) || !errors.Is(err, ctx.Err()) || err == nil {
		t.Errorf("%+v %v", e, err)
	}
}

func TestParseSignal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"HUP": "SIGHUP", "sighup": "SIGHUP", "1": "SIGHUP", "RTMIN": "SIGRTMIN", "SIGRTMIN+3": "SIGRTMIN+3",
		"37": "SIGRTMIN+3", "RTMAX-1": "SIGRTMIN+29", "rtmax": "SIGRTMIN+30", " TERM ": "SIGTERM"} {
		got, err := ParseSignal(in)
		if err != nil || got != want {
			t.Errorf("%q: %q %v", in, got, err)
		}
		if again, err := ParseSignal(got); err != nil || again != got {
			t.Errorf("%q: %q %v", got, again, err)
		}
	}
	for _, in := range []string{"", "0", "-1", "65", "33", "FOO", "SIG", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+x", "SIGSIGHUP"} {
		if got, err := ParseSignal(in); err == nil {
			t.Errorf("%q is taken for %q", in, got)
		}
	}
	if !slices.Contains(Signals(), "SIGTERM") || slices.Contains(Signals(), "") {
		t.Error(Signals())
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	line := "42 (a) b (c) S 7 8 9 0 -1 4194560 1 2 3 4 15 16 17 18 20 0 1 0 4711 1 2 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 256\n"
	got, ok := parseStat([]byte(line))
	want := stat{pid: 42, ppid: 7, pgrp: 8, session: 9, state: 'S', utime: 15, stime: 16, start: 4711, exit: 256}
	if !ok || got != want {
		t.Errorf("%+v %v", got, ok)
	}
	for _, bad := range []string{"", "42", "42 (a", "42 (a)", "() 1 2", "x (a) S 1"} {
		if _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
}
