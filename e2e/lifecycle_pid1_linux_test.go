package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestPID1: as the first process of a container Perdure takes in orphans and
// leaves no zombie, and ends cleanly with 0 at SIGTERM, as `docker stop` does it.
func TestPID1(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a namespace of processes")
	}
	need(t, "unshare")
	r := newRig(t, `
processes:
  # Its child's child is an orphan from the start; it ends when the file is there.
  maker:
    command: [sh, -c, '(sh -c "while ! test -e go; do sleep 0.05; done; echo orphan ends" &); echo made; exec sleep 1000']
  polite:
    command: [sh, -c, 'trap "echo polite bye; exit 0" TERM; echo polite hello; while :; do sleep 0.1; done']
`)
	cmd := r.command(t.Context())
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = unshare
	cmd.Args = []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child", bin(), "up"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w := watch(t, cmd)
	eventually(t, "the words of both", func() bool {
		return strings.Contains(w.text(), "│ made") && strings.Contains(w.text(), "│ polite hello")
	})
	children := tree(w.cmd.Process.Pid)
	first := 0
	for _, st := range children {
		if st.ppid == w.cmd.Process.Pid {
			first = st.pid
		}
	}
	if inner := innerPID(t, first); inner != 1 {
		t.Fatalf("Perdure has pid %d in there", inner)
	}
	r.write("go", "")
	w.line("orphan ends")
	eventually(t, "that no zombie is left", func() bool { return len(zombiesUnder(first)) == 0 })
	if err := syscall.Kill(first, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := w.wait(); code != 0 {
		t.Errorf("ended with %d:\n%s", code, w.text())
	}
	if !strings.Contains(w.text(), "polite bye") {
		t.Errorf("the stop was not polite:\n%s", w.text())
	}
	if left := stillThere(children); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// innerPID is a process's pid in its own namespace.
func innerPID(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "NSpid:")
	f := strings.Fields(strings.SplitN(rest, "\n", 2)[0])
	n, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// zombiesUnder are the pids of zombies among a process's descendants.
func zombiesUnder(root int) []int {
	in := map[int]bool{root: true}
	for _, st := range tree(root) {
		in[st.pid] = true
	}
	var out []int
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return []int{-1}
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if st, ok := statOf(pid); ok && st.state == "Z" && in[st.ppid] {
			out = append(out, pid)
		}
	}
	return out
}
