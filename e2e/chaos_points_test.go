//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/fault"
)

// blow is a death at a point of failure (internal/fault).
type blow struct {
	point string
	// prepare comes before anybody is to be killed. May be nil.
	prepare func(*crash)
	// by makes somebody pass the point. What it asks for may fail.
	by func(*crash)
}

// crash is a stack whose parts are killed at points of failure, one at a time, and
// who brings back whom is up to them.
type crash struct {
	*rig
	faults  string // PERDURE_FAULT_DIR
	names   []string
	before  map[string]procStat // of the one that nobody touches
	variant int                 // of the configuration in force
	fallen  int                 // the crasher's generation that was told to end
	boots   int
	cut     bool // a start was cut off: nobody can tell whether what was to run once has run
	exact   bool // the kernel keeps exit codes for whoever asks

	// The command under which somebody is killed, which may fail of it, and is
	// given again afterwards.
	redo  [][]string
	ended chan struct{}

	// The part that has died last, and how often in a row: after too many deaths it
	// would be waited for longer and longer.
	last string
	row  int
}

// The programs of a stack.
const (
	// crasherScript ends with a known code when its generation is told to.
	crasherScript = diary + `while ! test -e "falls/$PERDURE_GENERATION"; do sleep 0.02; done; exit 7` + "\n"
	// pointForkerScript leaves a descendant that escapes and ignores TERM.
	pointForkerScript = diary + `setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' &
while :; do sleep 1; done
`
	onceScript = diary
	// pointLoggerScript writes numbered lines in bursts.
	pointLoggerScript = `i=0
while :; do
  seq -f 'line %.0f' $((i+1)) $((i+100))
  i=$((i+100))
  sleep 0.05
done
`
)

// crashFile is the configuration of a stack: of the next variant one process is
// changed, one is removed and one is new.
func crashFile(t *testing.T, variant int) (text string, running []string) {
	guest := fmt.Sprintf("guest%d", variant%2)
	return fmt.Sprintf(`
version: 1
processes:
  steady: {command: [sleep, "100000"]}
  counter: {command: [%q], env: {E2E_ROLE: counter}}
  logger: {command: [sh, logger.sh], logs: {max_size: 4KiB, max_files: 10000}, stop: {grace: 100ms}}
  few: {command: [sh, logger.sh], logs: {max_size: 4KiB, max_files: 2}, stop: {grace: 100ms}}
  crasher: {command: [sh, crasher.sh], restart: always, backoff: {kind: fixed, initial: 1ms}, breaker: {failures: -1}}
  stubborn: {command: [sh, stubborn.sh], stop: {grace: 100ms}}
  forker: {command: [sh, forker.sh], stop: {grace: 100ms}}
  once: {command: [sh, once.sh], oneshot: true}
  mortal: {command: [sh, mortal.sh], env: {VARIANT: "%d"}}
  %s: {command: [sleep, "100001"]}
`, self(t), variant, guest), []string{"steady", "counter", "logger", "few", "crasher", "stubborn", "forker", "mortal", guest}
}

// newCrash makes a stack and does not start it.
func newCrash(t *testing.T, program string) *crash {
	t.Helper()
	text, names := crashFile(t, 0)
	c := &crash{rig: newRig(t, text), faults: t.TempDir(), names: names}
	c.bin = program
	c.env = append(c.env, "PERDURE_FAULT_DIR="+c.faults)
	for name, script := range map[string]string{"crasher.sh": crasherScript, "stubborn.sh": stubbornScript, "forker.sh": pointForkerScript,
		"once.sh": onceScript, "logger.sh": pointLoggerScript, "mortal.sh": mortalScript, "runs/.keep": "", "falls/.keep": "", "counts/.keep": ""} {
		c.write(name, script)
	}
	return c
}

// begin starts everything and waits until it is as it was asked for.
func (c *crash) begin() {
	c.t.Helper()
	c.ok("up", "-d", "--no-wait")
	c.parts()
	c.boots++
	c.settled()
	c.before, c.cut = c.identities("steady"), false
}

// strike kills somebody at a point, and waits until all is as it was asked for.
func (c *crash) strike(b blow) {
	c.t.Helper()
	began := time.Now()
	defer func() {
		c.t.Logf("%s %s: %s", began.Format("15:04:05.000"), b.point, time.Since(began).Round(time.Millisecond))
	}()
	c.calm()
	if b.prepare != nil {
		b.prepare(c)
	}
	c.arm(b.point)
	b.by(c)
	c.killedAt(b.point)
	if c.ended != nil {
		<-c.ended
	}
	if c.nobody() {
		c.ok("up", "-d", "--no-wait")
	}
	c.parts()
	for _, args := range c.redo {
		c.ok(args...)
	}
	c.redo, c.ended = nil, nil
	c.settled()
	c.same(b.point, c.before, []string{"steady"})
	c.notTwice(b.point)
}

