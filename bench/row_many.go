//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// manySizes are how many programs are started.
var manySizes = [...]int{10, 100, 1000}

// measureMany starts 10, 100 and 1000 programs, weighs the supervisor, and stops
// it all again.
func measureMany(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("Start, memory, idle CPU, stop",
		"Start: from the command to the last of N programs running, in seconds, with the supervisor's own start. Stop of 1000: from the\n"+
			"command to the last of them gone. Memory: PSS of all processes of the supervisor, without the programs, in MB. Idle: CPU time of\n"+
			"these processes, in milliseconds a second.",
		medians("start 100", "start 1000", "stop 1000", "MB at 10", "MB at 100", "MB at 1000", "idle at 1000")...)
	t.Ratio, t.Base = "start 1000", "floor-go"
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
			took[fmt.Sprint(p.name(), n)] = time.Since(at) - 2*rest(b)
		}
		return nil
	})
}

// rest is how long a supervisor is left alone before it is weighed.
func rest(b *bench) time.Duration {
	if b.quick {
		return 500 * time.Millisecond
	}
	return time.Second
}

func (b *bench) many(ctx context.Context, t *table, p peer, n int, weighIdle bool) error {
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
	b.world.listen(ctx, rest(b))
	if err := b.weigh(ctx, t, in, n, weighIdle); err != nil {
		t.note("%s: %v", p.name(), err)
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
func (b *bench) weigh(ctx context.Context, t *table, in *incarnation, n int, idle bool) error {
	pids := in.pids()
	bytes, err := pss(pids)
	if err != nil {
		return err
	}
	t.add(in.peer.name(), fmt.Sprintf("MB at %d", n), bytes/1e6)
	if n < 1000 || !idle {
		return nil
	}
	span := 10 * time.Second
	if b.quick {
		span = 3 * time.Second
	}
	b.world.listen(ctx, span/2) // until what came after the start is over
	before, from := cpu(pids), time.Now()
	b.world.listen(ctx, span)
	t.add(in.peer.name(), "idle at 1000", (cpu(pids)-before).Seconds()*1000/time.Since(from).Seconds())
	return nil
}
