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

// soak is one run of chaos over one rig.
type soak struct {
	*rig
	seed     uint64
	rand     *rand.Rand
	names    map[string][]string // by kind
	before   map[string]procStat // of those that nobody touches
	stopped  map[string]bool     // who was asked to be stopped; all others shall run
	counts   map[string]int      // by action
	kills    map[string]int      // SIGKILLs by whom they have met
	variant  int                 // of the configuration in force
	outages  []outage
	since    time.Time // when both parts were whole last
	downtime spans     // from a kill of the supervisor alone to the next one, attached
	stream   *follower
	full     bool     // the disk can be filled: it is a small one of our own
	programs []string // to upgrade to in turn: the same one at two paths
}

// outage is a time in which nobody was there who could know an exit: both parts
// were dead, or the one died while the other was not whole again.
type outage struct {
	begin, end time.Time
	uptime     float64 // end by the clock that the programs know; see uptime
}

// The kinds of programs.
const (
	kindSteady   = "steady"   // nobody touches them: same pid to the end
	kindMortal   = "mortal"   // killed, stopped and changed at random
	kindCrasher  = "crasher"  // ends with a known code all the time
	kindCounter  = "counter"  // numbered lines, all of which are kept; killed at random
	kindFlood    = "flood"    // numbered lines as fast as they can be kept
	kindStubborn = "stubborn" // ignores TERM
	kindForker   = "forker"   // has descendants that escape
)

// soakKinds says how many there are of each kind.
func soakKinds() map[string]int {
	if soaking() {
		return map[string]int{kindSteady: 40, kindMortal: 40, kindCrasher: 60, kindCounter: 20, kindFlood: 10, kindStubborn: 20, kindForker: 10}
	}
	return map[string]int{kindSteady: 6, kindMortal: 6, kindCrasher: 10, kindCounter: 4, kindFlood: 1, kindStubborn: 3, kindForker: 2}
}

// diary has a program write down that a generation of it runs.
const diary = `echo "$PERDURE_GENERATION $$" >> "runs/$PERDURE_NAME"` + "\n"

// endingScript writes down that a generation runs, goes on for a while, and ends
// with a known code and the time, which costs no process: ending.sh SECONDS CODE.
const endingScript = diary + `sleep "$1"
read -r up idle < /proc/uptime
echo "$PERDURE_GENERATION $up" >> "ends/$PERDURE_NAME"
exit "$2"
`

const (
	mortalScript   = diary + `exec sleep 100000` + "\n"
	stubbornScript = diary + `trap "" TERM HUP INT; while :; do sleep 1; done` + "\n"
	// forkerScript leaves descendants of two kinds that escape and ignore TERM.
	forkerScript = diary + `
setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' &
(setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' &)
while :; do sleep 1; done
`
)

// soakFile is the configuration; a variant differs from the others in one
// variable of the mortal ones, so that a reload restarts these alone.
func soakFile(t *testing.T, variant int) (string, map[string][]string) {
	command := map[string]string{
		kindSteady: `[sleep, "100000"]`, kindMortal: "[sh, mortal.sh]", kindFlood: "[sh, flood.sh]",
		kindStubborn: "[sh, stubborn.sh]", kindForker: "[sh, forker.sh]", kindCounter: "[" + strconv.Quote(self(t)) + "]",
	}
	names := map[string][]string{}
	var b strings.Builder
	b.WriteString("version: 1\nprocesses:\n")
	kinds := soakKinds()
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		for i := range kinds[kind] {
			name := kind + strconv.Itoa(i)
			names[kind] = append(names[kind], name)
			line, logs := command[kind], "{max_size: 256KiB, max_files: 4}"
			switch kind {
			case kindCrasher:
				line = fmt.Sprintf(`[sh, ending.sh, "%d.%d", "%d"]`, i%3, i%10, crashCode(i))
			case kindCounter:
				logs = "{max_size: 256KiB, max_files: 10000}"
			}
			fmt.Fprintf(&b, "  %s:\n    command: %s\n    restart: always\n    backoff: {kind: fixed, initial: 500ms}\n    breaker: {failures: -1}\n"+
				"    stop: {grace: 300ms}\n    logs: %s\n", name, line, logs)
			switch kind {
			case kindMortal:
				fmt.Fprintf(&b, "    env: {VARIANT: \"%d\"}\n", variant)
			case kindCounter:
				b.WriteString("    env: {E2E_ROLE: counter}\n")
			}
		}
	}
	return b.String(), names
}

