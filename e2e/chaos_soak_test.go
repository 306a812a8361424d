//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soak is one long run of chaos over one rig.
type soak struct {
	*rig
	rand    *rand.Rand
	names   map[string][]string // by kind
	before  map[string]procStat // of those that nobody touches
	counts  map[string]int      // by action
	slowest time.Duration       // from a kill of the supervisor to the next one
}

// The kinds of programs, and how many of 200 there are.
const (
	kindSteady   = "steady"   // nobody touches them: same pid to the end
	kindMortal   = "mortal"   // killed at random
	kindCrasher  = "crasher"  // ends with a known code all the time
	kindWriter   = "writer"   // numbered lines without end
	kindStubborn = "stubborn" // ignores TERM
	kindForker   = "forker"   // has descendants that escape
)

func soakKinds() map[string]int {
	return map[string]int{kindSteady: 50, kindMortal: 50, kindCrasher: 60, kindWriter: 10, kindStubborn: 20, kindForker: 10}
}

// soakFile is the configuration; a variant differs from the other in one
// variable of the mortal ones, so that a reload restarts these alone.
func soakFile(variant int) (string, map[string][]string) {
	command := map[string]string{
		kindSteady: `[sleep, "100000"]`, kindMortal: `[sleep, "100000"]`, kindWriter: "[sh, flood.sh]",
		kindStubborn: `[sh, -c, 'trap "" TERM HUP INT; while :; do sleep 1; done']`, kindForker: "[sh, forker.sh]",
	}
	names := map[string][]string{}
	var b strings.Builder
	b.WriteString("version: 1\nprocesses:\n")
	kinds := soakKinds()
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		for i := range kinds[kind] {
			name := kind + strconv.Itoa(i)
			names[kind] = append(names[kind], name)
			line := command[kind]
			if kind == kindCrasher {
				line = fmt.Sprintf(`[sh, crash.sh, %s, "%d.%d", "%d"]`, name, i%3, i%10, crashCode(i))
			}
			fmt.Fprintf(&b, "  %s:\n    command: %s\n    backoff: {kind: fixed, initial: 500ms}\n    breaker: {failures: -1}\n"+
				"    stop: {grace: 300ms}\n    logs: {max_size: 256KiB, max_files: 4}\n", name, line)
			if kind == kindMortal {
				fmt.Fprintf(&b, "    env: {VARIANT: \"%d\"}\n", variant)
			}
		}
	}
	return b.String(), names
}

// forkerScript leaves descendants of two kinds that escape and ignore TERM.
const forkerScript = `
setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' &
(setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' &)
while :; do sleep 1; done
`

// TestSoak does at random, for SOAK_MINUTES (default 10), all that may happen to
// Perdure, and holds it against the promise at the end. SOAK_SEED repeats the
// choices of a run; SOAK_REPORT names a file for the summary. It is not parallel
// to the other tests, so that its times are its own.
func TestSoak(t *testing.T) {
	if !soaking() {
		t.Skip("set SOAK=1 to run chaos for SOAK_MINUTES")
	}
	s := newSoak(t)
	began := time.Now()
	for span := minutes(t); time.Since(began) < span; {
		s.act()
		s.same("what happened", s.before, s.names[kindSteady])
	}
	s.summary(time.Since(began), s.check())
}

func minutes(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK_MINUTES")
	if text == "" {
		text = "10"
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("SOAK_MINUTES: %v", err)
	}
	return time.Duration(n * float64(time.Minute))
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SOAK_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
	}
	t.Logf("SOAK_SEED=%d", seed)
	text, names := soakFile(0)
	s := &soak{rig: newRig(t, text), rand: rand.New(rand.NewPCG(seed, seed)), names: names, counts: map[string]int{}}
	s.write("crash.sh", crashScript)
	s.write("flood.sh", floodScript)
	s.write("forker.sh", forkerScript)
	s.write("runs/.keep", "")
	s.disk(".perdure", "512m")
	s.ok("up", "-d", "--no-wait")
	for _, name := range s.names[kindSteady] {
		s.wait(name, "running")
	}
	s.before = s.identities(s.names[kindSteady]...)
	return s
}

