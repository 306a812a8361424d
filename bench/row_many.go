//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// measureMany starts 0, 10, 100 and 1000 programs, weighs the supervisor, and
// stops it all again.
func measureMany(ctx context.Context, b *bench) (*table, error) {
	t := newTable("Start, memory, idle CPU, stop",
		"Start: from the command to the last of N programs running, in seconds, with the supervisor's own start. Stop of 1000: from the\n"+
			"command to the last of them gone. Memory: PSS of all processes of the supervisor, without the programs, in MB. Idle: CPU time of\n"+
			"these processes, in milliseconds a second.",
		"start 100", "start 1000", "stop 1000", "MB at 10", "MB at 100", "MB at 1000", "idle at 1000")
	t.ratio, t.base = "start 1000", "floor-go"
	sizes, rounds, idle := []int{10, 100, 1000}, b.rounds, 10*time.Second
	if b.quick {
		sizes, rounds, idle = []int{10, 100, 1000}, 1, 3*time.Second
	}
	for round := range rounds {
		for _, n := range sizes {
			for _, p := range b.peers {
				if err := b.many(ctx, t, p, n, idle, round == 0); err != nil {
					t.note("%s with %d programs: %v", p.name(), n, err)
				}
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
			}
		}
	}
	return t, nil
}

func (b *bench) many(ctx context.Context, t *table, p peer, n int, idle time.Duration, weighIdle bool) error {
	in, err := b.incarnate(p, n)
	if err != nil {
		return err
	}
	defer in.clean()
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
	// A second after the start the supervisor has come to rest.
	b.world.listen(ctx, time.Second)
	pids := in.pids()
	if bytes, err := pss(pids); err == nil {
		t.add(p.name(), fmt.Sprintf("MB at %d", n), bytes/1e6)
	} else {
		t.note("%s: %v", p.name(), err)
	}
	if n == 1000 && weighIdle {
		before, from := cpu(pids), time.Now()
		b.world.listen(ctx, idle)
		t.add(p.name(), "idle at 1000", (cpu(pids)-before).Seconds()*1000/time.Since(from).Seconds())
	}
	begun = time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop(ctx, in) }()
	left := b.world.allEnded(in.prefix(), 100*time.Second)
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