// arm has the next one who passes a point killed there.
func (c *crash) arm(point string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.faults, point+".kill"), nil, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// killedAt waits until somebody has been killed at a point.
func (c *crash) killedAt(point string) {
	c.t.Helper()
	pid := 0
	path := filepath.Join(c.faults, point+".killed")
	eventually(c.t, "a death at "+point, func() bool {
		b, err := os.ReadFile(path)
		if err == nil {
			pid, err = strconv.Atoi(string(b))
		}
		return err == nil && !alive(pid)
	})
	if err := os.Remove(path); err != nil {
		c.t.Fatal(err)
	}
	c.died(partOf(point))
}

// partOf says who passes a point.
func partOf(point string) string {
	for _, prefix := range []string{"supervisor.", "journal.", "logstore.", "control.frames.", "control.hold.", "control.request."} {
		if strings.HasPrefix(point, prefix) {
			return "supervisor"
		}
	}
	return "server"
}

func (c *crash) died(part string) {
	if c.last != part {
		c.last, c.row = part, 0
	}
	c.row++
}

// calm has the other part forget how often the one has died.
func (c *crash) calm() {
	c.t.Helper()
	if c.row < 3 {
		return
	}
	part := "server"
	if c.last == part {
		part = "supervisor"
	}
	again(part)(c)
	c.parts()
	c.settled()
	c.row = 0
}

// nobody says that neither part lives or is coming: then an operator has to start
// Perdure. So it is where the one dies before it has started the other, and where
// what goes on anyway has passed the point in the moment in which we have killed
// the other part.
func (c *crash) nobody() bool {
	for _, st := range c.marked() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", st.pid))
		if err == nil && (strings.Contains(string(b), "\x00server\x00") || strings.Contains(string(b), "\x00supervisor\x00")) {
			return false
		}
	}
	return true
}

// parts waits until both parts are there.
func (c *crash) parts() {
	c.t.Helper()
	eventually(c.t, "both parts", func() bool {
		info, err := c.client().Info(bounded(c.t))
		return err == nil && info.SupervisorPID != 0 && info.SupervisorPID == c.owner("supervisor.lock") && info.PID == c.owner("lock") &&
			alive(info.PID) && alive(info.SupervisorPID)
	})
}

// settled waits until everything is as it was asked for, and held.
func (c *crash) settled() {
	c.t.Helper()
	what := ""
	eventuallySaying(c.t, &what, func() bool {
		list, err := c.client().Processes(bounded(c.t))
		if err != nil {
			what = err.Error()
			return false
		}
		running := map[string]bool{}
		for i := range list {
			p := &list[i]
			switch {
			case p.Name == "once":
				if p.State != api.StateExited && !(c.cut && p.State == api.StateFailed) {
					what = "once is " + string(p.State)
					return false
				}
			case p.State != api.StateRunning || !alive(p.PID), p.Name == "crasher" && p.Generation <= uint64(c.fallen):
				what = fmt.Sprintf("%s is %s, generation %d", p.Name, p.State, p.Generation)
				return false
			default:
				running[p.Name] = true
			}
		}
		for _, name := range c.names {
			if !running[name] {
				what = name + " is not there"
				return false
			}
		}
		what = fmt.Sprintf("%d run, %d are held", len(running), c.held())
		return len(running) == len(c.names) && c.held() == len(running)
	})
}

// eventuallySaying is eventually with a reason that is known only in the end.
func eventuallySaying(t *testing.T, what *string, is func() bool) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("at last: %s", *what)
		}
	}()
	eventually(t, "everything as it was asked for", is)
}

// The ways to make somebody pass a point.

// again kills a part from outside: the next one passes what is on its way.
func again(part string) func(*crash) {
	return func(c *crash) {
		c.t.Helper()
		pid := c.owner(map[string]string{"server": "lock", "supervisor": "supervisor.lock"}[part])
		strike(c.t, pid)
		c.died(part)
	}
}

// try gives a command that may fail, and is given again in the end.
func try(args ...string) func(*crash) {
	return func(c *crash) {
		cmd := c.command(c.t.Context(), args...)
		c.redo, c.ended = [][]string{args}, make(chan struct{})
		go func() {
			defer close(c.ended)
			_ = cmd.Run() // nobody can tell what becomes of it
		}()
	}
}

// stop stops the process that has no other task, and starts it afterwards.
func stop(c *crash) {
	try("stop", "mortal")(c)
	c.redo = append(c.redo, []string{"start", "mortal"})
}

// reload gives the next variant of the configuration.
func reload(c *crash) {
	c.t.Helper()
	c.variant++
	var text string
	text, c.names = crashFile(c.t, c.variant)
	c.write("perdure.yaml", text)
	try("reload")(c)
}

// fall has the crasher end.
func fall(c *crash) {
	c.t.Helper()
	c.fallen = int(c.process("crasher").Generation)
	c.write(fmt.Sprintf("falls/%d", c.fallen), "")
}

// flow leaves it to what goes on anyway.
func flow(*crash) {}

// orphan makes the crasher an orphan that the server is the parent of: it was
// started under a supervisor that this server has started, and that has died.
func orphan(c *crash) {
	c.t.Helper()
	again("supervisor")(c)
	c.parts()
	c.settled()
	fall(c)
	c.settled()
	again("supervisor")(c)
	c.parts()
	c.settled()
}