// act does one thing.
func (s *soak) act() {
	s.t.Helper()
	actions := []struct {
		name   string
		weight int
		do     func()
	}{
		{"server killed", 5, s.killServer},
		{"supervisor killed", 5, s.killSupervisor},
		{"both killed", 5, s.killBoth},
		{"process killed", 10, s.killProcess},
		{"process restarted", 4, func() { s.operate("restart", kindStubborn, kindForker, kindMortal) }},
		{"process stopped and started", 4, func() { s.operate("stop", kindStubborn, kindForker); s.startAll() }},
		{"reload", 1, s.reload},
		{"disk full", 1, s.fillDisk},
	}
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	pick := s.rand.IntN(total)
	for _, a := range actions {
		if pick -= a.weight; pick < 0 {
			a.do()
			s.counts[a.name]++
			return
		}
	}
}

func (s *soak) one(kinds ...string) string {
	names := s.names[kinds[s.rand.IntN(len(kinds))]]
	return names[s.rand.IntN(len(names))]
}

func (s *soak) killServer() {
	strike(s.t, s.info().PID)
	s.ok("up", "-d", "--no-wait")
}

func (s *soak) killSupervisor() {
	pid := s.info().SupervisorPID
	began := time.Now()
	strike(s.t, pid)
	s.newSupervisor(pid)
	s.slowest = max(s.slowest, time.Since(began))
}

func (s *soak) killBoth() {
	info := s.info()
	pids := []int{info.PID, info.SupervisorPID}
	if s.rand.IntN(2) == 0 {
		slices.Reverse(pids)
	}
	strikeAll(s.t, pids...)
	s.ok("up", "-d", "--no-wait")
}

func (s *soak) killProcess() {
	if pid := s.process(s.one(kindMortal, kindForker, kindStubborn)).PID; pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
	}
}

func (s *soak) operate(verb string, kinds ...string) { s.ok(verb, s.one(kinds...)) }

func (s *soak) startAll() { s.ok("start", kindStubborn+"*", kindForker+"*") }

func (s *soak) reload() {
	text, _ := soakFile(s.counts["reload"] + 1)
	s.write("perdure.yaml", text)
	s.ok("reload")
}

// fillDisk takes the space away until a stop and a crash have met it.
func (s *soak) fillDisk() {
	s.fill(".perdure/filler")
	victim := s.process(s.one(kindMortal))
	if err := s.stopOnly(victim.Name); err != nil {
		s.t.Errorf("a stop with a full disk: %v", err)
	}
	if victim.PID != 0 {
		eventually(s.t, "the end of "+victim.Name+" with a full disk", func() bool { return !alive(victim.PID) })
	}
	if err := os.Remove(s.path(".perdure/filler")); err != nil {
		s.t.Fatal(err)
	}
	s.wait(victim.Name, "stopped")
	s.ok("start", victim.Name)
}

// soakResult is what the end has shown.
type soakResult struct {
	events, generations, unknown int
	lines                        int
}

// check stops everything and holds what the programs have written down against
// what Perdure tells.
func (s *soak) check() (out soakResult) {
	s.t.Helper()
	s.rest()
	events := s.allEvents()
	c := audit(s.t, events)
	out.events = len(events)
	for i, name := range s.names[kindCrasher] {
		s.checkRuns(c, name, crashCode(i), true)
	}
	for _, name := range s.names[kindSteady] {
		if n := len(c.of(s.t, name)); n != 1 {
			s.t.Errorf("%s has had %d generations, it should have had 1", name, n)
		}
	}
	for _, name := range s.names[kindWriter] {
		first, last := s.numbers(name, "stdout", "line")
		out.lines += last - first + 1
	}
	for _, lives := range c {
		out.generations += len(lives)
		for _, l := range lives {
			if l.exited == 1 && l.code == nil {
				out.unknown++
			}
		}
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

// summary prints the table.
func (s *soak) summary(span time.Duration, got soakResult) {
	s.t.Helper()
	violations := "0"
	if s.t.Failed() {
		violations = "see above"
	}
	n := 0
	for _, names := range s.names {
		n += len(names)
	}
	var b strings.Builder
	row := func(what string, value any) { fmt.Fprintf(&b, "| %s | %v |\n", what, value) }
	fmt.Fprintf(&b, "| %s | %d processes |\n|---|--:|\n", span.Round(time.Second), n)
	for _, name := range slices.Sorted(maps.Keys(s.counts)) {
		row(name, s.counts[name])
	}
	row("events, none missing", got.events)
	row("generations, each told once", got.generations)
	row("of these with an unknown exit code (nobody was their parent)", got.unknown)
	row("log lines kept and in order", got.lines)
	row("slowest new supervisor, attached", s.slowest.Round(time.Millisecond))
	row("violations", violations)
	s.t.Logf("\n%s", b.String())
	if path := os.Getenv("SOAK_REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			s.t.Error(err)
		}
	}
}
