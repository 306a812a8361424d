package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/wire"
)

// supervisor is Perdure's real end of the worker protocol.
type supervisor struct {
	socket  string
	reports chan string
	beats   chan struct{}
	calls   sync.WaitGroup

	mu   sync.Mutex
	fail error // nothing becomes durable
	e    *session.Endpoint
}

func (s *supervisor) Owns(int) bool { return true }
func (s *supervisor) Tree() []int   { return nil }
func (s *supervisor) Beat() {
	select {
	case s.beats <- struct{}{}:
	default:
	}
}

func (s *supervisor) Welcome() wire.Welcome {
	return wire.Welcome{Server: "perdure/test", ProcessID: "proc_1", Name: "w", Generation: 1, Stop: &wire.Stop{GraceMs: 60_000},
		Heartbeat: &wire.Beat{IntervalMs: 10, TimeoutMs: 60_000}, Metadata: []byte(`{"file":"a b.mp4","n":7}`)}
}

func (s *supervisor) Take(b session.Batch, done func(error)) {
	s.mu.Lock()
	err := s.fail
	s.mu.Unlock()
	s.calls.Go(func() {
		for _, r := range b.Reports {
			if err == nil && !strings.HasPrefix(r.Type, "process.worker_connected") && !strings.HasPrefix(r.Type, "process.worker_disc") {
				s.reports <- r.Type + " " + string(r.Data)
			}
		}
		done(err)
	})
}

func supervised(t *testing.T) *supervisor {
	t.Helper()
	s := &supervisor{socket: filepath.Join(t.TempDir(), "w.sock"), reports: make(chan string, 1000), beats: make(chan struct{}, 1)}
	s.listen(t)
	return s
}

func (s *supervisor) listen(t *testing.T) {
	t.Helper()
	hub, err := session.Open(session.Options{Clock: func() int64 { return time.Now().UnixNano() }, Coalesce: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
		s.calls.Wait()
	})
	if s.e, err = hub.Listen(session.Spec{ProcessID: "proc_1", Path: s.socket}, s); err != nil {
		t.Fatal(err)
	}
	s.e.AwaitBeat()
}

// want wants the next report to be of a type and to have the fields of a JSON object.
func (s *supervisor) want(t *testing.T, typ, fields string) {
	t.Helper()
	select {
	case got := <-s.reports:
		name, data, _ := strings.Cut(got, " ")
		var have, want map[string]any
		if err := errors.Join(json.Unmarshal([]byte(data), &have), json.Unmarshal([]byte(fields), &want)); err != nil {
			t.Fatal(err)
		}
		for k := range have {
			if _, asked := want[k]; !asked {
				delete(have, k)
			}
		}
		if diff := cmp.Diff(want, have); name != typ || diff != "" {
			t.Errorf("reported %s, want %s %s", got, typ, fields)
		}
	case <-time.After(time.Minute):
		t.Fatalf("nothing is reported, want %s", typ)
	}
}

