//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

// notTwice holds that of no process two generations live at once.
func (r *rig) notTwice(what string) {
	r.t.Helper()
	all := map[string]map[uint64][]procStat{}
	for _, st := range allStats() {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(st.pid) + "/environ")
		if err != nil || !bytes.Contains(env, []byte(r.mark)) {
			continue
		}
		name, generation := "", uint64(0)
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if v, ok := bytes.CutPrefix(kv, []byte("PERDURE_NAME=")); ok {
				name = string(v)
			} else if v, ok := bytes.CutPrefix(kv, []byte("PERDURE_GENERATION=")); ok {
				generation, _ = strconv.ParseUint(string(v), 10, 64)
			}
		}
		if name != "" && generation != 0 {
			if all[name] == nil {
				all[name] = map[uint64][]procStat{}
			}
			all[name][generation] = append(all[name][generation], st)
		}
	}
	for name, generations := range all {
		newest := slices.Max(slices.Collect(maps.Keys(generations)))
		for g, list := range generations {
			// The newest lived when it was seen, so these must be dead by now.
			if left := stillThere(list); g != newest && len(left) > 0 {
				r.t.Errorf("after %q: of %s generation %d lives beside %d: %+v", what, name, g, newest, left)
			}
		}
	}
}

// verdict is what the end has shown.
type verdict struct {
	events, generations, unknown, unrecorded, lines int
}

// check waits until all is as it was asked for, stops everything, and holds what
// the programs have written down against what Perdure tells.
func (s *soak) check() (out verdict) {
	s.t.Helper()
	s.whole()
	for _, name := range slices.Sorted(maps.Keys(s.stopped)) {
		if s.stopped[name] {
			s.wait(name, "stopped")
		}
	}
	for _, name := range slices.Concat(s.names[kindSteady], s.names[kindMortal], s.names[kindCounter], s.names[kindFlood], s.names[kindStubborn], s.names[kindForker]) {
		if !s.stopped[name] {
			s.wait(name, "running")
		}
	}
	s.same("all of it", s.before, s.names[kindSteady])
	s.rest()
	events := s.allEvents()
	c := audit(s.t, events)
	out.events = len(events)
	s.checkStream(events)
	for _, e := range events {
		switch e.Type {
		case "supervisor.journal_gap", "supervisor.journal_unreadable", "supervisor.breaker_open", "server.breaker_open":
			s.t.Errorf("event %d: %s %s", e.Seq, e.Type, e.Data)
		}
	}
	out.unknown, out.unrecorded = s.checkUnknown(events)
	for kind, names := range s.names {
		for i, name := range names {
			lives := c.of(s.t, name)
			out.generations += len(lives)
			switch kind {
			case kindCrasher:
				s.checkRuns(c, name, crashCode(i), true)
			case kindSteady, kindFlood:
				if len(lives) != 1 {
					s.t.Errorf("%s has had %d generations, it should have had 1", name, len(lives))
				}
			case kindCounter:
				out.lines += s.checkCounter(name, lives)
			default:
				s.checkRuns(c, name, 137, true)
			}
			if kind == kindFlood {
				first, last := s.numbers(name, "stdout", "line")
				out.lines += last - first + 1
			}
		}
	}
	if s.t.Failed() {
		s.keep(events)
	}
	info := s.info()
	if left := append(zombies(info.PID), zombies(info.SupervisorPID)...); len(left) > 0 {
		s.t.Errorf("zombies are left: %v", left)
	}
	s.ok("down")
	s.nothingLeft()
	if left := s.cgroupsOf(); len(left) > 0 {
		s.t.Errorf("cgroups are left: %q", left)
	}
	return out
}

// keep leaves the events of a run that has failed where somebody can read them.
func (s *soak) keep(events []api.Event) {
	s.t.Helper()
	f, err := os.CreateTemp("", fmt.Sprintf("perdure-chaos-%d-*.events", s.seed))
	if err == nil {
		enc := json.NewEncoder(f)
		for i := range events {
			err = errors.Join(err, enc.Encode(&events[i]))
		}
		err = errors.Join(err, f.Close())
		s.t.Logf("the events are kept in %s\n%s", f.Name(), s.serverLog())
	}
	if err != nil {
		s.t.Error(err)
	}
}

// checkStream holds the stream that was followed all the while against the log.
func (s *soak) checkStream(events []api.Event) {
	s.t.Helper()
	stream := s.stream.through(s.t, events[len(events)-1].Seq)
	if diff := cmp.Diff(places(events), places(stream)[:min(len(stream), len(events))]); diff != "" {
		s.t.Errorf("the stream is not the log (-log +stream):\n%s", diff)
	}
}

