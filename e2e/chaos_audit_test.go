//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/perdure/perdure/api"
)

// life is what the event log says of one generation.
type life struct {
	started, exited int
	pid             int
	code            *int // as process.exited told it
	signal, cause   string
	expected        bool
}

// chronicle is what the event log says, by name and generation.
type chronicle map[string]map[uint64]*life

// allEvents reads the whole event log.
func (r *rig) allEvents() []api.Event {
	r.t.Helper()
	c := r.client()
	var out []api.Event
	for q := (api.EventQuery{Limit: 1000}); ; {
		page, err := c.Events(bounded(r.t), q)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, page.Events...)
		if len(page.Events) == 0 || !page.More {
			return out
		}
		q.After = page.Events[len(page.Events)-1].Seq
	}
}

// audit holds an event log against the promise: no sequence number is missing,
// and each generation of each process was started once, ended once, in order,
// and never lived beside another one.
func audit(t *testing.T, events []api.Event) chronicle {
	t.Helper()
	all := chronicle{}
	live := map[string]uint64{}
	for i, e := range events {
		if want := events[0].Seq + uint64(i); e.Seq != want {
			t.Fatalf("event %d follows %d", e.Seq, want-1)
		}
		if e.Type != "process.started" && e.Type != "process.exited" {
			continue
		}
		// The id tells a process from an earlier one of the same name.
		who := e.Name + " " + e.ProcessID
		if all[who] == nil {
			all[who] = map[uint64]*life{}
		}
		l := all[who][e.Generation]
		if l == nil {
			l = &life{}
			all[who][e.Generation] = l
		}
		if e.Type == "process.started" {
			if live[who] != 0 {
				t.Errorf("%s: generation %d was started while %d lived (event %d)", who, e.Generation, live[who], e.Seq)
			}
			live[who] = e.Generation
			l.started++
			l.pid = int(fields(t, e)["pid"].(float64))
			continue
		}
		if _, known := fields(t, e)["code"].(float64); live[who] != e.Generation && (known || live[who] != 0) {
			t.Errorf("%s: generation %d ended while %d lived (event %d)", who, e.Generation, live[who], e.Seq)
		}
		delete(live, who)
		l.exited++
		l.take(fields(t, e))
	}
	for who, lives := range all {
		for g := uint64(1); g <= uint64(len(lives)); g++ {
			l := lives[g]
			switch {
			case l == nil:
				t.Errorf("%s: generation %d of %d is missing", who, g, len(lives))
			case l.started == 0 && l.exited == 1 && l.code == nil:
				// The supervisor died between its fork and its record.
			case l.started != 1:
				t.Errorf("%s: generation %d was started %d times", who, g, l.started)
			case l.exited > 1, l.exited == 0 && live[who] != g:
				t.Errorf("%s: generation %d has ended %d times", who, g, l.exited)
			}
		}
	}
	return all
}

func (l *life) take(data map[string]any) {
	if code, ok := data["code"].(float64); ok {
		l.code = new(int)
		*l.code = int(code)
	}
	l.signal, _ = data["signal"].(string)
	l.cause, _ = data["cause"].(string)
	l.expected, _ = data["expected"].(bool)
}

// of returns the generations of a name that was never removed.
func (c chronicle) of(t *testing.T, name string) map[uint64]*life {
	t.Helper()
	var out map[uint64]*life
	for who, lives := range c {
		if strings.HasPrefix(who, name+" ") {
			if out != nil {
				t.Fatalf("%s has had two ids", name)
			}
			out = lives
		}
	}
	return out
}

// crashScript writes down that a generation runs, goes on for a while, and ends
// with a known code: crash.sh NAME SECONDS CODE.
const crashScript = `echo "$PERDURE_GENERATION $$" >> "runs/$1"
sleep "$2"
exit "$3"
`

// checkRuns holds what the programs themselves have written down against the
// event log: no start that was not told, none told that did not happen, none
// twice, and each exit code the one that the program ended with.
func (r *rig) checkRuns(c chronicle, name string, code int, unknownAllowed bool) (generations int) {
	r.t.Helper()
	lives := c.of(r.t, name)
	seen := map[uint64]int{}
	for line := range strings.Lines(r.read("runs/" + name)) {
		var g uint64
		var pid int
		if _, err := fmt.Sscan(line, &g, &pid); err != nil {
			r.t.Fatalf("%s has written %q", name, line)
		}
		if before := seen[g]; before != 0 {
			r.t.Errorf("%s: generation %d has run twice: pids %d and %d", name, g, before, pid)
		}
		seen[g] = pid
		if l := lives[g]; l == nil {
			r.t.Errorf("%s: generation %d has run and no event tells of it", name, g)
		} else if l.pid != pid && l.started != 0 {
			r.t.Errorf("%s: generation %d was pid %d, the event says %d", name, g, pid, l.pid)
		}
	}
	for g, l := range lives {
		switch {
		case l.exited == 0 || l.expected || l.cause == "shutdown":
		case l.code == nil:
			if !unknownAllowed {
				r.t.Errorf("%s: the exit code of generation %d is not known", name, g)
			}
		case *l.code != code:
			r.t.Errorf("%s: generation %d ended with %d (%s, %s), not %d", name, g, *l.code, l.signal, l.cause, code)
		}
		// Who is killed may be so before it has written anything.
		if seen[g] == 0 && !l.expected && l.code != nil && *l.code == code && code != 137 {
			r.t.Errorf("%s: generation %d is told and has not run", name, g)
		}
	}
	return len(lives)
}

