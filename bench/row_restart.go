//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// rested is how long a program has lived when it is killed in the paced
// measurement: runit and s6 wait if it was less than a second.
const rested = 1100 * time.Millisecond

// measureRestart kills one program of each peer in turn and waits for its next
// start. All peers run at the same time and are idle but for the one that is
// measured, so that a change of the machine meets all of them.
func measureRestart(ctx context.Context, b *bench) (*table, error) {
	t := newTable("Restart latency",
		"From just before `kill -9` of the program to the first instruction of the next one that can be heard, in milliseconds, with no\n"+
			"backoff configured. *Paced*: the program had lived for more than a second. *At once*: it is killed again as soon as it runs.",
		"paced p50", "paced p99", "at once p50", "at once p99")
	t.ratio, t.base = "paced p50", "floor-go"
	var all []*incarnation
	defer func() {
		for _, in := range all {
			in.end(ctx)
		}
	}()
	pids := map[*incarnation]birth{}
	for _, p := range b.peers {
		in, err := b.incarnate(p, 1)
		if err != nil {
			return nil, err
		}
		all = append(all, in)
		if err := p.start(ctx, in); err != nil {
			t.note("%s: cannot start: %v", p.name(), err)
			continue
		}
		if pids[in], err = b.world.next(ctx, in.names()[0], 30*time.Second); err != nil {
			t.note("%s: %v", p.name(), err)
			delete(pids, in)
		}
	}
	paced, burst := 10*b.rounds, 40*b.rounds
	if b.quick {
		paced = 4 * b.rounds
	}
	samples := map[string]map[*incarnation][]float64{"paced": {}, "at once": {}}
	for range paced {
		b.killEach(ctx, t, all, pids, samples["paced"], 1, rested, time.Minute)
	}
	for range b.rounds {
		b.killEach(ctx, t, all, pids, samples["at once"], burst/b.rounds, 0, 3*time.Second)
	}
	for kind, by := range samples {
		for in, v := range by {
			t.add(in.peer.name(), kind+" p50", quantile(v, 0.5))
			t.add(in.peer.name(), kind+" p99", quantile(v, 0.99))
		}
	}
	t.sortLike(b.peers)
	return t, ctx.Err()
}

// killEach kills the program of each incarnation n times, or as often as fits
// into the budget.
func (b *bench) killEach(ctx context.Context, t *table, all []*incarnation, pids map[*incarnation]birth,
	into map[*incarnation][]float64, n int, age, budget time.Duration) {
	for _, in := range all {
		begun := time.Now()
		for i := 0; i < n && ctx.Err() == nil && time.Since(begun) < budget; i++ {
			old, runs := pids[in]
			if !runs {
				break
			}
			if slow(into[in]) {
				break
			}
			if young := age - time.Since(old.at); young > 0 {
				b.world.listen(ctx, young)
			}
			at := time.Now()
			if err := unix.Kill(old.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				t.note("%s: cannot kill: %v", in.peer.name(), err)
				break
			}
			next, err := b.world.next(ctx, old.name, 15*time.Second)
			if err != nil {
				t.note("%s: gave its program up after %d restarts: %v", in.peer.name(), len(into[in]), err)
				delete(pids, in)
				break
			}
			into[in] = append(into[in], float64(next.at.Sub(at).Microseconds())/1000)
			pids[in] = next
		}
		b.world.alive(in.prefix())
	}
}

// slow says that enough is known of a peer that takes half a second and more.
func slow(v []float64) bool { return len(v) >= 5 && median(v) > 500 }

// sortLike orders the lines of the table as the peers are.
func (t *table) sortLike(peers []peer) {
	var order []string
	for _, p := range peers {
		if t.values[p.name()] != nil {
			order = append(order, p.name())
		}
	}
	t.order = order
}
