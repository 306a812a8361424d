//go:build unix

package e2e

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// running is a command that goes on while the test watches it.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	more  chan struct{} // something was written
	read  chan struct{} // closed when its output has ended
	ended chan struct{} // closed when it has been waited for

	mu    sync.Mutex
	lines []string
	next  int // the first line that nobody has waited for
}

// start starts a command whose standard output and error are read as lines.
func (r *rig) start(args ...string) *running {
	r.t.Helper()
	cmd := r.command(context.Background(), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return watch(r.t, cmd)
}

// watch starts cmd and reads what it writes.
func watch(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	return watchFile(t, cmd, out, in, bufio.ScanLines)
}

// watchFile starts cmd and reads what it writes from out; in is closed here.
func watchFile(t *testing.T, cmd *exec.Cmd, out, in *os.File, split bufio.SplitFunc) *running {
	t.Helper()
	w := &running{t: t, cmd: cmd, more: make(chan struct{}, 1), read: make(chan struct{}), ended: make(chan struct{})}
	err := cmd.Start()
	if closeErr := in.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.ended)
		_ = cmd.Wait() // the state tells how it ended
	}()
	go w.take(out, split)
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-w.ended
		_ = out.Close() // ends the reader
		<-w.read
	})
	return w
}

// take reads lines until the output ends.
func (w *running) take(out *os.File, split bufio.SplitFunc) {
	defer close(w.read)
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
	s.Split(split)
	for s.Scan() {
		w.mu.Lock()
		w.lines = append(w.lines, s.Text())
		w.mu.Unlock()
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}

// text is all that it has written so far.
func (w *running) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "\n")
}

// find returns the next line that contains a text.
func (w *running) find(part string) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.next < len(w.lines) {
		w.next++
		if line := w.lines[w.next-1]; strings.Contains(line, part) {
			return line, true
		}
	}
	return "", false
}

// line waits for a line that contains a text, after the last one waited for.
func (w *running) line(part string) string {
	w.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	for {
		if line, ok := w.find(part); ok {
			return line
		}
		select {
		case <-w.more:
		case <-w.read:
			if line, ok := w.find(part); ok {
				return line
			}
			w.t.Fatalf("%q ended and has not said %q:\n%s", w.cmd.Args, part, w.text())
		case <-end.C:
			w.t.Fatalf("%q has not said %q:\n%s", w.cmd.Args, part, w.text())
		}
	}
}

// lineAnywhere waits for a line that contains a text, wherever it comes.
func (w *running) lineAnywhere(part string) string {
	w.t.Helper()
	w.mu.Lock()
	w.next = 0
	w.mu.Unlock()
	return w.line(part)
}

func (w *running) signal(s syscall.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
}

// wait waits for the end of the command and of its output, and returns the exit code.
func (w *running) wait() int {
	w.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	for _, c := range []chan struct{}{w.ended, w.read} {
		select {
		case <-c:
		case <-end.C:
			w.t.Fatalf("%q does not end, or its output is held open:\n%s", w.cmd.Args, w.text())
		}
	}
	return exitCode(w.cmd.ProcessState)
}