// TestChaos does at random all that may happen to Perdure, and holds it against
// the promise. With SOAK it has 200 processes and goes on for SOAK_MINUTES
// (default 10); SOAK_REPORT names a page to write the summary into. SOAK_SEED
// repeats the choices of a run.
func TestChaos(t *testing.T) {
	if !soaking() {
		t.Parallel()
	}
	s := newSoak(t)
	began := time.Now()
	if soaking() {
		for span := minutes(t); time.Since(began) < span && !t.Failed(); {
			s.act()
		}
	} else {
		// Each kind of action once, in an order of chance: as long as that takes.
		for _, i := range s.rand.Perm(len(s.actions())) {
			s.do(s.actions()[i])
		}
	}
	got := s.check()
	s.report(time.Since(began), got)
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
	text, names := soakFile(t, 0)
	s := &soak{rig: newRig(t, text), seed: seed, rand: rand.New(rand.NewPCG(seed, seed)), names: names,
		stopped: map[string]bool{}, counts: map[string]int{}, kills: map[string]int{}}
	for name, script := range map[string]string{"ending.sh": endingScript, "mortal.sh": mortalScript, "stubborn.sh": stubbornScript,
		"forker.sh": forkerScript, "flood.sh": floodScript, "runs/.keep": "", "ends/.keep": "", "counts/.keep": ""} {
		s.write(name, script)
	}
	twin := s.path("twin")
	if err := os.Link(bin(), twin); err != nil {
		t.Fatal(err)
	}
	s.programs = []string{twin, bin()}
	if err := s.mount(".perdure", map[bool]string{false: "64m", true: "1g"}[soaking()]); err != nil {
		t.Logf("no disk will be full: cannot mount one (root can): %v", err)
	} else {
		s.full = true
	}
	s.ok("up", "-d", "--no-wait")
	for _, name := range s.names[kindSteady] {
		s.wait(name, "running")
	}
	s.before = s.identities(s.names[kindSteady]...)
	s.stream = s.follow()
	s.whole()
	return s
}

// action is something that happens.
type action struct {
	name   string
	weight int // how often it is chosen
	do     func()
}

func (s *soak) actions() []action {
	all := []action{
		{"server killed", 6, func() { s.sound(); s.kill("server"); s.whole() }},
		{"supervisor killed", 6, s.killSupervisor},
		{"both killed", 4, s.killBoth},
		{"supervisor killed, and the next ones", 2, func() { s.killAgain("supervisor") }},
		{"server killed, and the next ones", 2, func() { s.killAgain("server") }},
		{"one killed while the other comes back", 3, s.killOther},
		{"part killed under a command", 5, s.killUnderCommand},
		{"part killed under a reload", 2, func() { s.nextVariant(); s.killUnder("reload") }},
		{"processes killed", 5, s.killProcesses},
		{"process restarted", 2, func() { s.ok("restart", s.one(kindStubborn, kindForker, kindMortal, kindCounter)) }},
		{"process stopped", 3, func() { s.order("stop", s.one(kindStubborn, kindForker, kindCounter)) }},
		{"all started", 1, s.startAll},
		{"reload", 1, func() { s.nextVariant(); s.ok("reload") }},
		{"upgrade", 2, s.upgrade},
		{"part killed under an upgrade", 3, s.killUnderUpgrade},
	}
	if s.full {
		all = append(all, action{"disk full", 2, s.fillDisk})
	}
	return all
}

// act does one thing at random.
func (s *soak) act() {
	s.t.Helper()
	actions, total := s.actions(), 0
	for _, a := range actions {
		total += a.weight
	}
	pick := s.rand.IntN(total)
	for _, a := range actions {
		if pick -= a.weight; pick < 0 {
			s.do(a)
			return
		}
	}
}

func (s *soak) do(a action) {
	s.t.Helper()
	began := time.Now()
	a.do()
	s.counts[a.name]++
	s.t.Logf("%s %s: %s", began.Format("15:04:05.000"), a.name, time.Since(began).Round(time.Millisecond))
	s.same(a.name, s.before, s.names[kindSteady])
	s.notTwice(a.name)
}

func (s *soak) one(kinds ...string) string {
	names := s.names[kinds[s.rand.IntN(len(kinds))]]
	return names[s.rand.IntN(len(names))]
}

// moment waits for a time at random, up to d.
func (s *soak) moment(d time.Duration) { <-time.After(time.Duration(s.rand.Int64N(int64(d)))) }

