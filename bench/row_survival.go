//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// resting is how many programs only run.
	resting = 5
	// codeBefore and codeMeanwhile are what the ending program ends with, when
	// its supervisor lives and when it has just been killed.
	codeBefore, codeMeanwhile = 113, 114
)

// The columns of the survival row, short enough for the README.
const (
	colDied    = "programs that died with it, of 6"
	colTwice   = "run twice afterwards, of 7"
	colAbsent  = "do not run afterwards, of 7"
	colGuarded = "supervised again, of 5"
	colCode    = "exit code kept of one that ended meanwhile"
	colLost    = "lines lost"
	colDoubled = "lines doubled"
	colByHand  = "started again by hand"
)

// measureSurvival kills parts of each supervisor with SIGKILL under programs
// that rest, end and write, has it back as its user would, and looks who has
// survived.
func measureSurvival(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("Who survives what",
		"Seven programs run: five that rest, one that writes 2000 numbered lines a second, and one that ends when it is told. The supervisor is\n"+
			"killed with SIGKILL, and the last program ends at once after it. If nothing of what was killed is back after a second, it is started\n"+
			"again as its user would. *Supervised again*: of the five original processes, how many are replaced when they are killed, four\n"+
			"seconds after the last program has come. Lines are counted in the supervisor's files against what the programs have written. For runit and s6, *all of it* includes the\n"+
			"small supervisor and the logger of each program. The worst of all rounds is told, of *supervised again* the median.",
		column{colDied, worst}, column{colTwice, worst}, column{colAbsent, worst}, column{Name: colGuarded},
		column{colCode, yesNo}, column{colLost, worst}, column{colDoubled, worst}, column{colByHand, yesNo})
	rounds := min(b.rounds, 3)
	if b.quick {
		rounds = 1
	}
	err := b.interleave(ctx, t, turns{rounds, limit}, func(ctx context.Context, p peer, _ int) error {
		if len(p.kills()) == 0 {
			return errCannot
		}
		for _, k := range p.kills() {
			if err := b.survive(ctx, t, p, k); err != nil {
				return fmt.Errorf("%s killed: %w", k.label(p), err)
			}
		}
		return nil
	})
	t.orderByKills(b.peers)
	return err
}

// label is the line of a kill in the table.
func (k kill) label(p peer) string {
	if k.what == "" {
		return p.name()
	}
	return p.name() + ", " + k.what
}

func (t *table) orderByKills(peers []peer) {
	t.Order = nil
	for _, p := range peers {
		for _, k := range p.kills() {
			if t.Values[k.label(p)] != nil {
				t.Order = append(t.Order, k.label(p))
			}
		}
	}
}

// ordeal is one killing and what came of it.
type ordeal struct {
	b      *bench
	in     *incarnation
	first  map[string]birth // who ran before the kill, by name of the program
	ending string           // names of programs, without the prefix
	writer string
}

