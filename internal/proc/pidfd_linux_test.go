package proc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// nursery starts args[0] programs, prints their identities, and reaps each as
// soon as it ends: number i ends with i%200 once standard input ends.
func nursery(args []string) {
	n, _ := strconv.Atoi(args[0])
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	boot, _ := BootID()
	var all []*exec.Cmd
	for i := range n {
		c := exec.Command("sh", "-c", "read x; exit "+strconv.Itoa(i%200))
		c.Stdin = r
		if err := c.Start(); err != nil {
			panic(err)
		}
		st, err := readStat(c.Process.Pid)
		if err != nil {
			panic(err)
		}
		_ = json.NewEncoder(os.Stdout).Encode(Identity{BootID: boot, PID: st.pid, StartTime: st.start})
		all = append(all, c)
	}
	done := make(chan bool)
	for _, c := range all {
		go func() { _ = c.Wait(); done <- true }()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	w.Close()
	for range all {
		<-done
	}
	fmt.Println("reaped")
}

// children returns what a nursery of n has, and a function that lets them end.
func children(t *testing.T, n int) (ids []Identity, end func()) {
	t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, line := helperWith(t, in, "nursery", strconv.Itoa(n))
	in.Close()
	for range n {
		ids = append(ids, readIdentity(t, line))
	}
	return ids, func() {
		w.Close()
		_ = out
		if s, err := line.ReadString('\n'); err != nil || s != "reaped\n" {
			t.Fatalf("%q %v", s, err)
		}
	}
}

func helperWith(t *testing.T, in *os.File, role string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, args...)
	c.Env = append(os.Environ(), roleVar+"="+role)
	c.Stdin, c.Stderr = in, os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Wait() })
	return c, bufio.NewReader(out)
}

// Many processes that are not our children end at once and are reaped at any
// instant between our looks at them: each exit is known and right. A look that
// finds a process reaped must ask the kernel once more.
func TestExitsOfReapedStrangers(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	if h.opt.NoPidfdInfo {
		t.Skip("the kernel does not keep exit codes")
	}
	const n = 300
	ids, end := children(t, n)
	var all []*watched
	for _, id := range ids {
		all = append(all, adopt(t, h, id))
	}
	end()
	for i, x := range all {
		if e := x.end(); e != (Exit{Code: i % 200}) {
			t.Errorf("%d: %+v", i, e)
		}
	}
}

// Where the kernel does not keep exits, whoever has reaped a process tells; what
// nobody tells is unknown after a bounded wait.
func TestExitIsToldByItsReaper(t *testing.T) {
	t.Parallel()
	h, impatient := testHost(t, Options{NoPidfdInfo: true}), testHost(t, Options{NoPidfdInfo: true})
	h.relay.looks = math.MaxInt
	h.Relayed(true)
	impatient.Relayed(true)
	ids, end := children(t, 3)
	told, silent, early := adopt(t, h, ids[0]), adopt(t, impatient, ids[1]), adopt(t, h, ids[2])
	// As told, not as it is: so it shows whose word it was.
	h.Told(ids[2], Exit{Code: 77})
	early.quiet() // it lives
	stranger := ids[0]
	stranger.StartTime++
	h.Told(stranger, Exit{Code: 66})
	h.Told(Identity{BootID: h.bootID, PID: 1 << 30}, Exit{Code: 66})
	end()
	h.Told(ids[0], Exit{Code: 78})
	if e := early.end(); e != (Exit{Code: 77}) {
		t.Errorf("told before its end: %+v", e)
	}
	// Root may have read it off the zombie.
	if e := told.end(); e != (Exit{Code: 78}) && e != (Exit{Code: 0}) {
		t.Errorf("told after its end: %+v", e)
	}
	if e := silent.end(); e != (Exit{Unknown: true}) && e != (Exit{Code: 1}) {
		t.Errorf("told by nobody: %+v", e)
	}
}

// guardian is a subreaper that tells of orphans: what a dying supervisor leaves.
func guardian(args []string) {
	got := make(chan Identity, 64)
	h, err := NewHost(Options{Subreaper: true, OnOrphan: func(id Identity, e Exit) {
		_ = json.NewEncoder(os.Stdout).Encode(struct {
			Identity
			Exit Exit
		}{id, e})
		got <- id
	}})
	if err != nil {
		panic(err)
	}
	p, err := h.Start(Spec{Argv: []string{"/proc/self/exe", "block"}, Stdout: os.Stdout,
		Env: []string{roleVar + "=parent", "CGROUP=", "MARK=guard" + itoa(os.Getpid())}}, func(Notice) {})
	if err != nil {
		panic(err)
	}
	var line string
	_, _ = fmt.Scanln(&line)
	_ = p.Kill()
	<-got
	_ = h.Close()
}

