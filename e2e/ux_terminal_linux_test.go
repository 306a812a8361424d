package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a command on a pseudo terminal.
type terminal struct {
	*running
	master *os.File
}

// onTerminal starts a command as the session leader of a new pseudo terminal of
// 100 columns (pty(7)).
func onTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return &terminal{watchFile(t, cmd, master, slave, screenLines), master}
}

// press types control characters.
func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

const ctrlC = "\x03"

// screenLines splits what a terminal gets: a line that is drawn anew in place
// counts as one of its own.
func screenLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	end := bytes.IndexByte(data, '\n')
	if i := bytes.Index(data, []byte("\r\x1b[K")); i >= 0 && (end < 0 || i < end) {
		return i + 4, data[:i], nil
	}
	if end >= 0 {
		return end + 1, bytes.TrimSuffix(data[:end], []byte("\r")), nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

const twoTalkers = `
processes:
  db:
    command: [sh, -c, 'trap "echo db bye; exit 0" TERM; trap "echo db got INT" INT; echo db hello; while :; do sleep 0.1; done']
  web-server:
    command: [sh, -c, 'trap "echo web bye; exit 0" TERM; trap "echo web got INT" INT; echo web hello; echo trouble >&2; while :; do sleep 0.1; done']
    depends_on: [db]
`

// TestForegroundOnTerminal: aligned, coloured prefixes; Ctrl-C on the terminal
// reaches Perdure alone (P31: the processes are in sessions of their own), stops
// in reverse order (N24) and ends with 0.
func TestForegroundOnTerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t, twoTalkers)
	x := onTerminal(t, r.command(t.Context(), "up"))
	// Two programs write when they like.
	db, web, trouble := x.lineAnywhere("db hello"), x.lineAnywhere("web hello"), x.lineAnywhere("trouble")
	plain := regexp.MustCompile(`\x1b\[[0-9;]*m`)
	for _, line := range []string{db, web, trouble} {
		if !strings.HasPrefix(line, "\x1b[") {
			t.Errorf("the prefix has no colour: %q", line)
		}
	}
	a, b := plain.ReplaceAllString(db, ""), plain.ReplaceAllString(web, "")
	if !strings.HasPrefix(a, "db         ") || !strings.HasPrefix(b, "web-server ") || strings.Index(a, "db hello") != strings.Index(b, "web hello") {
		t.Errorf("the columns are not aligned:\n%q\n%q", a, b)
	}
	if c := plain.ReplaceAllString(trouble, ""); !strings.HasPrefix(c, "web-server !") {
		t.Errorf("standard error is not marked: %q", c)
	}
	descendants := tree(x.cmd.Process.Pid)
	x.press(ctrlC)
	if code := x.wait(); code != 0 {
		t.Errorf("ended with %d:\n%s", code, x.text())
	}
	all := x.text()
	if i, j := strings.Index(all, "web bye"), strings.Index(all, "db bye"); i < 0 || j < i {
		t.Errorf("not stopped in reverse order, or the last words are lost:\n%s", all)
	}
	if strings.Contains(all, "got INT") {
		t.Errorf("Ctrl-C reached a process:\n%s", all)
	}
	eventually(t, "the end of all", func() bool { return len(stillThere(descendants)) == 0 })
}

// TestSecondCtrlCKills: a process that ignores TERM and has a long grace is
// killed at once by a second Ctrl-C. N11: nothing is orphaned by that.
func TestSecondCtrlCKills(t *testing.T) {
	t.Parallel()
	r := newRig(t, fmt.Sprintf(`
processes:
  mule: {command: [%q], env: {E2E_ROLE: stubborn}, stop: {grace: 10m}}
`, self(t)))
	x := onTerminal(t, r.command(t.Context(), "up"))
	x.line("stubborn ")
	descendants := tree(x.cmd.Process.Pid)
	began := time.Now()
	x.press(ctrlC)
	x.line("(1s); Ctrl-C again") // at once it would count as the same press
	x.press(ctrlC)
	if code := x.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("the second Ctrl-C took %v", took)
	}
	eventually(t, "the end of all", func() bool { return len(stillThere(descendants)) == 0 })
}

// TestPlainText: a pipe, NO_COLOR and --no-color get text without escapes.
func TestPlainText(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, start func(r *rig) *running) {
		t.Parallel()
		r := newRig(t, twoTalkers)
		w := start(r)
		w.line("web hello")
		w.signal(syscall.SIGINT)
		if code := w.wait(); code != 0 {
			t.Errorf("ended with %d", code)
		}
		if text := w.text(); strings.Contains(text, "\x1b[3") || strings.Contains(text, "\x1b[1m") || strings.Contains(text, "\x1b[2m") {
			t.Errorf("there are colours:\n%q", text)
		}
	}
	t.Run("pipe", func(t *testing.T) { run(t, func(r *rig) *running { return r.start("up") }) })
	t.Run("NO_COLOR", func(t *testing.T) {
		run(t, func(r *rig) *running {
			r.env = append(r.env, "NO_COLOR=1")
			return onTerminal(t, r.command(t.Context(), "up")).running
		})
	})
	t.Run("--no-color", func(t *testing.T) {
		run(t, func(r *rig) *running { return onTerminal(t, r.command(t.Context(), "up", "--no-color")).running })
	})
}

// TestExitStatusPassesThrough: on_no_restart: exit ends Perdure with the code of
// the process, 128+n after a signal (W4), and breaker.on_open: exit with the
// breaker's (W1: the action is executed, not hoped for).
func TestExitStatusPassesThrough(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		process string
		code    int
	}{
		"code":    {`{command: [sh, -c, 'echo last words; exit 7'], restart: never, on_no_restart: exit}`, 7},
		"success": {`{command: ["true"], restart: never, on_no_restart: exit}`, 0},
		"signal":  {`{command: [sh, -c, 'kill -SEGV $$$$'], restart: never, on_no_restart: exit}`, 139},
		"breaker": {`{command: [sh, -c, 'exit 3'], backoff: {initial: 0s}, breaker: {failures: 2, on_open: exit, exit_code: 100}}`, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "processes:\n  other: {command: [sleep, '1000']}\n  job: "+c.process+"\n")
			w := r.start("up")
			if code := w.wait(); code != c.code {
				t.Errorf("ended with %d, not %d:\n%s", code, c.code, w.text())
			}
			if name == "code" && !strings.Contains(w.text(), "last words") {
				t.Errorf("the last words of the process are not shown:\n%s", w.text())
			}
		})
	}
}