// verdict stops everything and holds what the programs have written down against
// what Perdure tells.
func (c *crash) verdict() {
	c.t.Helper()
	c.exact = !c.says("does not keep exit codes")
	c.rest()
	all := audit(c.t, c.allEvents())
	for name, code := range map[string]int{"crasher": 7, "stubborn": 137, "forker": 137, "mortal": 143, "once": 0} {
		c.checkRuns(all, name, code, true)
	}
	c.checkKnown(all)
	if n := len(all.of(c.t, "once")); n != c.boots {
		c.t.Errorf("once has run %d times in %d boots", n, c.boots)
	}
	c.checkCounter("counter", all.of(c.t, "counter"))
	if c.boots == 1 {
		if first, last := c.numbers("logger", "stdout", "line"); first != 1 || last < 100 {
			c.t.Errorf("logger has lines %d to %d", first, last)
		}
	}
	info := c.info()
	if left := append(zombies(info.PID), zombies(info.SupervisorPID)...); len(left) > 0 {
		c.t.Errorf("zombies are left: %v", left)
	}
	c.finish()
	c.nothing()
}

// checkKnown holds that each exit is known. Somebody was always there to know it,
// but for a start of which the supervisor died before it had written it down, and
// for one that ended at once in a boot that was cut off: it may have been reaped
// before the server held it, and not written down.
func (c *crash) checkKnown(all chronicle) {
	c.t.Helper()
	for who, lives := range all {
		if c.boots > 1 && strings.HasPrefix(who, "once ") {
			continue
		}
		for g, l := range lives {
			if l.exited > 0 && l.code == nil && l.started > 0 && c.exact {
				c.t.Errorf("%s: the exit code of generation %d is not known", who, g)
			}
		}
	}
}

// finish ends everything, and nothing may be left.
func (c *crash) finish() {
	c.t.Helper()
	eventually(c.t, "the end of everything", func() bool {
		if len(c.marked()) > 0 {
			c.run("down") // who answers may only be coming
		}
		return len(c.marked()) == 0
	})
}

// nothing fails if anything is left on the system.
func (c *crash) nothing() {
	c.t.Helper()
	if left := c.cgroupsOf(); len(left) > 0 {
		c.t.Errorf("cgroups are left: %q", left)
	}
}

// first kills at a point of a start, which may fail of it.
func (c *crash) first(point string) {
	c.t.Helper()
	c.cut = strings.HasPrefix(point, "supervisor.spawn.")
	c.arm(point)
	_ = c.command(c.t.Context(), "up", "-d", "--no-wait").Run() // somebody dies under it
	c.killedAt(point)
}

// end kills at a point of the end, which then is asked for again.
func (c *crash) end(b blow) {
	c.t.Helper()
	began := time.Now()
	c.arm(b.point)
	b.by(c)
	c.killedAt(b.point)
	if c.ended != nil {
		<-c.ended
	}
	c.redo, c.ended = nil, nil
	c.finish()
	c.t.Logf("%s the end at %s: %s", began.Format("15:04:05.000"), b.point, time.Since(began).Round(time.Millisecond))
}

// term asks the supervisor for the end of everything.
func term(c *crash) {
	c.t.Helper()
	if err := syscall.Kill(c.owner("supervisor.lock"), syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
}

// TestCrashAtEveryPoint kills the parts of Perdure at each point of failure. They
// bring each other back; what runs goes on, each exit is told once and as it was,
// no line and no event is missing or doubled, and nothing is left in the end.
// docs/reference/survival.md says what a death at each point means.
func TestCrashAtEveryPoint(t *testing.T) {
	t.Parallel()
	var struck []string
	for _, list := range [][]blow{lifeBlows(), logBlows(), upgradeBlows(), endBlows()} {
		for _, b := range list {
			struck = append(struck, b.point)
		}
	}
	struck = append(struck, firstPoints()...)
	for _, point := range fault.Points() {
		if !slices.Contains(struck, point) {
			t.Errorf("nobody is killed at %s: add it to the lists of points", point)
		}
	}
	program := filepath.Join(t.TempDir(), "perdure")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "faults", "-o", program, "../cmd/perdure")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(errors.Join(err, errors.New(string(out))))
	}
	t.Run("life", func(t *testing.T) { t.Parallel(); newCrash(t, program).play(lifeBlows()) })
	t.Run("logs and upgrade", func(t *testing.T) {
		t.Parallel()
		newCrash(t, program).play(append(logBlows(), upgradeBlows()...))
	})
	t.Run("begin and end", func(t *testing.T) {
		t.Parallel()
		c := newCrash(t, program)
		for _, point := range firstPoints() {
			c.first(point)
		}
		c.begin()
		for i, b := range endBlows() {
			c.end(b)
			if i < len(bootPoints()) {
				c.first(bootPoints()[i])
			}
			c.begin()
		}
		c.verdict()
	})
}

// play kills at one point after the other, with SOAK again and again.
func (c *crash) play(blows []blow) {
	c.begin()
	for range scale(1, 10) {
		for _, b := range blows {
			c.strike(b)
		}
	}
	c.verdict()
}