func (b *bench) survive(ctx context.Context, t *table, p peer, k kill) error {
	in, err := b.incarnate(p, resting)
	if err != nil {
		return err
	}
	defer in.clean()
	o := &ordeal{b: b, in: in, ending: "ending", writer: "writer", first: map[string]birth{}}
	in.addProgram(o.ending, "exit")
	in.addProgram(o.writer, "ticks", filepath.Join(in.dir, "wrote"))
	in.setup.logs, in.setup.exits = true, true
	if err := in.begin(ctx); err != nil {
		return err
	}
	born, err := b.world.all(ctx, in.names(), 30*time.Second)
	if err != nil {
		return err
	}
	for name, x := range born {
		o.first[strings.TrimPrefix(name, in.prefix())] = x
	}
	if err := o.control(ctx); err != nil {
		return err
	}
	label := k.label(p)
	if err := o.kill(k); err != nil {
		return err
	}
	b.world.listen(ctx, 300*time.Millisecond) // whoever dies with it, dies now
	died := float64(o.dead())
	byHand, err := o.back(ctx, k)
	if err != nil {
		return err
	}
	o.awaitEnding(ctx)
	b.world.quiet(ctx, 4*time.Second, 20*time.Second) // a second copy says so when it runs
	twice, absent := o.count()
	kept := p.told(ctx, in, o.ending, codeMeanwhile)
	t.add(label, colDied, died)
	t.add(label, colTwice, float64(twice))
	t.add(label, colAbsent, float64(absent))
	t.add(label, colCode, one(kept))
	t.add(label, colByHand, one(byHand))
	t.add(label, colGuarded, float64(o.guarded(ctx)))
	lost, doubled, err := o.lines(ctx)
	if err != nil {
		return err
	}
	t.add(label, colLost, float64(lost))
	t.add(label, colDoubled, float64(doubled))
	return nil
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// addProgram adds one more program.
func (in *incarnation) addProgram(name string, mode ...string) {
	argv := append([]string{in.b.tools.child, in.b.world.path, in.prefix() + name}, mode...)
	in.setup.programs = append(in.setup.programs, program{name, argv})
}

// control shows that the peer tells an exit code at all, and starts the program
// again: otherwise what is measured after the kill would say nothing of it.
func (o *ordeal) control(ctx context.Context) error {
	if err := o.signal(o.ending, unix.SIGUSR1); err != nil {
		return err
	}
	next, err := o.b.world.next(ctx, o.in.prefix()+o.ending, 15*time.Second)
	if err != nil {
		return fmt.Errorf("does not start a program again that ends with %d: %w", codeBefore, err)
	}
	o.first[o.ending] = next
	for range 30 {
		if o.in.peer.told(ctx, o.in, o.ending, codeBefore) {
			return nil
		}
		o.b.world.listen(ctx, 100*time.Millisecond)
	}
	return fmt.Errorf("does not tell the exit code %d of a program while it lives", codeBefore)
}

// signal speaks to the first process of a program.
func (o *ordeal) signal(program string, s unix.Signal) error {
	for _, l := range o.b.world.alive(o.in.prefix() + program) {
		if l.pid == o.first[program].pid {
			return unix.PidfdSendSignal(l.fd, s, nil, 0)
		}
	}
	return fmt.Errorf("the program %q does not run", program)
}

// kill ends the processes of k at once, and the ending program directly after.
func (o *ordeal) kill(k kill) error {
	var fds []int
	for _, pid := range o.in.part(k) {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	if len(fds) == 0 {
		return errors.New("there is nothing to kill")
	}
	for _, fd := range fds {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // another kill may have ended it
	}
	err := o.signal(o.ending, unix.SIGUSR2)
	for _, fd := range fds {
		ended(fd, 2*time.Second)
		_ = unix.Close(fd)
	}
	return err
}

// dead counts who no longer runs, without the ending program.
func (o *ordeal) dead() int {
	n := len(o.first) - 1
	for _, l := range o.b.world.alive(o.in.prefix()) {
		name := strings.TrimPrefix(l.name, o.in.prefix())
		if name != o.ending && o.first[name].pid == l.pid {
			n--
		}
	}
	return n
}

// back waits for what was killed to come back by itself, or starts it.
func (o *ordeal) back(ctx context.Context, k kill) (byHand bool, err error) {
	o.b.world.listen(ctx, 700*time.Millisecond)
	if len(o.in.part(k)) > 0 {
		return false, nil
	}
	if o.in.main != nil && !o.in.left(5*time.Second) {
		return false, errors.New("its main process was killed and has not ended")
	}
	if err := o.in.peer.start(ctx, o.in); err != nil {
		return true, fmt.Errorf("cannot start again: %w", err)
	}
	return true, nil
}

// awaitEnding waits for the program that has ended meanwhile, which every peer
// has to start again: only then has it begun its work, however slow it is.
func (o *ordeal) awaitEnding(ctx context.Context) {
	name := o.in.prefix() + o.ending
	for _, l := range o.b.world.alive(name) {
		if l.pid != o.first[o.ending].pid {
			return
		}
	}
	_, _ = o.b.world.next(ctx, name, 30*time.Second) // one that never comes is counted as absent
}

// count says how many programs run more than once, and how many do not run.
func (o *ordeal) count() (twice, absent int) {
	by := map[string]int{}
	for _, l := range o.b.world.alive(o.in.prefix()) {
		by[strings.TrimPrefix(l.name, o.in.prefix())]++
	}
	for name := range o.first {
		switch n := by[name]; {
		case n == 0:
			absent++
		case n > 1:
			twice++
		}
	}
	return twice, absent
}

// guarded kills the resting programs that are left of before, and counts those
// that are started again.
func (o *ordeal) guarded(ctx context.Context) int {
	awaited := map[string]bool{}
	for _, l := range o.b.world.alive(o.in.prefix() + "p") {
		name := strings.TrimPrefix(l.name, o.in.prefix())
		if o.first[name].pid != l.pid {
			continue
		}
		if unix.PidfdSendSignal(l.fd, unix.SIGKILL, nil, 0) == nil {
			awaited[l.name] = true
		}
	}
	var names []string
	for name := range awaited {
		names = append(names, name)
	}
	back, err := o.b.world.all(ctx, names, 4*time.Second)
	if err != nil {
		return len(back) // time was up: these are all
	}
	return len(names)
}

// lines has all writers fall silent, stops the peer, which may still hold what
// it has read, and compares what was written with the files.
func (o *ordeal) lines(ctx context.Context) (lost, doubled int, err error) {
	for _, l := range o.b.world.alive(o.in.prefix() + o.writer) {
		_ = unix.PidfdSendSignal(l.fd, unix.SIGUSR1, nil, 0) // it may have ended by itself
	}
	o.b.world.listen(ctx, 200*time.Millisecond)
	if err := o.in.peer.stop(ctx, o.in); err != nil {
		return 0, 0, fmt.Errorf("cannot stop: %w", err)
	}
	o.in.left(5 * time.Second) // a peer that does not end has written by now
	files := func() []string { return o.in.peer.logFiles(o.in, o.writer) }
	o.b.settled(ctx, files, 1<<62) // until nothing more comes
	return compareTicks(o.in.dir, files())
}

// ticked finds the lines of the writers: the process and the number.
var ticked = regexp.MustCompile(`T(\d+) (\d{10}) x`)

// compareTicks counts what was written (a counter in a file for each process,
// behind each write) and is not in the files, and what is in them again.
func compareTicks(dir string, files []string) (lost, doubled int, err error) {
	seen := map[string]map[int]int{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, 0, fmt.Errorf("cannot compare the lines: %w", err)
		}
		for line := range bytes.Lines(text) {
			m := ticked.FindSubmatch(line)
			if m == nil {
				continue
			}
			n, err := strconv.Atoi(string(m[2]))
			if err != nil {
				return 0, 0, err
			}
			pid := string(m[1])
			if seen[pid] == nil {
				seen[pid] = map[int]int{}
			}
			seen[pid][n]++
		}
	}
	counters, err := filepath.Glob(filepath.Join(dir, "wrote.*"))
	if err != nil || len(counters) == 0 {
		return 0, 0, errors.Join(err, errors.New("no program has written a line"))
	}
	for _, path := range counters {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, 0, err
		}
		wrote, err := strconv.Atoi(strings.TrimSpace(strings.TrimRight(string(text), "\x00")))
		if err != nil {
			return 0, 0, fmt.Errorf("cannot read %s: %w", path, err)
		}
		lines := seen[strings.TrimPrefix(filepath.Ext(path), ".")]
		for i := range wrote {
			if lines[i] == 0 {
				lost++
			}
		}
		for _, n := range lines {
			doubled += n - 1
		}
	}
	return lost, doubled, nil
}

// commandOf is the command line of a process, nil if it has ended.
func commandOf(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
}
