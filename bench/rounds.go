//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// turns says how often peers have their turn in a row.
type turns struct {
	rounds int
	// limit is for the whole row. A peer whose next turn would go beyond its
	// share of it has no more; its first turn it always has. The floors and
	// Perdure have all rounds.
	limit time.Duration
}

// interleave gives each peer a turn, round after round, so that a change of the
// machine meets all of them. A peer that cannot do what is measured is left out;
// one that fails twice has no further turn.
func (b *bench) interleave(ctx context.Context, t *table, how turns, turn func(context.Context, peer, int) error) error {
	type account struct {
		spent, last time.Duration
		failures    int
		out         bool
	}
	accounts := make([]account, len(b.peers))
	share := how.limit / time.Duration(max(1, len(b.peers)))
	for round := range how.rounds {
		for i, p := range b.peers {
			a := &accounts[i]
			if a.out || round > 0 && !b.patient(p) && a.spent+a.last > share {
				a.out = true
				continue
			}
			begun := time.Now()
			err := turn(ctx, p, round)
			a.last = time.Since(begun)
			a.spent += a.last
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, errCannot) {
				a.out = true
				continue
			}
			if err != nil {
				t.note("%s: %v", p.name(), err)
				a.failures++
				a.out = a.failures >= 2
			}
		}
		progress(t.Row, round+1, how.rounds)
	}
	return nil
}

// patient says whose figures the others are compared with.
func (b *bench) patient(p peer) bool {
	switch p.(type) {
	case *floorPeer, *perdurePeer:
		return true
	}
	return false
}

func progress(row string, done, all int) {
	fmt.Fprintf(os.Stderr, "%s: round %d of %d\n", row, done, all)
}
