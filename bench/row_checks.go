//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// measureChecks has ten programs asked by HTTP ten times a second each.
func measureChecks(ctx context.Context, b *bench) (*table, error) {
	t := newTable("HTTP checks",
		"Ten programs, each asked by HTTP every 100 ms on loopback; the harness answers. CPU time of the supervisor's processes for each\n"+
			"check, in microseconds.", "µs of CPU a check", "checks a second")
	var asked atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { _ = server.Close(); <-served }()
	rounds, span := b.rounds, 5*time.Second
	if b.quick {
		rounds, span = 2, 3*time.Second
	}
	for range rounds {
		for _, p := range b.peers {
			err := b.checked(ctx, t, p, "http://"+l.Addr().String()+"/", span, &asked)
			if err != nil && !errors.Is(err, errCannot) {
				t.note("%s: %v", p.name(), err)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return t, nil
}

func (b *bench) checked(ctx context.Context, t *table, p peer, url string, span time.Duration, asked *atomic.Int64) error {
	in, err := b.incarnate(p, 10)
	if err != nil {
		return err
	}
	in.setup.check, in.setup.interval = url, 100*time.Millisecond
	if err := p.start(ctx, in); err != nil {
		in.clean()
		return err
	}
	defer in.end(ctx)
	if _, err := b.world.all(ctx, in.names(), 30*time.Second); err != nil {
		return err
	}
	b.world.listen(ctx, 1500*time.Millisecond) // until every check has begun
	pids := in.pids()
	used, count, from := cpu(pids), asked.Load(), time.Now()
	b.world.listen(ctx, span)
	n := float64(asked.Load() - count)
	if n == 0 {
		return errors.New("nothing was asked")
	}
	t.add(p.name(), "checks a second", n/time.Since(from).Seconds())
	t.add(p.name(), "µs of CPU a check", float64((cpu(pids)-used).Microseconds())/n)
	return nil
}