// The parent of a process is killed: it comes to the subreaper above, which
// learns its exit on any kernel.
func TestOrphansAreTold(t *testing.T) {
	t.Parallel()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, out := helperWith(t, in, "guardian")
	in.Close()
	id := readIdentity(t, out)
	parent, err := readStat(id.PID)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := out.ReadString('\n'); err != nil || s != "ready\n" {
		t.Fatalf("%q %v", s, err)
	}
	if err := killExact(stat{pid: parent.ppid, start: mustStat(t, parent.ppid).start}, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { st, err := readStat(id.PID); return err == nil && st.ppid != parent.ppid })
	if err := killExact(parent, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var told struct {
		Identity
		Exit Exit
	}
	if err := json.NewDecoder(out).Decode(&told); err != nil {
		t.Fatal(err)
	}
	if told.PID != id.PID || told.StartTime != id.StartTime || told.BootID != id.BootID || told.Exit != (Exit{Code: 137, Signal: "SIGKILL"}) {
		t.Errorf("%+v, it was %+v", told, id)
	}
	fmt.Fprintln(w, "end")
}

func mustStat(t *testing.T, pid int) stat {
	t.Helper()
	st, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Whoever holds a pidfd keeps the exit: the process ends and is reaped while no
// supervisor lives, and the next one learns to the bit what the parent has got,
// a core dump included.
func TestAdoptFD(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{"code": "exit 9", "signal": "kill -9 $$", "core": "ulimit -c unlimited; kill -ABRT $$"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testHost(t, Options{})
			if h.opt.NoPidfdInfo {
				t.Skip("the kernel does not keep exit codes")
			}
			old, err := NewHost(Options{})
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			x := start(t, old, Spec{Argv: []string{"sh", "-c", "while ! test -e go; do sleep 0.02; done; " + script}, Dir: dir, Env: os.Environ()})
			fd, err := x.PidFD()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			want := x.end()
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := x.PidFD(); !errors.Is(err, ErrGone) {
				t.Errorf("PidFD after the end: %v", err)
			}
			if pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); name == "core" && string(pattern) == "core\n" && !want.CoreDumped {
				t.Error("no core was dumped: this proves nothing of it")
			}
			got := make(chan Notice, 2)
			if _, err := h.AdoptFD(x.Identity(), fd, nil, func(n Notice) { got <- n }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Notice{Exited: true, Exit: want, Gone: true}, <-got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a holder hands over is taken for nothing else than it is.
func TestAdoptFDRefuses(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	x := start(t, h, roleSpec("block"))
	good := x.Identity()
	if _, err := h.AdoptFD(good, 0, nil, nil); err == nil {
		t.Error("standard input was taken for a pidfd")
	}
	for name, change := range map[string]func(*Identity){
		"boot":       func(id *Identity) { id.BootID = "another" },
		"pid":        func(id *Identity) { id.PID = os.Getpid() },
		"start time": func(id *Identity) { id.StartTime-- },
	} {
		fd, err := x.PidFD()
		if err != nil {
			t.Fatal(err)
		}
		id := good
		change(&id)
		if _, err := h.AdoptFD(id, fd, nil, nil); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
		if err := unix.Close(fd); err != nil {
			t.Errorf("%s: what was refused was closed: %v", name, err)
		}
	}
	x.quiet()
}

// reuse makes a pid that is given anew, in a namespace of processes of its own,
// and prints what a Host makes of it.
func reuse([]string) {
	// Private first: what is mounted here must not be seen outside.
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, "")); err != nil {
		panic(err)
	}
	h, err := NewHost(Options{})
	if err != nil {
		panic(err)
	}
	gone := make(chan Notice, 2)
	spec := roleSpec("block")
	spec.Marker = "PERDURE_ID=reuse"
	spec.Env = append(spec.Env, spec.Marker)
	p, err := h.Start(spec, func(n Notice) { gone <- n })
	if err != nil {
		panic(err)
	}
	id := p.Identity()
	fd, err := p.PidFD()
	if err != nil {
		panic(err)
	}
	if err := p.Kill(); err != nil {
		panic(err)
	}
	for n := range gone {
		if n.Gone {
			break
		}
	}
	stranger := reborn(id)
	adopted := func(Notice) {}
	_, err = h.Adopt(id, adopted)
	fmt.Println("adopt", errors.Is(err, ErrGone))
	wrong, err := unix.PidfdOpen(id.PID, 0)
	if err == nil {
		_, err = h.AdoptFD(id, wrong, nil, adopted)
	}
	fmt.Println("adopt by the stranger's pidfd", errors.Is(err, ErrGone))
	ended := make(chan Notice, 2)
	if _, err = h.AdoptFD(id, fd, nil, func(n Notice) { ended <- n }); err != nil {
		panic(err)
	}
	n := <-ended
	fmt.Println("adopt by its own pidfd", n.Exit.Signal == "SIGKILL" || n.Exit.Unknown, n.Gone)
	live, err := h.Sweep(id)
	fmt.Println("sweep", live, err)
	st, err := readStat(id.PID)
	fmt.Println("stranger", err == nil && st.alive() && st.start != id.StartTime)
	_ = stranger.Process.Kill()
	_ = h.Close()
}

// reborn starts a stranger with the pid of id. The start time has a resolution
// of ten milliseconds, so it begins again until that differs, as it does wherever
// pids come round by themselves.
func reborn(id Identity) *exec.Cmd {
	for {
		// The next pid that is tried is the one after this (pid_namespaces(7)).
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(itoa(id.PID-1)), 0); err != nil {
			panic(err)
		}
		c := roleCmd("block")
		c.Stdout = nil
		if err := c.Start(); err != nil {
			panic(err)
		}
		if st, err := readStat(c.Process.Pid); err == nil && st.pid == id.PID && st.start != id.StartTime {
			return c
		}
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// P3, K8: a pid that belongs to another program by now is left alone.
func TestReusedPIDIsLeftAlone(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a namespace of processes")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), roleVar+"=reuse")
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "adopt true\nadopt by the stranger's pidfd true\nadopt by its own pidfd true true\nsweep 0 <nil>\nstranger true\n"
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Error(diff)
	}
}
