//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// measureCrash kills the supervisor itself, all its processes at once, and
// starts it again on the same folder.
func measureCrash(ctx context.Context, b *bench) (*table, error) {
	const n = 5
	t := newTable("kill -9 of the supervisor",
		fmt.Sprintf("%d programs run; all processes of the supervisor are killed with SIGKILL and it is started again as an operator would. Then,\n"+
			"of the %d: how many died with it, how many run twice, how many do not run. For runit and s6 all processes include the runsv or s6-supervise of\n"+
			"each program; where only runsvdir or s6-svscan dies, their programs go on untouched.", n, n), "died", "run twice", "do not run")
	rounds := b.rounds
	if b.quick {
		rounds = 1
	}
	for range rounds {
		for _, p := range b.peers {
			if _, floor := p.(*floorPeer); floor {
				continue
			}
			if err := b.crash(ctx, t, p, n); err != nil && !errors.Is(err, errCannot) {
				t.note("%s: %v", p.name(), err)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return t, nil
}

func (b *bench) crash(ctx context.Context, t *table, p peer, n int) error {
	in, err := b.incarnate(p, n)
	if err != nil {
		return err
	}
	if err := p.start(ctx, in); err != nil {
		in.clean()
		return err
	}
	defer in.end(ctx)
	if _, err := b.world.all(ctx, in.names(), 30*time.Second); err != nil {
		return err
	}
	killMarked(in.mark, b.tools.child)
	if in.main != nil {
		_ = in.main.Wait() // it was killed
	}
	b.world.listen(ctx, 200*time.Millisecond) // whoever dies with it, dies now
	t.add(p.name(), "died", float64(n-len(b.world.alive(in.prefix()))))
	if err := p.start(ctx, in); err != nil {
		return fmt.Errorf("cannot start again: %w", err)
	}
	b.world.listen(ctx, 4*time.Second) // a second copy says so when it runs
	by := map[string]int{}
	for _, l := range b.world.alive(in.prefix()) {
		by[l.name]++
	}
	twice := 0
	for _, count := range by {
		if count > 1 {
			twice++
		}
	}
	t.add(p.name(), "run twice", float64(twice))
	t.add(p.name(), "do not run", float64(n-len(by)))
	return nil
}
