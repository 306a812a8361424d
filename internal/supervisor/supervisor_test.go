//go:build unix

package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/definition"
	"github.com/perdure/perdure/internal/proc"
)

// The children of these tests are this test binary, playing a part.
func TestMain(m *testing.M) {
	proc.Shim(os.Args)
	if part := os.Getenv("TEST_PART"); part != "" {
		play(part)
	}
	os.Exit(m.Run())
}

// play runs a part: "obey" ends on SIGTERM, "ignore" does not, "exit N" ends
// with the code, "say N" prints N lines and obeys.
func play(part string) {
	word, arg, _ := strings.Cut(part, " ")
	n, _ := strconv.Atoi(arg)
	term := make(chan os.Signal, 1)
	switch word {
	case "exit":
		os.Exit(n)
	case "ignore":
		signal.Ignore(syscall.SIGTERM)
		// With nothing to wait for, the runtime would end it as a deadlock.
		signal.Notify(term, syscall.SIGUSR1)
	default:
		signal.Notify(term, syscall.SIGTERM)
	}
	fmt.Println("up")
	if f := os.Getenv("TEST_READY"); f != "" {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			os.Exit(9)
		}
	}
	if word == "say" {
		w := bufio.NewWriter(os.Stdout)
		for i := range n {
			fmt.Fprintln(w, "line", i)
		}
		if err := w.Flush(); err != nil {
			os.Exit(3)
		}
	}
	<-term
	fmt.Println("bye")
	os.Exit(0)
}

// rig is a real supervisor over a directory of the test's own, and the journal
// as a reader sees it.
type rig struct {
	*Supervisor
	t   *testing.T
	dir string

	mu      sync.Mutex
	entries []control.Entry
	news    chan struct{}
	stop    context.CancelFunc
}

func open(t *testing.T, dir string) *rig {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir, Embedded: true, OnExit: func(int) {}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &rig{Supervisor: s, t: t, dir: dir, news: make(chan struct{}), stop: stop}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for frames, err := range s.Follow(ctx, 0) {
			if err != nil {
				return
			}
			r.mu.Lock()
			for _, f := range frames {
				e, err := f.Entry()
				if err != nil {
					t.Error(err)
				}
				r.entries = append(r.entries, e)
			}
			close(r.news)
			r.news = make(chan struct{})
			r.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return r
}

// end shuts down and closes, and checks that nothing is left.
func (r *rig) end() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.Shutdown(ctx, 20*time.Second); err != nil {
		r.t.Error(err)
	}
	last := r.log.LastSeq()
	r.until("the last entry", func(e control.Entry) bool { return e.Seq == last })
	r.stop()
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
}

const quick = api.Duration(10 * time.Millisecond)

// part is a definition of a child that plays a part.
func part(name, part string, change ...func(*api.Definition)) api.Definition {
	first := quick
	d := api.Definition{Name: name, Command: api.Command{os.Args[0]}, Env: map[string]string{"TEST_PART": part},
		Backoff: api.Backoff{Kind: "fixed", Initial: &first}, Breaker: api.Breaker{Failures: -1}}
	for _, c := range change {
		c(&d)
	}
	return d
}

func (r *rig) apply(boot bool, defs ...api.Definition) control.ApplyResult {
	r.t.Helper()
	named := map[string]api.Definition{}
	for _, d := range defs {
		named[d.Name] = d
	}
	var full []api.Definition
	for _, d := range definition.FillAll(named) {
		full = append(full, d)
	}
	res, err := r.Apply(r.t.Context(), control.ApplyRequest{Definitions: full, Full: true, Boot: boot, Source: "file"})
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// until waits until an entry satisfies ok.
func (r *rig) until(what string, ok func(control.Entry) bool) control.Entry {
	r.t.Helper()
	deadline := time.After(30 * time.Second)
	for i := 0; ; {
		r.mu.Lock()
		for ; i < len(r.entries); i++ {
			if ok(r.entries[i]) {
				defer r.mu.Unlock()
				return r.entries[i]
			}
		}
		news := r.news
		r.mu.Unlock()
		select {
		case <-news:
		case <-deadline:
			for _, e := range r.entries {
				b, _ := json.Marshal(e)
				r.t.Logf("%s", b)
			}
			r.t.Fatalf("never seen: %s", what)
		}
	}
}

// all returns the entries seen so far.
func (r *rig) all() []control.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.entries)
}

func event(name, typ string, generation uint64) func(control.Entry) bool {
	return func(e control.Entry) bool {
		for _, ev := range e.Events {
			if ev.Name == name && ev.Type == typ && (generation == 0 || ev.Generation == generation) {
				return true
			}
		}
		return false
	}
}

