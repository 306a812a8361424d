//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// measureStop counts what lives on after a stop.
func measureStop(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("Stop of a program with escaped descendants",
		"A program has four descendants: a plain child, one in a session of its own, one that was forked twice, and one with both. Survivors\n"+
			"two seconds after the supervisor has ended by its own stop, or ten seconds after the program's end where it does not end;\n"+
			"milliseconds until the program itself was gone.",
		column{Name: "survivors of 4", Fold: worst}, column{Name: "ms"})
	kinds := []string{".plain", ".setsid", ".double", ".both"}
	return b.interleave(ctx, t, turns{b.rounds, limit}, func(ctx context.Context, p peer, _ int) error {
		return b.stopTree(ctx, t, p, kinds)
	})
}

func (b *bench) stopTree(ctx context.Context, t *table, p peer, kinds []string) error {
	in, err := b.incarnate(p, 1, "tree")
	if err != nil {
		return err
	}
	defer in.clean()
	if err := in.begin(ctx); err != nil {
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
	if !ended(leader.fd, 30*time.Second) {
		return errors.Join(fmt.Errorf("the program did not end"), <-stopped)
	}
	took := time.Since(begun)
	if err := <-stopped; err != nil {
		return err
	}
	if !in.left(10 * time.Second) {
		t.note("%s: does not end itself while an escaped descendant lives", p.name())
	}
	t.add(p.name(), "survivors of 4", float64(b.world.allEnded(in.prefix(), 2*time.Second)))
	t.add(p.name(), "ms", float64(took.Microseconds())/1000)
	return nil
}
