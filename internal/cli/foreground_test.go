package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

// serving is a fake server: it answers at once, ends when end is closed, and
// notes what it was asked.
type serving struct {
	mu      sync.Mutex
	options ServeOptions
	hurried chan struct{}
	end     chan served
	stopped chan struct{} // closed when its context has ended
}

func serveWith(b *bench) *serving {
	s := &serving{hurried: make(chan struct{}), end: make(chan served, 1), stopped: make(chan struct{})}
	b.follow, b.moreLines = make(chan api.Event), make(chan api.LogLine)
	b.seams.Serve = func(ctx context.Context, o ServeOptions, started func(Started)) (int, error) {
		s.mu.Lock()
		s.options = o
		s.mu.Unlock()
		defer context.AfterFunc(ctx, func() { close(s.stopped) })()
		started(Started{Socket: "x", Hurry: func() { close(s.hurried) }})
		e := <-s.end
		return e.code, e.err
	}
	return s
}

func TestUpShowsOutputAndEvents(t *testing.T) {
	t.Parallel()
	b := newBench()
	s := serveWith(b)
	b.config = api.Config{Definitions: map[string]api.Definition{"web": {Ready: &api.Probe{}}, "db": {}}}
	go func() {
		b.moreLines <- api.LogLine{Name: "web", Stream: "stdout", Text: "hello"}
		b.moreLines <- api.LogLine{Name: "db", Stream: "stderr", Text: "oops"}
		b.follow <- api.Event{Type: "process.starting", Name: "web"}
		b.follow <- api.Event{Type: "process.ready", Name: "web"}
		b.follow <- api.Event{Type: "process.ready", Name: "db"} // has no gate: told by started
		b.follow <- api.Event{Type: "process.backoff", Name: "db", Data: []byte(`{"delay_ms":1000,"attempt":1}`)}
		close(b.follow)
		close(b.moreLines)
		s.end <- served{code: 7}
	}()
	code, stdout, stderr := b.run(t, "up", "web", "--state-dir", t.TempDir())
	if code != 7 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{"web │ hello\n", "db  ! oops\n", "web · is ready\n", "db  · restart 1 in 1s\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in %q", want, stdout)
		}
	}
	if strings.Count(stdout, "ready") != 1 || strings.Contains(stdout, "starting") {
		t.Errorf("events that tell nothing new are shown: %q", stdout)
	}
	if len(s.options.Only) != 1 || s.options.Only[0] != "web" {
		t.Errorf("the server was asked for %v", s.options.Only)
	}
}

// The first signal stops in order; the second one kills; no second one, no kill.
func TestCtrlCStopsTheSecondOneKills(t *testing.T) {
	t.Parallel()
	for _, presses := range []int{1, 2} {
		for _, command := range []string{"up", "server", "run -- sh"} {
			b := newBench()
			s := serveWith(b)
			b.signals <- os.Interrupt
			if presses == 2 {
				b.signals <- os.Interrupt
			}
			go func() {
				<-s.stopped
				if presses == 2 {
					<-s.hurried
				}
				close(b.follow)
				close(b.moreLines)
				s.end <- served{}
			}()
			code, _, stderr := b.run(t, append([]string{"--state-dir", t.TempDir()}, strings.Fields(command)...)...)
			if code != 0 || strings.Contains(stderr, "perdure: ") {
				t.Errorf("%s, %d presses: exit code %d, stderr %q", command, presses, code, stderr)
			}
			if presses == 1 {
				select {
				case <-s.hurried:
					t.Errorf("%s: one Ctrl-C has killed", command)
				default:
				}
			}
		}
	}
}

func TestUpTellsWhyItCannotStart(t *testing.T) {
	t.Parallel()
	b := newBench()
	s := serveWith(b)
	s.end <- served{1, api.Errorf(api.CodeConflict, "cannot take the lock")}
	if code, _, stderr := b.run(t, "up", "--state-dir", t.TempDir()); code != 1 && code != 6 || !strings.Contains(stderr, "perdure: cannot take the lock") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	b.seams.Running = func(string) (int, int) { return 5, 6 }
	if code, _, stderr := b.run(t, "up", "--state-dir", t.TempDir()); code != 6 || !strings.Contains(stderr, "already runs here (pid 5)") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestRunPassesThrough(t *testing.T) {
	t.Parallel()
	b := newBench()
	s := serveWith(b)
	go func() {
		b.moreLines <- api.LogLine{Name: "sh", Stream: "stdout", Text: "out \x1b[1m"}
		b.moreLines <- api.LogLine{Name: "sh", Stream: "stderr", Text: "err"}
		b.follow <- api.Event{Type: "process.exited", Name: "sh", Data: []byte(`{"code":3,"cause":"exit"}`)}
		close(b.follow)
		close(b.moreLines)
		s.end <- served{code: 3}
	}()
	code, stdout, stderr := b.run(t, "run", "--", "sh", "-c", "exit 3")
	if code != 3 || stdout != "out \x1b[1m\n" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	if !strings.Contains(stderr, "err\n") || !strings.Contains(stderr, "perdure: sh exited with code 3\n") {
		t.Errorf("stderr %q", stderr)
	}
	def := s.options.Ephemeral[0]
	if strings.Join(def.Command, " ") != "sh -c exit 3" || def.Name != "sh" || def.Restart != api.RestartOnFailure || def.OnNoRestart != "exit" {
		t.Errorf("the definition is %+v", def)
	}
	if _, err := os.Stat(s.options.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary state directory %s is left: %v", s.options.StateDir, err)
	}
}

func TestRunOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for program, why := range map[string]string{"no-such-tool": "not found in PATH", "./no/such": "no such file", plain: "permission denied"} {
		if code, _, stderr := newBench().run(t, "run", "--", program); code != 2 || !strings.Contains(stderr, "cannot run ") || !strings.Contains(stderr, why) {
			t.Errorf("%s: exit code %d, stderr %q", program, code, stderr)
		}
	}
}

