//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/perdure/perdure/api"
)

func (r *rig) remove(name string) {
	r.t.Helper()
	if err := os.Remove(r.path(name)); err != nil {
		r.t.Fatal(err)
	}
}

// tail follows the log of a process over the deaths of its servers, by cursor,
// until both streams have come to their last number. It returns what was wrong.
func (r *rig) tail(ctx context.Context, name string, lines int) error {
	c := r.client()
	cursor, last := "", map[string]int{}
	for ctx.Err() == nil {
		q := api.LogQuery{Names: []string{name}, Lines: -1, Cursor: cursor, Follow: true}
		for l, err := range c.Logs(ctx, q) {
			if err != nil {
				break // the server has died; the next one goes on from the cursor
			}
			n, ok := numbered(l.Text, l.Stream[3:])
			if !ok || n != last[l.Stream]+1 {
				return fmt.Errorf("%s %s: %q follows number %d", name, l.Stream, l.Text, last[l.Stream])
			}
			last[l.Stream], cursor = n, l.Cursor
			if last["stdout"] == lines && last["stderr"] == lines {
				return nil
			}
		}
		select {
		case <-ctx.Done():
		case <-tick():
		}
	}
	return fmt.Errorf("%s: came to %v of %d", name, last, lines)
}

// Ten writers write numbered lines on both streams while their logs rotate and
// are compressed and both parts of Perdure are killed again and again. Each line
// is kept once, in order; who follows by cursor gets each once (P9, N3).
func TestLogsAreComplete(t *testing.T) {
	t.Parallel()
	pieces, lines, n := 40, scale(250, 5000), scale(6, 10)
	r := newRig(t, writers(n, pieces, lines))
	r.write("writer.sh", writerScript)
	r.ok("up", "-d", "--no-wait")
	ctx, cancel := context.WithTimeout(context.Background(), patience*10)
	defer cancel()
	tails := make(chan error, n)
	for i := range n {
		go func() { tails <- r.tail(ctx, fmt.Sprintf("writer%d", i), pieces*lines) }()
	}
	kills, left := 0, n
	for left > 0 {
		select {
		case err := <-tails:
			if err != nil {
				t.Error(err)
			}
			left--
			continue
		default:
		}
		info := r.info()
		switch kills++; kills % 4 {
		case 0:
			strike(t, info.SupervisorPID)
			r.newSupervisor(info.SupervisorPID)
		case 2:
			strike(t, info.SupervisorPID)
			strike(t, info.PID)
			r.ok("up", "-d", "--no-wait")
		default:
			strike(t, info.PID)
			r.ok("up", "-d", "--no-wait")
		}
		select {
		case err := <-tails:
			if err != nil {
				t.Error(err)
			}
			left--
		case <-tick():
		}
	}
	for i := range n {
		name := fmt.Sprintf("writer%d", i)
		for _, stream := range []string{"stdout", "stderr"} {
			if first, last := r.numbers(name, stream, stream[3:]); first != 1 || last != pieces*lines {
				t.Errorf("%s %s has lines %d to %d, not 1 to %d", name, stream, first, last, pieces*lines)
			}
		}
	}
	t.Logf("%d kills, %d lines", kills, 2*n*pieces*lines)
	if kills < 3 {
		t.Errorf("only %d kills: this proves little", kills)
	}
	r.ok("down", "--timeout", "1s")
}