func (r *rig) command(verb, name string) control.Record {
	r.t.Helper()
	rec, err := r.Command(r.t.Context(), control.Command{Verb: verb, Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

func TestStartKillRestartStop(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir())
	r.apply(true, part("web", "obey"))
	e := r.until("web runs", event("web", "process.ready", 1))
	if e.Record.State.State != api.StateRunning || e.Record.Identity == nil {
		t.Fatalf("record after ready: %+v", e.Record)
	}
	if err := syscall.Kill(e.Record.State.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exited := r.until("web's end is told", event("web", "process.exited", 1))
	if exited.Record.State.Exit.Signal != "SIGKILL" || exited.Record.State.Exit.Code != 137 {
		t.Errorf("exit %+v, want SIGKILL, 137", exited.Record.State.Exit)
	}
	r.until("web is back", event("web", "process.ready", 2))
	r.command("stop", "web")
	e = r.until("web is stopped", event("web", "process.stopped", 2))
	if s := e.Record.State; s.Alive || s.PID != 0 || s.State != api.StateStopped || s.Restarts != 1 {
		t.Errorf("state after stop: %+v", s)
	}
	r.end()
}

func TestDependenciesInOrder(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir())
	on := func(names ...string) func(*api.Definition) {
		return func(d *api.Definition) {
			for _, n := range names {
				d.DependsOn = append(d.DependsOn, api.Dependency{Process: n})
			}
		}
	}
	oneshot := func(d *api.Definition) { d.Oneshot = true }
	r.apply(true, part("db", "obey"), part("migrate", "exit 0", oneshot, on("db")), part("web", "obey", on("migrate", "db")))
	r.until("web runs", event("web", "process.ready", 1))
	r.end()
	order := []string{}
	for _, e := range r.all() {
		for _, ev := range e.Events {
			if ev.Type == "process.started" || ev.Type == "process.stopped" {
				order = append(order, ev.Name+" "+strings.TrimPrefix(ev.Type, "process."))
			}
		}
	}
	got := strings.Join(order, ", ")
	want := "db started, migrate started, web started, web stopped, db stopped"
	if got != want {
		t.Errorf("order: %s\nwant:  %s", got, want)
	}
}

// P1 and P3 of the reference's processes: what is adopted can be stopped, and
// its end is noticed.
func TestAdoptAfterClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, dir)
	r.apply(true, part("web", "obey"), part("api", "obey"))
	pid := r.until("web runs", event("web", "process.ready", 1)).Record.State.PID
	r.until("api runs", event("api", "process.ready", 1))
	r.stop()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir)
	recs, _, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range recs {
		if rec.Name == "web" && (rec.State.PID != pid || rec.State.State != api.StateRunning || rec.State.Generation != 1) {
			t.Errorf("adopted %+v, want pid %d running", rec.State, pid)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("the end of the adopted one is noticed", event("web", "process.exited", 1))
	r.until("web is back", event("web", "process.ready", 2))
	r.command("stop", "api")
	r.until("the adopted api is stopped", event("api", "process.stopped", 1))
	r.end()
}

func TestRemoveForgets(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir())
	r.apply(true, part("web", "obey"), part("old", "obey"))
	r.until("old runs", event("old", "process.ready", 1))
	res := r.apply(false, part("web", "obey"))
	if fmt.Sprint(res.Removed) != "[old]" || fmt.Sprint(res.Unchanged) != "[web]" {
		t.Errorf("result %+v", res)
	}
	r.until("old is forgotten", func(e control.Entry) bool { return e.Removed && e.Record.Name == "old" })
	if _, err := r.Command(t.Context(), control.Command{Verb: "start", Name: "old"}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a removed process can be started: %v", err)
	}
	r.end()
}

func TestStopWinsOverIgnoredTerm(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir())
	grace := api.Duration(50 * time.Millisecond)
	up := filepath.Join(t.TempDir(), "up")
	r.apply(true, part("deaf", "ignore", func(d *api.Definition) {
		d.Stop.Grace = &grace
		d.Env["TEST_READY"] = up
		d.Ready = &api.Probe{Exec: &api.ExecProbe{Command: api.Command{"test", "-f", up}}, Interval: quick}
	}))
	r.until("deaf runs", event("deaf", "process.ready", 1))
	r.command("stop", "deaf")
	e := r.until("deaf is stopped", event("deaf", "process.stopped", 1))
	if e.Record.State.Exit.Signal != "SIGKILL" || !e.Record.State.Exit.Expected {
		t.Errorf("exit %+v", e.Record.State.Exit)
	}
	r.end()
}

func TestEntriesAreWhole(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir())
	r.apply(true, part("web", "obey"))
	r.until("web runs", event("web", "process.ready", 1))
	r.end()
	last := uint64(0)
	for _, e := range r.all() {
		if e.Seq != last+1 {
			t.Fatalf("entry %d follows %d", e.Seq, last)
		}
		last = e.Seq
		if b, err := json.Marshal(e); err != nil || len(b) > 8192 {
			t.Errorf("entry %d: %d bytes, %v", e.Seq, len(b), err)
		}
	}
}
