//go:build linux

package proc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is every program that the tests need: roleVar says which.
const roleVar = "PROC_TEST_ROLE"

func TestMain(m *testing.M) {
	Shim(os.Args)
	if name := os.Getenv(roleVar); name != "" {
		role, known := roles()[name]
		if !known {
			fmt.Fprintln(os.Stderr, "no such role:", name)
			os.Exit(99)
		}
		role(os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func roles() map[string]func(args []string) {
	return map[string]func([]string){
		"exit":      func(a []string) { n, _ := strconv.Atoi(a[0]); os.Exit(n) },
		"block":     func([]string) { fmt.Println("ready"); block() },
		"self":      describeSelf,
		"family":    family,
		"stubborn":  stubborn,
		"obedient":  obedient,
		"parent":    parent,
		"subreaper": subreaper,
		"hoarder":   hoarder,
		"nofile":    nofile,
		"nursery":   nursery,
		"guardian":  guardian,
		"reuse":     reuse,
	}
}

// facts are what a child sees of itself.
type facts struct {
	Args           []string
	Cwd            string
	Env            []string
	UID, GID       int
	Groups         []int
	SID, PGID, PID int
	Umask          int
	Nice           int
	OOM            string
	NoNewPrivs     bool
	Nofile         [2]uint64
	Core           [2]uint64
	Stdin          string
	FDs            []string
	HasTTY         bool
	Cgroup         string
}

func describeSelf([]string) {
	var f facts
	f.Args = os.Args
	f.Cwd, _ = os.Getwd()
	f.Env = os.Environ()
	f.UID, f.GID = os.Getuid(), os.Getgid()
	f.Groups, _ = os.Getgroups()
	f.PID = os.Getpid()
	f.SID, _ = unix.Getsid(0)
	f.PGID = unix.Getpgrp()
	f.Umask = unix.Umask(0)
	prio, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
	f.Nice = 20 - prio // the system call returns it turned round
	oom, _ := os.ReadFile("/proc/self/oom_score_adj")
	f.OOM = strings.TrimSpace(string(oom))
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "NoNewPrivs:"); ok {
			f.NoNewPrivs = strings.TrimSpace(v) == "1"
		}
	}
	var lim unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	f.Nofile = [2]uint64{lim.Cur, lim.Max}
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &lim)
	f.Core = [2]uint64{lim.Cur, lim.Max}
	f.Stdin, _ = os.Readlink("/proc/self/fd/0")
	// Without what the Go runtime of the child has opened for itself.
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "/proc/") && !strings.HasPrefix(to, "/sys/fs/cgroup/") && !strings.HasPrefix(to, "anon_inode:") {
			f.FDs = append(f.FDs, e.Name()+" "+to)
		}
	}
	_, err := os.Open("/dev/tty")
	f.HasTTY = err == nil
	f.Cgroup, _ = cgroupOf(os.Getpid())
	_ = json.NewEncoder(os.Stdout).Encode(f)
}

// block waits for ever. It waits for a signal, because a Go program without cgo
// ends when all that it has would wait for ever.
func block() {
	never := make(chan os.Signal, 1)
	signal.Notify(never, syscall.SIGWINCH)
	for {
		<-never
	}
}

func roleCmd(role string, args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), roleVar+"="+role)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c
}