// checkUnknown holds that an exit code is unknown only of who has ended while
// nobody lived who could have known it: it was started before the end of an
// outage, its end is told since that began, and by its own word it had ended
// before the next supervisor was there. It returns how many there are, and how
// many were started by a supervisor that died before it had written that down.
func (s *soak) checkUnknown(events []api.Event) (n, unrecorded int) {
	s.t.Helper()
	ends := s.ends()
	started := map[string]time.Time{}
	for _, e := range events {
		who := fmt.Sprint(e.Name, ".", e.Generation)
		switch e.Type {
		case "process.started":
			started[who] = e.Time
		case "process.exited":
			if _, known := fields(s.t, e)["code"].(float64); known {
				continue
			}
			if started[who].IsZero() {
				unrecorded++
				continue
			}
			n++
			at, told := ends[who]
			if !slices.ContainsFunc(s.outages, func(o outage) bool {
				return started[who].Before(o.end) && !e.Time.Before(o.begin) && (!told || at <= o.uptime)
			}) {
				s.t.Errorf("the exit code of %s is not known, and somebody was there: started %s, ended at %.2f of uptime, told %s (event %d)",
					who, started[who].Format("15:04:05.000"), at, e.Time.Format("15:04:05.000"), e.Seq)
			}
		}
	}
	return n, unrecorded
}

// ends are the times at which crashers have ended, by NAME.GENERATION.
func (s *soak) ends() map[string]float64 {
	s.t.Helper()
	out := map[string]float64{}
	for _, name := range s.names[kindCrasher] {
		b, err := os.ReadFile(s.path("ends/" + name))
		if err != nil {
			continue // it has never ended by itself
		}
		for line := range strings.Lines(string(b)) {
			var g uint64
			var at float64
			if _, err := fmt.Sscan(line, &g, &at); err != nil {
				s.t.Fatalf("%s has written %q", name, line)
			}
			out[fmt.Sprint(name, ".", g)] = at
		}
	}
	return out
}

// checkCounter holds that all lines of a counter are there, each once, those of
// one generation after those of the one before. Only of a generation whose end
// nobody has seen the last ones may be missing. It returns the number of lines.
func (r *rig) checkCounter(name string, lives map[uint64]*life) (lines int) {
	r.t.Helper()
	last := map[uint64]int{}
	newest := uint64(0)
	for l, err := range r.client().Logs(bounded(r.t), api.LogQuery{Names: []string{name}, Stream: "stdout", Lines: -1}) {
		if err != nil {
			r.t.Fatalf("the log of %s: %v", name, err)
		}
		var g uint64
		var n int
		if _, err := fmt.Sscan(l.Text, &g, &n); err != nil || g < newest || n != last[g]+1 {
			r.t.Errorf("%s: %q follows line %d of generation %d", name, l.Text, last[newest], newest)
			return lines
		}
		newest, last[g] = g, n
		lines++
	}
	for g, l := range lives {
		b, err := os.ReadFile(r.path(fmt.Sprintf("counts/%s.%d", name, g)))
		if err != nil || len(b) == 0 {
			continue // it was killed before its first line
		}
		wrote, err := strconv.Atoi(string(b))
		if err != nil {
			r.t.Fatal(err)
		}
		if missing := wrote - last[g]; missing > 0 && l.code != nil || missing < -1 {
			r.t.Errorf("%s: generation %d has written %d lines, %d are kept", name, g, wrote, last[g])
		}
	}
	return lines
}

// report tells what has happened, and writes it into the page that SOAK_REPORT
// names, between its marks.
func (s *soak) report(span time.Duration, got verdict) {
	s.t.Helper()
	n := 0
	for _, names := range s.names {
		n += len(names)
	}
	var b strings.Builder
	row := func(what string, value any) { fmt.Fprintf(&b, "| %s | %v |\n", what, value) }
	fmt.Fprintf(&b, "| %s with %d processes | |\n|---|--:|\n", span.Round(time.Second), n)
	row("SIGKILL of server and supervisor", s.kills["server"]+s.kills["supervisor"])
	row("SIGKILL of programs", s.kills["process"])
	for _, name := range slices.Sorted(maps.Keys(s.counts)) {
		row(name, s.counts[name])
	}
	row("events, without a gap", got.events)
	row("generations, each started and ended once", got.generations)
	row("of these ended while both parts were dead, and so with an unknown exit code", got.unknown)
	row("of these cut off between start and record, with an unknown exit code", got.unrecorded)
	row("log lines, none missing or doubled", got.lines)
	if len(s.downtime) > 0 {
		row("from SIGKILL of the supervisor to the next one attached", s.downtime)
	}
	s.t.Logf("\n%s", b.String())
	if s.t.Failed() {
		return
	}
	b.WriteString("| **violations** | **0** |\n")
	if path := os.Getenv("SOAK_REPORT"); path != "" {
		command := "SOAK=1 SOAK_MINUTES=" + strconv.FormatFloat(span.Truncate(time.Minute).Minutes(), 'f', -1, 64) +
			" SOAK_SEED=" + strconv.FormatUint(s.seed, 10) + " go test -count=1 -timeout 12h -v -run TestChaos ./e2e"
		writeBetween(s.t, path, "chaos", b.String()+"\nThe same again: `"+command+"`.\n")
	}
}

// writeBetween replaces what stands between two marks of a page.
func writeBetween(t *testing.T, path, mark, text string) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), "<!-- "+mark+":begin -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- "+mark+":end -->")
	if !ok || !ok2 {
		t.Fatalf("%s has no marks %q", filepath.Base(path), mark)
	}
	page = []byte(before + "<!-- " + mark + ":begin -->\n" + text + "<!-- " + mark + ":end -->" + after)
	if err := os.WriteFile(path, page, 0o644); err != nil {
		t.Error(err)
	}
}
