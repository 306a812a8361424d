//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// pace is one way to make a hundred checks a second.
type pace struct {
	programs int
	interval time.Duration
	column   string
}

// measureChecks has programs asked by HTTP, a hundred times a second together.
func measureChecks(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("HTTP checks",
		"Ten programs are each asked by HTTP every 100 ms, or a hundred every second, on loopback; the harness answers. CPU time of all of\n"+
			"the supervisor's processes for each check, in microseconds, and the checks that were made in a second.",
		medians("µs at 10 x 10/s", "10 x 10/s", "µs at 100 x 1/s", "100 x 1/s")...)
	paces := []pace{{10, 100 * time.Millisecond, "10 x 10/s"}, {100, time.Second, "100 x 1/s"}}
	var asked atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { _ = server.Close(); <-served }()
	url := "http://" + l.Addr().String() + "/"
	span := 5 * time.Second
	if b.quick {
		span = 3 * time.Second
	}
	return b.interleave(ctx, t, turns{b.rounds, limit}, func(ctx context.Context, p peer, _ int) error {
		able := false
		for _, how := range paces {
			err := b.checked(ctx, t, p, url, how, span, &asked)
			if err != nil && !errors.Is(err, errCannot) {
				return fmt.Errorf("%s: %w", how.column, err)
			}
			able = able || err == nil
		}
		if !able {
			return errCannot
		}
		return nil
	})
}

func (b *bench) checked(ctx context.Context, t *table, p peer, url string, how pace, span time.Duration, asked *atomic.Int64) error {
	in, err := b.incarnate(p, how.programs)
	if err != nil {
		return err
	}
	in.setup.check, in.setup.interval = url, how.interval
	if err := in.begin(ctx); err != nil {
		in.clean()
		return err
	}
	defer in.end(ctx)
	if _, err := b.world.all(ctx, in.names(), 30*time.Second); err != nil {
		return err
	}
	b.world.listen(ctx, 2*time.Second) // until every check has begun
	pids := in.pids()
	used, count, from := cpu(pids), asked.Load(), time.Now()
	b.world.listen(ctx, span)
	n := float64(asked.Load() - count)
	if n == 0 {
		return errors.New("nothing was asked")
	}
	t.add(p.name(), "µs at "+how.column, float64((cpu(pids)-used).Microseconds())/n)
	t.add(p.name(), how.column, n/time.Since(from).Seconds())
	return nil
}