// strike kills a process with SIGKILL and waits until it is dead.
func strike(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("cannot kill process %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("the death of %d", pid), func() bool { return !alive(pid) })
}

// strikeAll kills processes, none of which sees the death of another.
func strikeAll(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if pid <= 1 {
			t.Fatalf("cannot kill process %d", pid)
		}
		_ = syscall.Kill(pid, syscall.SIGSTOP) // strike tells
	}
	for _, pid := range pids {
		strike(t, pid)
	}
}

// info asks the server who it is.
func (r *rig) info() api.Info {
	r.t.Helper()
	info, err := r.client().Info(bounded(r.t))
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.serverLog())
	}
	return info
}

// identities are the pids and start times of all live processes by name.
func (r *rig) identities(names ...string) map[string]procStat {
	r.t.Helper()
	out := map[string]procStat{}
	for name, pid := range r.pids() {
		for _, want := range names {
			if name == want {
				st, ok := statOf(pid)
				if !ok {
					r.t.Fatalf("%s (pid %d) does not live", name, pid)
				}
				st.state, st.ppid = "", 0 // these may change
				out[name] = st
			}
		}
	}
	return out
}

// progress waits until n more events are in the log: the load goes on.
func (r *rig) progress(n uint64) {
	r.t.Helper()
	after := r.lastSeq()
	r.event(after, "", "process.*", func(e api.Event) bool { return e.Seq >= after+n })
}

// follower reads the event stream from its beginning over all that happens to
// the server.
type follower struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu  sync.Mutex
	got []api.Event
	err error
}

func (r *rig) follow() *follower {
	ctx, stop := context.WithCancel(context.Background())
	f := &follower{stop: stop}
	c := r.client()
	f.done.Go(func() {
		for e, err := range c.FollowEvents(ctx, api.EventQuery{}) {
			f.mu.Lock()
			if err != nil {
				f.err = err
			} else {
				f.got = append(f.got, e)
			}
			f.mu.Unlock()
		}
	})
	r.t.Cleanup(func() {
		f.stop()
		f.done.Wait()
	})
	return f
}

// through waits until the stream has come to a place, ends it and returns it.
func (f *follower) through(t *testing.T, seq uint64) []api.Event {
	t.Helper()
	eventually(t, "the end of the event stream", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.err != nil || len(f.got) > 0 && f.got[len(f.got)-1].Seq >= seq
	})
	f.stop()
	f.done.Wait()
	if f.err != nil {
		t.Errorf("the event stream has ended: %v", f.err)
	}
	return f.got
}

// places are the sequence numbers and types of events.
func places(events []api.Event) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = fmt.Sprint(e.Seq, " ", e.Type, " ", e.Name)
	}
	return out
}

// numbers reads all lines of a stream that are kept, and holds that each is
// prefix and the number after the one before. It returns the first and the last.
// A writer that was killed may have left a piece of a line at the end.
func (r *rig) numbers(name, stream, prefix string) (first, last int) {
	r.t.Helper()
	q := api.LogQuery{Names: []string{name}, Stream: stream, Lines: -1}
	piece := ""
	for l, err := range r.client().Logs(bounded(r.t), q) {
		if err != nil {
			r.t.Fatalf("the log of %s: %v", name, err)
		}
		n, ok := numbered(l.Text, prefix)
		switch {
		case piece != "":
			r.t.Errorf("%s %s: %q follows number %d, and %q follows that", name, stream, piece, last, l.Text)
			return first, last
		case !ok || first != 0 && n != last+1:
			piece = l.Text
			continue
		case first == 0:
			first = n
		}
		last = n
	}
	return first, last
}

// writesOn waits until each process has written n more numbered lines than now.
func (r *rig) writesOn(names []string, n int) {
	r.t.Helper()
	last := func(name string) int {
		q := api.LogQuery{Names: []string{name}, Stream: "stdout", Lines: 1}
		for l, err := range r.client().Logs(bounded(r.t), q) {
			if err != nil {
				r.t.Fatalf("the log of %s: %v", name, err)
			}
			if n, ok := numbered(l.Text, "line"); ok {
				return n
			}
		}
		return 0
	}
	for _, name := range names {
		had := last(name)
		eventually(r.t, fmt.Sprintf("%d more lines of %s", n, name), func() bool { return last(name) >= had+n })
	}
}

// numbered reads "prefix N" or "prefix N filling".
func numbered(text, prefix string) (int, bool) {
	rest, ok := strings.CutPrefix(text, prefix+" ")
	rest, _, _ = strings.Cut(rest, " ")
	n, err := strconv.Atoi(rest)
	return n, ok && err == nil
}

// cgroupsOf are the folders of the rig's processes that exist.
func (r *rig) cgroupsOf() []string {
	r.t.Helper()
	id, err := os.ReadFile(filepath.Join(r.state(), "journal", "id"))
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // what vanishes while we look is not ours
		}
		if strings.Contains(path, "perdure-"+strings.TrimSpace(string(id))[:12]) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// soaking says whether the long versions are wanted.
func soaking() bool { return os.Getenv("SOAK") != "" }

// scale is n, or more when the long versions are wanted.
func scale(n, soak int) int {
	if soaking() {
		return soak
	}
	return n
}

// openFiles counts the descriptors of a process.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