func TestWordsOfAWorker(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	for _, tc := range []struct {
		args         []string
		report, data string
	}{
		{[]string{"emit", "file.done", `{"file":"a b.mp4"}`}, "process.event", `{"event":"file.done","data":{"file":"a b.mp4"}}`},
		{[]string{"worker", "emit", "begun"}, "process.event", `{"event":"begun","data":{}}`},
		{[]string{"emit", "list", "[1, null]"}, "process.event", `{"event":"list","data":[1,null]}`},
		{[]string{"ready"}, "process.worker_ready", `{}`},
		{[]string{"worker", "ready"}, "process.worker_ready", `{}`},
		{[]string{"progress", "40", "pass 1"}, "process.progress", `{"percent":40,"message":"pass 1"}`},
		{[]string{"worker", "progress", "99.5%"}, "process.progress", `{"percent":99.5}`},
		{[]string{"worker", "status", "3 of 7"}, "process.status", `{"status":"3 of 7"}`},
		{[]string{"worker", "log", "warn", "slow", `{"ms":1}`}, "process.log", `{"level":"warn","message":"slow","data":{"ms":1}}`},
		{[]string{"worker", "log", "info", "plain"}, "process.log", `{"level":"info","message":"plain"}`},
	} {
		b := newBench()
		b.env["PERDURE_WORKER_SOCKET"] = s.socket
		if code, out, errOut := b.run(t, tc.args...); code != 0 || out+errOut != "" {
			t.Errorf("%v: %d %s%s", tc.args, code, out, errOut)
		}
		s.want(t, tc.report, tc.data)
	}
	select {
	case <-s.beats:
		t.Error("a word that is no heartbeat has sent one: a hung program would look alive")
	default:
	}
	for _, args := range [][]string{{"heartbeat"}, {"worker", "heartbeat"}} {
		b := newBench()
		b.env["PERDURE_WORKER_SOCKET"] = s.socket
		s.e.AwaitBeat()
		if code, _, errOut := b.run(t, args...); code != 0 {
			t.Errorf("%v: %d %s", args, code, errOut)
		}
		<-s.beats
	}
}

func TestWordsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	for _, tc := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"emit", "bad/name"}, 1, "refused by Perdure"},
		{[]string{"emit", "a", "{nonsense"}, 2, "single quotes"},
		{[]string{"emit"}, 2, "--help"},
		{[]string{"emit", "a", "--timeout", "-1s"}, 2, "--timeout"},
		{[]string{"progress", "half"}, 2, "PERCENT"},
		{[]string{"progress", "NaN"}, 2, "PERCENT"},
		{[]string{"worker", "log", "loud", "x"}, 2, "LEVEL"},
		{[]string{"worker", "log", "info", "x", "[1]"}, 2, "an object"},
		{[]string{"metadata", "nothing"}, 4, `"nothing"`},
		{[]string{"worker", "emot"}, 2, `did you mean "emit"`},
		{[]string{"worker", "ls", "-l"}, 2, "perdure worker -- ls -l"},
		{[]string{"worker"}, 2, "--help"},
		{[]string{"worker", "--event", "x", "--", "true"}, 2, "NAME=REGEX"},
		{[]string{"worker", "--progress", "(", "--", "true"}, 2, "--progress"},
		{[]string{"worker", "--total", "0", "--", "true"}, 2, "--total"},
	} {
		b := newBench()
		b.env["PERDURE_WORKER_SOCKET"] = s.socket
		if code, out, errOut := b.run(t, tc.args...); code != tc.code || !strings.Contains(errOut, tc.text) || out != "" {
			t.Errorf("%v: %d %s%s, want %d %s", tc.args, code, out, errOut, tc.code, tc.text)
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	for _, env := range []map[string]string{{"PERDURE_WORKER_SOCKET": s.socket}, {"PERDURE_METADATA": `{"file":"a b.mp4","n":7}`}} {
		for args, want := range map[string]string{"metadata": `{"file":"a b.mp4","n":7}`, "metadata file": "a b.mp4", "worker metadata n": "7"} {
			b := newBench()
			b.env = env
			if code, out, errOut := b.run(t, strings.Fields(args)...); code != 0 || out != want+"\n" {
				t.Errorf("%s: %d %q %s", args, code, out, errOut)
			}
		}
	}
}

func TestWithoutSupervision(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{"emit a": 0, "heartbeat": 0, "ready": 0, "worker status x": 0, "emit a --require": 3, "heartbeat --require": 3} {
		code, _, errOut := newBench().run(t, strings.Fields(args)...)
		if code != want || !strings.Contains(errOut, "not under supervision") {
			t.Errorf("%s: %d %s", args, code, errOut)
		}
		if _, _, errOut := newBench().run(t, append(strings.Fields(args), "-q")...); want == 0 && errOut != "" {
			t.Errorf("%s -q says %s", args, errOut)
		}
	}
	if code, out, errOut := newBench().run(t, "metadata"); code != 0 || out != "{}\n" {
		t.Errorf("metadata: %d %s%s", code, out, errOut)
	}
}

// What nobody has made durable is no success, and Perdure may come later.
func TestWordsWaitForPerdure(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	s.mu.Lock()
	s.fail = errors.New("the disk is full")
	s.mu.Unlock()
	b := newBench()
	b.env["PERDURE_WORKER_SOCKET"] = s.socket
	if code, _, errOut := b.run(t, "emit", "a", "--timeout", "50ms"); code != 5 || !strings.Contains(errOut, "50ms") {
		t.Errorf("%d %s, want 5", code, errOut)
	}
	later := &supervisor{socket: filepath.Join(t.TempDir(), "w.sock"), reports: make(chan string, 10), beats: make(chan struct{}, 1)}
	for _, args := range []string{"emit a", "heartbeat"} {
		b := newBench()
		b.env["PERDURE_WORKER_SOCKET"] = later.socket
		if code, _, _ := b.run(t, append(strings.Fields(args), "--timeout", "1ms")...); code != 5 {
			t.Errorf("%s: %d, want 5", args, code)
		}
	}
	codes := make(chan int, 2)
	for _, args := range []string{"emit b", "progress 1"} {
		go func() {
			b := newBench()
			b.env["PERDURE_WORKER_SOCKET"] = later.socket
			code, _, _ := b.run(t, append(strings.Fields(args), "--timeout", "1m")...)
			codes <- code
		}()
	}
	later.listen(t)
	if a, b := <-codes, <-codes; a != 0 || b != 0 {
		t.Errorf("%d and %d, want 0", a, b)
	}
}

func TestMatcher(t *testing.T) {
	t.Parallel()
	f := wrapFlags{ffmpeg: true, events: []string{`done=^done (?P<file>\S+) (?P<n>\S+)`}, ready: "^up$", progress: []string{`^(?P<percent>\d+)%(?: (?P<message>.*))?`}}
	m, err := f.matcher()
	if err != nil {
		t.Fatal(err)
	}
	var got []saying
	lines := &lineCutter{line: func(s string) { got = append(got, m.match(s)...) }}
	for _, part := range []string{"nothing\nu", "p\nup\n", "done a 1.5\r\ndone b NaN\n40% of it\n",
		"frame=  1 fps=0.0 q=0 size= 1kB time=00:00:01.00 bitrate= 1 speed=1.5x    \r",
		"  Duration: 00:00:04.00, start: 0\n", "frame=  1 fps= 25 q=0 size= 1kB time=00:00:01.00 bitrate= 1 speed=1.5x", "\r"} {
		if _, err := lines.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	want := []saying{
		{what: sayReady},
		{what: sayEvent, event: "done", data: map[string]any{"line": "done a 1.5", "file": "a", "n": 1.5}},
		{what: sayEvent, event: "done", data: map[string]any{"line": "done b NaN", "file": "b", "n": "NaN"}},
		{what: sayProgress, percent: 40, message: "of it"},
		{what: sayStatus, message: "frame 1, fps 0.0, speed 1.5x"},
		{what: sayProgress, percent: 25, message: "frame 1, fps 25, speed 1.5x"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(saying{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	t.Parallel()
	var got []int
	lines := &lineCutter{line: func(s string) { got = append(got, len(s)) }}
	for range 3 {
		_, _ = lines.Write([]byte(strings.Repeat("x", maxMatched-1))) // it cannot fail
	}
	_, _ = lines.Write([]byte("\n\r\n"))
	if diff := cmp.Diff([]int{maxMatched, maxMatched, maxMatched - 3}, got); diff != "" {
		t.Error(diff)
	}
}

func needsUnix(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there is no sh")
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	needsUnix(t)
	s := supervised(t)
	b := newBench()
	b.env["PERDURE_WORKER_SOCKET"] = s.socket
	script := `echo up; echo done a.mp4 >&2; printf '3 of 4\r'; printf last; exit 9`
	code, out, errOut := b.run(t, "worker", "--ready", "^up$", "--event", `done=^done (?P<file>\S+)`, "--event", "last=^last$", "--progress", `(?P<value>\d+) of (?P<total>\d+)`, "--", "sh", "-c", script)
	if code != 9 || out != "up\n3 of 4\rlast" || errOut != "done a.mp4\n" {
		t.Errorf("%d %q %q", code, out, errOut)
	}
	got := map[string]bool{}
	for range 4 {
		text := <-s.reports
		got[regexp.MustCompile(`,?"(instance|timestamp|id)":("[^"]*"|\d+)`).ReplaceAllString(text, "")] = true
	}
	want := map[string]bool{
		`process.worker_ready {}`:         true,
		`process.progress {"percent":75}`: true,
		`process.event {"event":"done","data":{"file":"a.mp4","line":"done a.mp4"}}`: true,
		`process.event {"event":"last","data":{"line":"last"}}`:                      true,
	}
	for text := range got {
		if !want[strings.ReplaceAll(text, "{,", "{")] {
			t.Errorf("reported %s", text)
		}
	}
	for args, want := range map[string]int{"sh -c true": 0, "/nowhere/program": 127, "/": 126} {
		b := newBench()
		if code, _, errOut := b.run(t, append([]string{"worker", "--"}, strings.Fields(args)...)...); code != want {
			t.Errorf("%s: %d %s, want %d", args, code, errOut, want)
		}
	}
	if code, _, _ := newBench().run(t, "worker", "--", "sh", "-c", "kill -9 $$"); code != 137 {
		t.Errorf("%d, want 137", code)
	}
}

// A program that lives is alive; with --heartbeat-on-output only one that writes is.
func TestWrapSendsHeartbeats(t *testing.T) {
	t.Parallel()
	needsUnix(t)
	s := supervised(t)
	for flag, script := range map[string]string{"--ffmpeg": "read x", "--heartbeat-on-output": "while echo x; do :; done"} {
		cmd := program(t, s.socket, "worker", flag, "--", "sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			s.e.AwaitBeat()
			<-s.beats
		}
		if err := errors.Join(in.Close(), cmd.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
	silent := newBench()
	silent.env["PERDURE_WORKER_SOCKET"] = s.socket
	for len(s.beats) > 0 {
		<-s.beats
	}
	s.e.AwaitBeat()
	if code, _, _ := silent.run(t, "worker", "--heartbeat-on-output", "--", "sh", "-c", "sleep 0.1"); code != 0 {
		t.Error(code)
	}
	if len(s.beats) > 0 {
		t.Error("a silent program has sent a heartbeat")
	}
}

// program is this program in a process and a group of its own.
func program(t *testing.T, socket string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "PERDURE_TEST_MAIN=1", "PERDURE_WORKER_SOCKET="+socket)
	ownGroup(cmd)
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
		}
	})
	return cmd
}

// signalTeller makes this test binary a program that tells of each signal. A
// shell would not do: a signal just before its read(2) is told after it.
const signalTeller = "signal-teller"

// A signal to the group, as Perdure sends it, reaches the program once.
func TestWrapPassesSignalsOn(t *testing.T) {
	t.Parallel()
	needsUnix(t)
	cmd := program(t, "", "worker", "--event", "x=y", "--", os.Args[0], signalTeller)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var got []string
	for _, name := range []string{"TERM", "USR1", ""} {
		if lines.Scan() {
			got = append(got, lines.Text())
		}
		if name != "" {
			signalGroup(t, cmd, name)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	err = cmd.Wait()
	if diff := cmp.Diff([]string{"up", "got", "got"}, got); diff != "" || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%v: %s", err, diff)
	}
}
