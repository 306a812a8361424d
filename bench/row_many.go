//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// manySizes are how many programs are started.
var manySizes = [...]int{10, 100, 1000}

// measureMany starts 10, 100 and 1000 programs, weighs the supervisor, and stops
// it all again.
func measureMany(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("Start, memory, idle CPU, stop",
		"Start: from the command to the last of N programs running, in seconds, with the supervisor's own start. Stop of 1000: from the\n"+
			"command to the last of them gone. Memory: PSS of all processes of the supervisor, without the programs, in MB; of which\n"+
			"those that are the parents of programs. Idle: CPU time of these processes, in milliseconds a second. Memory and idle are of the first round, at rest:\n"+
			"ten programs and a hundred have run for seven seconds then, a thousand for twenty.",
		medians("start 100", "start 1000", "stop 1000", "MB at 10", "MB at 100", "MB at 1000", "parents at 1000", "idle at 1000")...)
	t.Ratio, t.Base = "start 1000", "floor-go"
	t.explain("Start of 100: about 0.09 s of it is there with one program, too: the command, the server and the supervisor are three starts of a large\n" +
		"program, and the event log is made. Start of 1000: each start has its definition and its record in the journal, a cgroup, two FIFOs and\n" +
		"their files, and its events in the database; each fork copies the table of descriptors, of which there are three for a process. Stop of\n" +
		"1000: each group and cgroup is proven empty, each exit and each stop is written down and told.")
	took := map[string]time.Duration{} // of the round before, by peer and number
	begun := time.Now()
	// A quick run does not wait for who would take half of its time.
	tooLong := 4 * time.Minute
	if b.quick {
		tooLong = limit / 6
	}
	return b.interleave(ctx, t, turns{b.rounds, limit}, func(ctx context.Context, p peer, round int) error {
		for _, n := range manySizes {
			before := took[fmt.Sprint(p.name(), n/10)]
			if likely := 10 * before; n == 1000 && likely > tooLong && !b.patient(p) {
				t.note("%s: 1000 programs would have taken about %s", p.name(), likely.Round(time.Second))
				continue
			}
			if b.quick && round > 0 && (n < 1000 || time.Since(begun) > limit) {
				continue
			}
			at := time.Now()
			if err := b.many(ctx, t, p, n, round == 0); err != nil {
				return fmt.Errorf("with %d programs: %w", n, err)
			}
			took[fmt.Sprint(p.name(), n)] = time.Since(at)
			if round == 0 {
				took[fmt.Sprint(p.name(), n)] -= b.rest(n) + b.idle(n)
			}
		}
		return nil
	})
}

// rest is how long a supervisor is left alone before it is weighed: until what
// comes after a start is over. Perdure gives memory back after five seconds, and
// has proven after ten that its programs are stable.
func (b *bench) rest(n int) time.Duration {
	switch {
	case b.quick && n < 1000:
		return 500 * time.Millisecond
	case b.quick:
		return 3 * time.Second
	case n < 1000:
		return 7 * time.Second
	}
	return 20 * time.Second
}

// idle is how long an idle supervisor's CPU time is measured.
func (b *bench) idle(n int) time.Duration {
	switch {
	case n < 1000:
		return 0
	case b.quick:
		return 3 * time.Second
	}
	return 10 * time.Second
}

func (b *bench) many(ctx context.Context, t *table, p peer, n int, first bool) error {
	in, err := b.incarnate(p, n)
	if err != nil {
		return err
	}
	defer in.clean()
	if err := p.configure(in); err != nil {
		return err
	}
	begun := time.Now()
	if err := p.start(ctx, in); err != nil {
		return err
	}
	born, err := b.world.all(ctx, in.names(), 90*time.Second)
	if err != nil {
		return errors.Join(err, p.stop(ctx, in))
	}
	last := begun
	for _, x := range born {
		if x.at.After(last) {
			last = x.at
		}
	}
	if n >= 100 {
		t.add(p.name(), fmt.Sprintf("start %d", n), last.Sub(begun).Seconds())
	}
	if first {
		b.world.listen(ctx, b.rest(n))
		if err := b.weigh(ctx, t, in, born); err != nil {
			t.note("%s: %v", p.name(), err)
		}
	}
	begun = time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop(ctx, in) }()
	left := b.world.allEnded(in.prefix(), 2*time.Minute)
	took := time.Since(begun)
	if err := <-stopped; err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%d programs lived on after the stop", left)
	}
	if n == 1000 {
		t.add(p.name(), "stop 1000", took.Seconds())
	}
	return nil
}

// weigh measures memory and, at 1000 programs, what an idle supervisor does.
func (b *bench) weigh(ctx context.Context, t *table, in *incarnation, born map[string]birth) error {
	pids, n, name := in.pids(), len(born), in.peer.name()
	if span := b.idle(n); span > 0 {
		before, from := cpu(pids), time.Now()
		b.world.listen(ctx, span)
		t.add(name, "idle at 1000", (cpu(pids)-before).Seconds()*1000/time.Since(from).Seconds())
	}
	bytes, err := pss(pids)
	if err != nil {
		return err
	}
	t.add(name, fmt.Sprintf("MB at %d", n), bytes/1e6)
	if n < 1000 {
		return nil
	}
	parents := map[int]bool{}
	for _, x := range born {
		ppid, err := parent(x.pid)
		if err != nil {
			return err
		}
		parents[ppid] = true
	}
	if bytes, err = pss(slices.Collect(maps.Keys(parents))); err != nil {
		return err
	}
	t.add(name, "parents at 1000", bytes/1e6)
	return nil
}
