//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// sampled is how many of the thousand programs are killed together with their
// supervisor.
const sampled = 20

// measureRecovery kills the supervisor of a thousand programs and waits until it
// supervises again.
func measureRecovery(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("Recovery with 1000 programs",
		fmt.Sprintf("1000 programs run; their supervisor is killed with SIGKILL, and directly after it %d of the programs: the first, the last and others\n", sampled)+
			"between them. Milliseconds until all of these run again, started by the next supervisor, which has then adopted the rest; the median\n"+
			"and the worst. Memory: PSS in MB of the supervisor and of the server, a second before and five seconds after.",
		column{Name: "ms"}, column{Name: "ms at worst", Fold: worst},
		column{Name: "supervisor before"}, column{Name: "supervisor after"}, column{Name: "server before"}, column{Name: "server after"})
	t.Ratio = ""
	n := 1000
	return b.interleave(ctx, t, turns{b.rounds, limit}, func(ctx context.Context, p peer, round int) error {
		ours, ok := p.(*perdurePeer)
		if !ok {
			return errCannot // no other starts its supervisor again by itself and adopts
		}
		if b.quick && round > 1 {
			return nil
		}
		return b.recover(ctx, t, ours, n)
	})
}

func (b *bench) recover(ctx context.Context, t *table, p *perdurePeer, n int) error {
	in, err := b.incarnate(p, n)
	if err != nil {
		return err
	}
	defer in.end(ctx)
	if err := in.begin(ctx); err != nil {
		return err
	}
	if _, err := b.world.all(ctx, in.names(), 90*time.Second); err != nil {
		return err
	}
	b.world.listen(ctx, 2*time.Second)
	if err := t.weighParts(in, "before"); err != nil {
		return err
	}
	chosen := map[string]bool{}
	for i := range sampled {
		chosen[in.names()[i*(n-1)/(sampled-1)]] = true
	}
	var names []string
	var victims []life
	for _, l := range b.world.alive(in.prefix()) {
		if chosen[l.name] {
			names, victims = append(names, l.name), append(victims, l)
		}
	}
	supervisors := in.part(p.kills()[0])
	if len(supervisors) != 1 || len(victims) != sampled {
		return fmt.Errorf("%d supervisors and %d of %d programs run", len(supervisors), len(victims), sampled)
	}
	at := time.Now()
	err = unix.Kill(supervisors[0], unix.SIGKILL)
	for _, v := range victims {
		err = errors.Join(err, unix.PidfdSendSignal(v.fd, unix.SIGKILL, nil, 0))
	}
	if err != nil {
		return err
	}
	born, err := b.world.all(ctx, names, 30*time.Second)
	if err != nil {
		return err
	}
	last := at
	for _, x := range born {
		if x.at.After(last) {
			last = x.at
		}
	}
	ms := float64(last.Sub(at).Microseconds()) / 1000
	t.add(p.name(), "ms", ms)
	t.add(p.name(), "ms at worst", ms)
	b.world.listen(ctx, 5*time.Second)
	if alive := len(b.world.alive(in.prefix())); alive != n {
		return fmt.Errorf("%d of %d programs run after the recovery", alive, n)
	}
	return t.weighParts(in, "after")
}

// part lists the processes of a part of a peer.
func (in *incarnation) part(k kill) []int {
	var out []int
	for _, pid := range in.pids() {
		if argv := commandOf(pid); len(argv) > 0 && k.of(argv) {
			out = append(out, pid)
		}
	}
	return out
}

// weighParts adds the memory of both parts of Perdure.
func (t *table) weighParts(in *incarnation, when string) error {
	for _, k := range in.peer.kills()[:2] {
		bytes, err := pss(in.part(k))
		if err != nil {
			return err
		}
		t.add(in.peer.name(), k.what+" "+when, bytes/1e6)
	}
	return nil
}
