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
func measureRestart(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("Restart latency",
		"From just before `kill -9` of the program to the first instruction of the next one that can be heard, in milliseconds, with no\n"+
			"backoff configured. *Paced*: the program had lived for more than a second. *At once*: it is killed again as soon as it runs.\n"+
			"p50 is the median of the rounds' medians; p99 is of all restarts.",
		medians("paced p50", "paced p99", "at once p50", "at once p99")...)
	t.Ratio, t.Base = "paced p50", "floor-go"
	t.explain("The rest above the floor is what a supervisor owes that keeps records: the exit is read off the pidfd, group and cgroup are proven empty, the\n" +
		"output is drained to its last byte, and the exit and the start are written to the journal, the latter before the fork. A supervisor at rest\n" +
		"pays for it with cold caches and the wake-up of two threads, which is the difference between *paced* and *at once*. The floor does none of\n" +
		"this.")
	paced, burst := 10, 40
	if b.quick {
		paced = 3
	}
	all, pids := b.runEach(ctx, t)
	defer func() {
		for _, in := range all {
			in.end(ctx)
		}
	}()
	samples := map[string]map[*incarnation][]float64{"paced": {}, "at once": {}}
	begun := time.Now()
	for round := range b.rounds {
		if round > 0 && time.Since(begun) > limit {
			t.note("time was up after %d rounds", round)
			break
		}
		now := map[string]map[*incarnation][]float64{"paced": {}, "at once": {}}
		for range paced {
			b.killEach(ctx, t, all, pids, now["paced"], samples["paced"], 1, rested)
		}
		b.killEach(ctx, t, all, pids, now["at once"], samples["at once"], burst, 0)
		for kind, by := range now {
			for in, v := range by {
				t.add(in.peer.name(), kind+" p50", median(v))
				samples[kind][in] = append(samples[kind][in], v...)
			}
		}
		progress(t.Row, round+1, b.rounds)
	}
	for kind, by := range samples {
		for in, v := range by {
			t.add(in.peer.name(), kind+" p99", quantile(v, 0.99))
		}
	}
	t.sortLike(b.peers)
	return nil
}

// runEach starts one program of each peer.
func (b *bench) runEach(ctx context.Context, t *table) (all []*incarnation, pids map[*incarnation]birth) {
	pids = map[*incarnation]birth{}
	for _, p := range b.peers {
		in, err := b.incarnate(p, 1)
		if err == nil {
			all = append(all, in)
			err = in.begin(ctx)
		}
		if err == nil {
			pids[in], err = b.world.next(ctx, in.names()[0], 30*time.Second)
		}
		if err != nil {
			t.note("%s: cannot start: %v", p.name(), err)
			delete(pids, in)
		}
	}
	return all, pids
}

// killEach kills the program of each incarnation n times. A peer that is known
// to take half a second and more is killed once.
func (b *bench) killEach(ctx context.Context, t *table, all []*incarnation, pids map[*incarnation]birth,
	into, known map[*incarnation][]float64, n int, age time.Duration) {
	for _, in := range all {
		for i := 0; i < n && ctx.Err() == nil; i++ {
			old, runs := pids[in]
			if !runs || slow(into[in], known[in]) {
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
				t.note("%s: gave its program up after %d restarts: %v", in.peer.name(), len(known[in])+len(into[in]), err)
				delete(pids, in)
				break
			}
			into[in] = append(into[in], float64(next.at.Sub(at).Microseconds())/1000)
			pids[in] = next
		}
		b.world.alive(in.prefix())
	}
}

// slow says that enough is known of a peer in this round.
func slow(now, before []float64) bool {
	return len(now) > 0 && median(now) > 500 && (len(now) > 1 || len(before) > 0)
}