// uptime is the clock of /proc/uptime, which the programs write down.
func (s *soak) uptime() (up float64) {
	s.t.Helper()
	b, err := os.ReadFile("/proc/uptime")
	if err == nil {
		_, err = fmt.Sscan(string(b), &up)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return up
}

// sound waits until both parts have served so long that their deaths are no sign
// of a loop, which would be answered with a wait.
func (s *soak) sound() {
	s.t.Helper()
	eventually(s.t, "sound parts", func() bool { return time.Since(s.since) > 1200*time.Millisecond })
}

// kill kills the part that holds a lock now, if one does, and says whether.
func (s *soak) kill(part string) bool {
	s.t.Helper()
	pid := s.owner(map[string]string{"server": "lock", "supervisor": "supervisor.lock"}[part])
	if pid <= 1 || !alive(pid) {
		return false
	}
	strike(s.t, pid)
	s.kills[part]++
	return true
}

// whole waits until both parts are there again and hold what they can.
func (s *soak) whole() {
	s.t.Helper()
	eventually(s.t, "both parts", func() bool {
		info, err := s.client().Info(bounded(s.t))
		return err == nil && info.SupervisorPID != 0 && info.SupervisorPID == s.owner("supervisor.lock") && info.PID == s.owner("lock")
	})
	// Who crashes all the time is held at most moments.
	least := 0
	for kind, names := range s.names {
		for _, name := range names {
			if kind != kindCrasher && !s.stopped[name] {
				least++
			}
		}
	}
	eventually(s.t, "that all are held", func() bool { return s.held() >= least })
	s.since = time.Now()
}

// held is how many processes doctor says are held.
func (r *rig) held() (n int) {
	findings, err := r.client().Doctor(bounded(r.t))
	if err != nil {
		return 0
	}
	for _, f := range findings {
		if _, err := fmt.Sscanf(f.Message, "the exit codes and the output of %d processes are held", &n); err == nil {
			return n
		}
	}
	return 0
}

// apart brings both parts back, and notes the time since begin as an outage.
func (s *soak) apart(begin time.Time) {
	s.t.Helper()
	s.ok("up", "-d", "--no-wait")
	s.whole()
	s.outages = append(s.outages, outage{begin, time.Now(), s.uptime()})
}

func (s *soak) killSupervisor() {
	s.sound()
	pid, began := s.info().SupervisorPID, time.Now()
	s.kill("supervisor")
	s.newSupervisor(pid)
	s.downtime = append(s.downtime, time.Since(began))
	s.whole()
}

func (s *soak) killBoth() {
	info, begin := s.info(), time.Now()
	pids := []int{info.PID, info.SupervisorPID}
	if s.rand.IntN(2) == 0 {
		slices.Reverse(pids)
	}
	if s.rand.IntN(2) == 0 {
		strikeAll(s.t, pids...)
	} else {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // the death of both is awaited
		}
		for _, pid := range pids {
			strike(s.t, pid)
		}
	}
	s.kills["server"]++
	s.kills["supervisor"]++
	s.moment(time.Second)
	s.apart(begin)
}

// killAgain kills a part, and whoever takes its place, while the other one lives.
func (s *soak) killAgain(part string) {
	s.sound()
	for range 2 + s.rand.IntN(3) {
		s.kill(part)
		s.moment(300 * time.Millisecond)
	}
	s.whole()
}

// killOther kills one part, and the other while the first comes back.
func (s *soak) killOther() {
	parts := []string{"server", "supervisor"}
	s.rand.Shuffle(2, func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	s.sound()
	begin := time.Now()
	for _, part := range parts {
		s.kill(part)
		s.moment(150 * time.Millisecond)
	}
	s.apart(begin)
}

// killUnder kills a part at some moment while a command is carried out, which may
// fail of it, and gives the command again when all is well.
func (s *soak) killUnder(args ...string) {
	s.t.Helper()
	s.sound()
	done := make(chan struct{})
	cmd := s.command(s.t.Context(), args...)
	go func() {
		defer close(done)
		_ = cmd.Run() // nobody can tell what becomes of it
	}()
	s.moment(200 * time.Millisecond)
	s.kill([]string{"server", "supervisor"}[s.rand.IntN(2)])
	<-done
	s.whole()
	s.ok(args...)
}

func (s *soak) killUnderCommand() {
	verb := []string{"stop", "start", "restart"}[s.rand.IntN(3)]
	name := s.one(kindStubborn, kindForker, kindMortal, kindCounter)
	s.stopped[name] = verb == "stop"
	s.killUnder(verb, name)
}

// nextProgram is the program to upgrade to.
func (s *soak) nextProgram() string {
	next := s.programs[0]
	s.programs = append(s.programs[1:], next)
	return next
}

func (s *soak) upgrade() {
	s.sound()
	s.ok("upgrade", "--binary", s.nextProgram())
	s.whole()
}

// killUnderUpgrade kills one part while both, one after the other, are becoming
// another program: then nobody may be there who could know an exit.
func (s *soak) killUnderUpgrade() {
	begin := time.Now()
	s.killUnder("upgrade", "--binary", s.nextProgram())
	s.outages = append(s.outages, outage{begin, time.Now(), s.uptime()})
}

// killProcesses kills some programs, by the pids that Perdure tells. The pid of
// one that has ended meanwhile is nobody's so soon.
func (s *soak) killProcesses() {
	pids := s.pids()
	for range 1 + s.rand.IntN(5) {
		if pid := pids[s.one(kindMortal, kindForker, kindStubborn, kindCounter)]; pid > 1 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			s.kills["process"]++
		}
	}
}

// order gives a command that changes who shall run.
func (s *soak) order(verb, name string) {
	s.t.Helper()
	s.ok(verb, name)
	s.stopped[name] = verb == "stop"
}

func (s *soak) startAll() {
	s.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(s.stopped)) {
		if s.stopped[name] {
			s.order("start", name)
		}
	}
}

func (s *soak) nextVariant() {
	s.variant++
	text, _ := soakFile(s.t, s.variant)
	s.write("perdure.yaml", text)
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
	s.order("start", victim.Name)
}
