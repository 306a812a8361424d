//go:build linux

package main

import (
	"context"
	"errors"
	"time"
)

// measureStop counts what lives on after a stop.
func measureStop(ctx context.Context, b *bench) (*table, error) {
	t := newTable("Stop of a program with escaped descendants",
		"A program has four descendants: a plain child, one in a session of its own, one that was forked twice, and one with both. Survivors\n"+
			"two seconds after the supervisor has ended by its own stop; milliseconds until the program itself was gone.",
		"survivors of 4", "ms")
	kinds := []string{".plain", ".setsid", ".double", ".both"}
	rounds := b.rounds
	if b.quick {
		rounds = min(rounds, 2)
	}
	for range rounds {
		for _, p := range b.peers {
			if err := b.stopTree(ctx, t, p, kinds); err != nil && !errors.Is(err, errCannot) {
				t.note("%s: %v", p.name(), err)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return t, nil
}

func (b *bench) stopTree(ctx context.Context, t *table, p peer, kinds []string) error {
	in, err := b.incarnate(p, 1, "tree")
	if err != nil {
		return err
	}
	defer in.clean()
	if err := p.start(ctx, in); err != nil {
		return err
	}
	if _, err := b.world.all(ctx, in.names(append(kinds, "")...), 30*time.Second); err != nil {
		return errors.Join(err, p.stop(ctx, in))
	}
	var leader life
	for _, l := range b.world.alive(in.prefix()) {
		if l.name == in.names()[0] {
			leader = l
		}
	}
	begun := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop(ctx, in) }()
	ended(leader.fd, 30*time.Second)
	took := time.Since(begun)
	if err := <-stopped; err != nil {
		return err
	}
	if in.main != nil {
		_ = in.main.Wait() // the supervisor's own end; how says nothing here
		in.main = nil
	}
	t.add(p.name(), "survivors of 4", float64(b.world.allEnded(in.prefix(), 2*time.Second)))
	t.add(p.name(), "ms", float64(took.Microseconds())/1000)
	return nil
}
