//go:build unix

package logstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helperVar makes the test binary play a process of the outside world.
const helperVar = "PERDURE_LOGSTORE_HELPER"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(helperVar); mode {
	case "":
	case "lines":
		helperLines()
		return
	case "capture":
		helperCapture()
		return
	case "bulk":
		helperBulk()
		return
	default:
		fmt.Fprintln(os.Stderr, "unknown helper", mode)
		os.Exit(2)
	}
	goleak.VerifyTestMain(m)
}

// helperLines writes COUNT numbered lines of 100 bytes to standard output, and
// every 7th also to standard error, in pieces of a size that divides nothing.
func helperLines() {
	n, _ := strconv.Atoi(os.Getenv("COUNT"))
	out := bufio.NewWriterSize(os.Stdout, 3001)
	errs := bufio.NewWriterSize(os.Stderr, 701)
	for i := range n {
		out.WriteString(numbered("o", i))
		if i%7 == 0 {
			errs.WriteString(numbered("e", i))
		}
	}
	if err := errors.Join(out.Flush(), errs.Flush()); err != nil {
		os.Exit(3)
	}
}

func numbered(tag string, i int) string { return fmt.Sprintf("%s%098d\n", tag, i) }

// helperCapture captures until it is killed, and says when it began.
func helperCapture() {
	c, err := NewCapture(Options{LogDir: os.Getenv("LOGS"), RunDir: os.Getenv("RUN")})
	if err == nil {
		_, err = c.Open("web", Retention{MaxSize: 256 << 10, MaxFiles: 1000, Compress: true})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Println("capturing")
	<-context.Background().Done()
}

// helperBulk writes MB megabytes of 100-byte lines in writes of 64 KiB.
func helperBulk() {
	mb, _ := strconv.Atoi(os.Getenv("MB"))
	b := bytes.Repeat([]byte(numbered("b", 1)), 656)[:64<<10]
	for range mb * 16 {
		if _, err := os.Stdout.Write(b); err != nil {
			os.Exit(3)
		}
	}
}

func helper(t testing.TB, mode string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), helperVar+"="+mode), env...)
	return cmd
}

type place struct{ logs, run string }

func newPlace(t testing.TB) place {
	d := t.TempDir()
	return place{logs: filepath.Join(d, "logs"), run: filepath.Join(d, "run")}
}

func newCapture(t testing.TB, p place, onError func(string, error)) *Capture {
	t.Helper()
	o := Options{LogDir: p.logs, RunDir: p.run, OnError: onError}
	if onError != nil {
		o.OnTrouble = func(name string, t Trouble) { onError(name, t.Err) }
	}
	c, err := NewCapture(o)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func open(t testing.TB, c *Capture, name string, r Retention) *Sink {
	t.Helper()
	s, err := c.Open(name, r)
	must(t, err)
	return s
}

func ends(t testing.TB, s *Sink) (stdout, stderr *os.File) {
	t.Helper()
	stdout, stderr, err := s.ChildEnds()
	must(t, err)
	t.Cleanup(func() { stdout.Close(); stderr.Close() })
	return stdout, stderr
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, f *os.File, s string) {
	t.Helper()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

// put writes and stores, so that the order of arrival is known.
func put(t testing.TB, s *Sink, f *os.File, text string) {
	t.Helper()
	write(t, f, text)
	must(t, stored(s))
}

// stored moves what waits, without ending a generation.
func stored(s *Sink) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drain()
}

type got struct {
	stream, text, cursor string
	cut                  bool
	at                   time.Time
}

func lines(t testing.TB, p place, name string, q Query) []got {
	t.Helper()
	var list []got
	for l, err := range Read(t.Context(), p.logs, name, q) {
		must(t, err)
		list = append(list, got{l.Stream, string(l.Text), l.Cursor, l.Cut, l.Time})
	}
	return list
}

// texts joins lines as "o:text", with "+" behind those that are cut.
func texts(list []got) string {
	var b strings.Builder
	for _, l := range list {
		b.WriteString(l.stream[3:4] + ":" + l.text)
		if l.cut {
			b.WriteString("+")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func equal(t interface {
	Helper()
	Fatalf(string, ...any)
}, have, want string) {
	t.Helper()
	if have != want {
		t.Fatalf("have:\n%swant:\n%s", have, want)
	}
}

// within polls where the system offers no signal.
func within(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(60 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("never: " + what)
		}
	}
}

// checkNumbered checks that both streams are complete and in order.
func checkNumbered(t *testing.T, p place, name string, n int) {
	t.Helper()
	next := map[string]int{}
	for l, err := range Read(t.Context(), p.logs, name, Query{Lines: -1}) {
		must(t, err)
		tag, step := "o", 1
		if l.Stream == "stderr" {
			tag, step = "e", 7
		}
		if want := strings.TrimSuffix(numbered(tag, next[l.Stream]), "\n"); string(l.Text) != want || l.Cut {
			t.Fatalf("%s: have %q (cut %v), want %q", l.Stream, l.Text, l.Cut, want)
		}
		next[l.Stream] += step
	}
	if o, e := next["stdout"], next["stderr"]; o != n || e < n || e >= n+7 {
		t.Fatalf("%d and %d lines came, %d were written", o, e, n)
	}
}

func kill(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait() // it was killed: the error says so
}