// slowWriter takes one write at a time, when told.
type slowWriter struct {
	let   chan struct{}
	mu    sync.Mutex
	bytes int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	<-w.let
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes += len(p)
	return len(p), nil
}

// A terminal that takes nothing makes the sources wait: what is kept is bounded.
func TestFloodWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{let: make(chan struct{})}
		a := &app{out: w}
		f := a.lineFeed(render.NewLines(w, render.LinesOptions{Prefix: true}))
		taken := 0
		ctx, cancel := context.WithCancel(t.Context())
		var pumping sync.WaitGroup
		pumping.Go(func() {
			_ = a.pump(ctx, f, func(yield func(api.LogLine, error) bool) {
				for yield(api.LogLine{Name: "web", Text: strings.Repeat("x", 1000)}, nil) {
					taken++
				}
			})
		})
		synctest.Wait() // the output is stuck now, and so is the source
		if limit := 2*feedRoom + 100; taken == 0 || taken > limit {
			t.Errorf("took %d lines while nothing could be written, want at most %d", taken, limit)
		}
		cancel()
		pumping.Wait()
		close(w.let)
		if err := f.close(); err != nil {
			t.Error(err)
		}
		if want := taken * 1000; w.bytes < want {
			t.Errorf("%d bytes were written of %d lines that were taken", w.bytes, taken)
		}
	})
}

// Lines of several sources never mix, and none is lost.
func TestSourcesInterleaveByWholeLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{out: &out}
	f := a.lineFeed(render.NewLines(&out, render.LinesOptions{Prefix: true, Raw: true}, "p0"))
	const sources, each = 8, 500
	var wg sync.WaitGroup
	for s := range sources {
		wg.Go(func() {
			name := fmt.Sprintf("p%d", s)
			for i := range each {
				f.send(t.Context(), item{line: &api.LogLine{Name: name, Text: fmt.Sprintf("%d", i)}})
			}
		})
	}
	wg.Wait()
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	next := map[string]int{}
	for line := range strings.Lines(out.String()) {
		var name string
		var i int
		if _, err := fmt.Sscanf(line, "%s │ %d\n", &name, &i); err != nil {
			t.Fatalf("a mixed line: %q", line)
		}
		if next[name] != i {
			t.Fatalf("%s: line %d came when %d was next", name, i, next[name])
		}
		next[name]++
	}
	for name, n := range next {
		if n != each {
			t.Errorf("%s: %d lines of %d", name, n, each)
		}
	}
	if len(next) != sources {
		t.Errorf("%d sources of %d", len(next), sources)
	}
}

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// `perdure logs | head` ends well, and a server in the foreground goes on.
func TestClosedOutputIsNoError(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.lines = []api.LogLine{{Name: "web", Text: "x"}, {Name: "web", Text: "y"}}
	b.in = closedPipe{}
	if code, _, stderr := b.run(t, "logs"); code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestSettled(t *testing.T) {
	t.Parallel()
	p := func(states ...api.State) (out []api.Process) {
		for _, s := range states {
			out = append(out, api.Process{Name: string(s), State: s, Desired: api.DesiredRunning})
		}
		return out
	}
	for _, tc := range []struct {
		list []api.Process
		want bool
	}{
		{nil, true}, {p(api.StateRunning, api.StateExited), true}, {p(api.StateRunning, api.StateStarting), false},
		{p(api.StateWaiting), false}, {p(api.StateWaiting, api.StateFailed), true}, {p(api.StateWaiting, api.StateStarting, api.StateFailed), false},
		{p(api.StateBackoff, api.StateRunning), true}, {[]api.Process{{State: api.StateStarting, Desired: api.DesiredStopped}}, true},
	} {
		if got := settled(tc.list); got != tc.want {
			t.Errorf("settled(%v) = %v", tc.list, got)
		}
	}
}

func TestAwaitUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newBench().fake
		f.follow = make(chan api.Event)
		f.list = []api.Process{{Name: "web", State: api.StateStarting, Desired: api.DesiredRunning}}
		var shown []string
		_, err := awaitUp(t.Context(), f, time.Second, func(names []string) { shown = names })
		if api.CodeOf(err) != api.CodeTimeout || len(shown) != 1 {
			t.Errorf("without an end: %v, shown %v", err, shown)
		}
		go func() {
			f.mu.Lock()
			f.list = []api.Process{{Name: "web", State: api.StateRunning, Desired: api.DesiredRunning}}
			f.mu.Unlock()
			f.follow <- api.Event{Type: "process.ready"}
		}()
		if list, err := awaitUp(t.Context(), f, time.Minute, func([]string) {}); err != nil || list[0].State != api.StateRunning {
			t.Errorf("after the event: %v, %v", list, err)
		}
	})
}