// family starts one descendant of each kind that may escape, waits until all
// live, prints "kind pid" of each, and blocks.
func family(args []string) {
	if len(args) > 0 && args[0] == "fork" { // the one in the middle of a double fork
		kind := args[1]
		c := roleCmd("block")
		if kind == "double-fork-setsid" {
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		}
		startReady(c, kind)
		return
	}
	startReady(roleCmd("block"), "child")
	c := roleCmd("block")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	startReady(c, "setsid")
	for _, kind := range []string{"double-fork", "double-fork-setsid"} {
		if err := roleCmd("family", "fork", kind).Run(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	fmt.Println("ready", os.Getpid())
	if len(args) > 0 && args[0] == "leave" {
		return
	}
	block()
}

func startReady(c *exec.Cmd, kind string) {
	c.Stdout = nil
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err == nil {
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(kind, c.Process.Pid)
}

func stubborn([]string) {
	signal.Ignore(syscall.SIGTERM)
	fmt.Println("ready")
	block()
}

// obedient ends at TERM with 0, but has a member that ignores it (N8).
func obedient([]string) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	startReady(roleCmd("stubborn"), "member")
	fmt.Println("ready")
	<-term
}

// parent starts a process with a Host of its own, prints its identity and waits
// for its own end. When it is told a line it also waits for the child first.
func parent(args []string) {
	h, err := NewHost(Options{CgroupName: os.Getenv("CGROUP"), Subreaper: false})
	if err != nil {
		panic(err)
	}
	p, err := h.Start(Spec{Name: "adopted", Argv: append([]string{"/proc/self/exe"}, args[1:]...), Marker: "PERDURE_ID=" + os.Getenv("MARK"),
		Env: []string{roleVar + "=" + args[0], "PERDURE_ID=" + os.Getenv("MARK")}, Stdout: os.Stdout}, func(Notice) {})
	if err != nil {
		panic(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(p.Identity())
	block()
}

// hoarder starts a program and never waits for it: its end leaves a zombie.
func hoarder(args []string) {
	c := roleCmd(args[0], args[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	startReady(c, "pid")
	block()
}

// subreaper is a supervisor: it starts a family, kills it and prints what was
// noticed.
func subreaper(args []string) {
	h, err := NewHost(Options{Subreaper: true, CgroupName: os.Getenv("CGROUP")})
	if err != nil {
		panic(err)
	}
	r, w, _ := os.Pipe()
	got := make(chan Notice, 4)
	p, err := h.Start(Spec{Name: "family", Argv: append([]string{"/proc/self/exe"}, args...), Marker: "PERDURE_ID=" + itoa(os.Getpid()),
		Env: []string{roleVar + "=family", "PERDURE_ID=" + itoa(os.Getpid())}, Stdout: w}, func(n Notice) { got <- n })
	if err != nil {
		panic(err)
	}
	w.Close()
	var pids []stat
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		kind, pid, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(pid)
		st, err := readStat(n)
		if err == nil {
			pids = append(pids, st)
		}
		fmt.Println(lines.Text())
		if kind == "ready" {
			break
		}
	}
	if len(args) > 0 && args[0] == "leave" {
		if n := <-got; !n.Exited || n.Gone {
			fmt.Printf("bad notice %+v\n", n)
		}
	}
	if err := p.Kill(); err != nil {
		fmt.Println("kill:", err)
	}
	for n := range got {
		if n.Gone {
			break
		}
	}
	for _, st := range pids {
		if now, err := readStat(st.pid); err == nil && now.start == st.start && now.alive() {
			fmt.Println("survivor", st.pid)
		}
	}
	// Zombies among our children are reaped at SIGCHLD, perhaps after Gone.
	for children := -1; children != 0; {
		_, _ = unix.Poll(nil, 2) // an early end is as good
		children = 0
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		if err != nil {
			fmt.Println("error:", err)
		}
		fields(b, func(int) { children++ })
	}
	fmt.Println("children 0")
	if err := h.Close(); err != nil {
		fmt.Println("close:", err)
	}
}

// nofile is a supervisor that starts a shell which shows its limits.
func nofile(args []string) {
	h, err := NewHost(Options{})
	if err != nil {
		panic(err)
	}
	spec := Spec{Argv: []string{"/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"}}
	if args[0] == "umask" {
		mask := 022
		spec.Umask = &mask
	}
	_, out, err := h.Run(context.Background(), spec, 100)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Print(string(out))
	_ = h.Close()
}

// testHost is closed at the end of the test, and its cgroups removed.
func testHost(t testing.TB, o Options) *Host {
	t.Helper()
	h, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// withCgroup are options with cgroups; the test is skipped where there are none.
func withCgroup(t testing.TB) Options {
	t.Helper()
	o := Options{CgroupName: cgroupName(t)}
	c, err := openCgroups(o.CgroupName)
	if err != nil {
		t.Skip("no cgroups here: ", err)
	}
	dir := c.dir
	t.Cleanup(func() {
		if err := removeCgroup(dir); err != nil {
			t.Error(err)
		}
	})
	unix.Close(c.fd)
	return o
}

func cgroupName(t testing.TB) string {
	return fmt.Sprintf("proctest-%d-%s", os.Getpid(), strings.NewReplacer("/", "_", "#", "_", "=", "_").Replace(t.Name()))
}

// watched is a started process and what was noticed of it.
type watched struct {
	*Process
	t   testing.TB
	got chan Notice
	out *bufio.Reader
}

func roleSpec(role string, args ...string) Spec {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Spec{Argv: append([]string{self}, args...), Env: []string{roleVar + "=" + role, "PATH=/usr/bin:/bin", "GOCOVERDIR=" + os.TempDir()}}
}

// start starts spec with its output readable, and makes sure of its end.
func start(t testing.TB, h *Host, spec Spec) *watched {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	spec.Stdout = w
	if spec.Stderr == nil {
		spec.Stderr = os.Stderr
	}
	x := &watched{t: t, got: make(chan Notice, 4), out: bufio.NewReader(r)}
	x.Process, err = h.Start(spec, func(n Notice) { x.got <- n })
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Kill() })
	return x
}

func (x *watched) line() string {
	x.t.Helper()
	s, err := x.out.ReadString('\n')
	if err != nil && err != io.EOF {
		x.t.Fatal(err)
	}
	return strings.TrimSuffix(s, "\n")
}

// notice waits for the next notice; only a broken Host makes it fail.
func (x *watched) notice() Notice {
	x.t.Helper()
	select {
	case n := <-x.got:
		return n
	case <-time.After(30 * time.Second):
		x.t.Fatal("no notice")
		return Notice{}
	}
}

// end waits until it is gone and returns the exit.
func (x *watched) end() Exit {
	x.t.Helper()
	n := x.notice()
	if !n.Exited {
		x.t.Fatalf("first notice is %+v", n)
	}
	exit := n.Exit
	for !n.Gone {
		n = x.notice()
	}
	return exit
}

func (x *watched) quiet() {
	x.t.Helper()
	select {
	case n := <-x.got:
		x.t.Fatalf("unexpected notice %+v", n)
	default:
	}
}

// runFacts runs the role "self" and returns what it saw.
func runFacts(t *testing.T, h *Host, change func(*Spec)) facts {
	t.Helper()
	spec := roleSpec("self")
	change(&spec)
	x := start(t, h, spec)
	var f facts
	if err := json.NewDecoder(x.out).Decode(&f); err != nil {
		t.Fatal(err)
	}
	if e := x.end(); e != (Exit{}) {
		t.Fatalf("it ended with %+v", e)
	}
	return f
}

// helper runs a role of the test binary beside us, not under a Host.
func helper(t *testing.T, env []string, role string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, self, args...)
	c.Env = append(append(os.Environ(), env...), roleVar+"="+role)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = c.Wait() })
	return c, bufio.NewReader(out)
}

func itoa(n int) string { return strconv.Itoa(n) }

func writeFile(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// timeoutAtReady is a context that ends soon; how soon does not matter.
func timeoutAtReady(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 100*time.Millisecond)
}
