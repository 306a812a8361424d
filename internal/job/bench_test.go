package job_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/job"
	"github.com/perdure/perdure/internal/store/storetest"
)

// benchWork measures how many no-op jobs a node works off in a second: each is
// claimed, run and completed, with an event for each step.
func benchWork(b *testing.B, s storetest.Store) {
	w := job.New(s, job.Options{Workers: 500})
	var left atomic.Int64
	done := make(chan struct{})
	must(b, job.Register(w, "noop", func(context.Context, *job.Run, none) (none, error) {
		if left.Add(-1) == 0 {
			close(done)
		}
		return none{}, nil
	}))
	left.Store(int64(b.N))
	specs := make([]job.Spec, 1000)
	for i := range specs {
		specs[i] = job.Spec{Name: "noop"}
	}
	for n := b.N; n > 0; n -= len(specs) {
		_, err := w.Enqueue(context.Background(), specs[:min(n, len(specs))]...)
		must(b, err)
	}
	b.ResetTimer()
	must(b, w.Start(context.Background()))
	<-done
	must(b, w.Stop(context.Background())) // when all is written down
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// benchLatency measures the time from the call of Enqueue to the handler's start on
// an idle node.
func benchLatency(b *testing.B, s storetest.Store) {
	w := job.New(s, job.Options{})
	started := make(chan time.Time)
	must(b, job.Register(w, "noop", func(context.Context, *job.Run, none) (none, error) {
		started <- time.Now()
		return none{}, nil
	}))
	must(b, w.Start(context.Background()))
	var all []time.Duration
	for b.Loop() {
		began := time.Now()
		_, err := w.Enqueue(context.Background(), job.Spec{Name: "noop"})
		must(b, err)
		all = append(all, (<-started).Sub(began))
	}
	must(b, w.Stop(context.Background()))
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// benchEnqueue measures 16 callers that put one job each, again and again.
func benchEnqueue(b *testing.B, s storetest.Store) {
	w := job.New(s, job.Options{})
	must(b, job.Register(w, "noop", func(context.Context, *job.Run, none) (none, error) { return none{}, nil }))
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Enqueue(context.Background(), job.Spec{Name: "noop"}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

func BenchmarkWork(b *testing.B)    { onEach(b, benchWork) }
func BenchmarkLatency(b *testing.B) { onEach(b, benchLatency) }
func BenchmarkEnqueue(b *testing.B) { onEach(b, benchEnqueue) }

func onEach(b *testing.B, f func(*testing.B, storetest.Store)) {
	b.Run("sqlite", func(b *testing.B) { f(b, newSQLite(b)) })
	b.Run("postgres", func(b *testing.B) { f(b, newPostgres(b)) })
}
