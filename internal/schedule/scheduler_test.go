package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/job"
	"github.com/perdure/perdure/internal/store"
	"github.com/perdure/perdure/internal/store/postgres"
	"github.com/perdure/perdure/internal/store/postgrestest"
	"github.com/perdure/perdure/internal/store/sqlite"
	"github.com/perdure/perdure/internal/store/storetest"
)

var server postgrestest.Server

func TestMain(m *testing.M) {
	code := m.Run()
	server.Stop()
	os.Exit(code)
}

// onBoth runs a test over each store.
func onBoth(t *testing.T, test func(*testing.T, storetest.Store)) {
	open := map[string]func(*testing.T) (storetest.Store, error){
		"sqlite": func(t *testing.T) (storetest.Store, error) {
			return sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "p.db"), sqlite.Options{})
		},
		"postgres": func(t *testing.T) (storetest.Store, error) {
			url, schema := server.Schema(t)
			return postgres.Open(context.Background(), postgres.Options{URL: url, Schema: schema})
		},
	}
	for name, f := range open {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := f(t)
			must(t, err)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, s)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// engine returns an engine, not started, with the handler "x", and a scheduler over it.
func engine(t *testing.T, s store.Store) (*job.Engine, *Scheduler) {
	t.Helper()
	e := job.New(s, job.Options{})
	must(t, job.Register(e, "x", func(context.Context, *job.Run, struct{}) (struct{}, error) { return struct{}{}, nil }))
	return e, New(s, e, quiet())
}

// column reads numbers.
func column(t *testing.T, s store.Store, query string, args ...any) (out []int64) {
	t.Helper()
	must(t, s.View(t.Context(), func(r store.Reader) error {
		out = nil
		rows, err := r.Rows(t.Context(), query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				return err
			}
			out = append(out, n)
		}
		return rows.Err()
	}))
	return out
}

// TestEachTickFiresOnce has three nodes look at the same moments at once: each tick
// puts one job.
func TestEachTickFiresOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s storetest.Store) {
		_, first := engine(t, s)
		must(t, first.Set(t.Context(), Definition{Name: "each", Cron: "*/10 * * * * *", Overlap: Allow, Job: job.Spec{Name: "x"}}))
		nodes := []*Scheduler{first}
		for range 2 {
			_, x := engine(t, s)
			nodes = append(nodes, x)
		}
		x, err := first.Get(t.Context(), "each")
		must(t, err)
		var want []int64
		for i := range 30 {
			tick := x.Next.Add(time.Duration(i) * 10 * time.Second)
			want = append(want, tick.UnixNano())
			var wg sync.WaitGroup
			for _, n := range nodes {
				wg.Go(func() {
					if _, err := n.look(t.Context(), tick.Add(time.Millisecond)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		if diff := cmp.Diff(want, column(t, s, `SELECT due_at FROM job ORDER BY due_at`)); diff != "" {
			t.Errorf("jobs are due at (-want +got):\n%s", diff)
		}
	})
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s storetest.Store) {
		_, x := engine(t, s)
		// Nothing runs: the first tick's job waits, or is marked as running by hand.
		for _, c := range []struct {
			overlap Overlap
			running bool
			want    string
		}{
			{QueueOne, false, "available"}, {QueueOne, true, "running available"}, {Skip, false, "available"}, {Skip, true, "running"},
			{Allow, true, "running available available"}, {Restart, false, "cancelled cancelled available"}, {Restart, true, "running+ cancelled available"},
		} {
			name := fmt.Sprint(c.overlap, c.running)
			must(t, x.Set(t.Context(), Definition{Name: name, Cron: "@daily", Overlap: c.overlap, Job: job.Spec{Name: "x", Tags: []string{name}}}))
			for i := range 3 {
				_, err := x.Trigger(t.Context(), name)
				must(t, err)
				if i == 0 && c.running {
					must(t, s.Update(t.Context(), func(tx store.Tx) error {
						_, err := tx.Exec(t.Context(), `UPDATE job SET state = 'running' WHERE tags = $1`, ","+name+",")
						return err
					}))
				}
			}
			var got []string
			must(t, s.View(t.Context(), func(r store.Reader) error {
				rows, err := r.Rows(t.Context(), `SELECT state, cancel_asked FROM job WHERE tags = $1 ORDER BY id`, ","+name+",")
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
					var state string
					var asked int
					if err := rows.Scan(&state, &asked); err != nil {
						return err
					}
					got = append(got, state+strings.Repeat("+", asked))
				}
				return rows.Err()
			}))
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

func TestCatchUp(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		catchUp CatchUp
		max     int
		down    time.Duration
		want    int // ticks
	}{
		{CatchUpLast, 0, 0, 1}, {CatchUpLast, 0, 3*time.Hour + 30*time.Minute, 1}, {CatchUpLast, 0, 20 * 365 * 24 * time.Hour, 1},
		{CatchUpNone, 0, 0, 1}, {CatchUpNone, 0, 30 * time.Second, 1}, {CatchUpNone, 0, 3*time.Hour + 30*time.Minute, 0},
		{CatchUpNone, 0, 3 * time.Hour, 1}, // the tick of this moment
		{CatchUpAll, 0, 3*time.Hour + 30*time.Minute, 4}, {CatchUpAll, 2, 3*time.Hour + 30*time.Minute, 2}, {CatchUpAll, 0, 300 * time.Hour, 100},
	} {
		s, err := Definition{Name: "n", Cron: "0 * * * *", CatchUp: c.catchUp, CatchUpMax: c.max}.check()
		must(t, err)
		s.Next = start
		now := start.Add(c.down)
		ticks, next := s.due(now)
		if len(ticks) != c.want || !next.After(now) || next.Sub(now) > time.Hour {
			t.Errorf("%s (%d) after %v: %d ticks, next %v; want %d", c.catchUp, c.max, c.down, len(ticks), next, c.want)
		}
		if newest := now.Truncate(time.Hour); len(ticks) > 0 && !ticks[len(ticks)-1].Equal(newest) {
			t.Errorf("%s after %v: the newest tick is %v, want %v", c.catchUp, c.down, ticks[len(ticks)-1], newest)
		}
	}
}

func TestJitterIsTheSameForATick(t *testing.T) {
	t.Parallel()
	s, err := Definition{Name: "n", Cron: "@daily", Jitter: time.Hour}.check()
	must(t, err)
	seen := map[time.Duration]bool{}
	for i := range 50 {
		tick := time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC)
		d := s.at(tick).Sub(tick)
		if d < 0 || d >= time.Hour || s.at(tick.Local()).Sub(tick) != d {
			t.Fatalf("delay %v", d)
		}
		seen[d] = true
	}
	if len(seen) < 40 {
		t.Errorf("only %d different delays of 50", len(seen))
	}
}

func TestPauseAndBadInput(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s storetest.Store) {
		_, x := engine(t, s)
		d := Definition{Name: "n", Cron: "* * * * * *", Overlap: Allow, Job: job.Spec{Name: "x"}}
		must(t, x.Set(t.Context(), d))
		must(t, x.Pause(t.Context(), "n", true))
		_, err := x.look(t.Context(), time.Now().Add(time.Hour))
		must(t, err)
		if got := column(t, s, `SELECT id FROM job`); len(got) != 0 {
			t.Errorf("a paused schedule put %d jobs", len(got))
		}
		must(t, x.Pause(t.Context(), "n", false))
		_, err = x.look(t.Context(), time.Now().Add(2*time.Second))
		must(t, err)
		if got := column(t, s, `SELECT id FROM job`); len(got) != 1 {
			t.Errorf("after the pause it put %d jobs, want 1", len(got))
		}
		must(t, x.Remove(t.Context(), "n"))
		if _, err := x.Get(t.Context(), "n"); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("after its removal: %v", err)
		}
		for field, change := range map[string]func(*Definition){
			"cron":         func(d *Definition) { d.Cron = "61 * * * *" },
			"zone":         func(d *Definition) { d.Zone = "Europe/Atlantis" },
			"overlap":      func(d *Definition) { d.Overlap = "maybe" },
			"catch_up":     func(d *Definition) { d.CatchUp = "some" },
			"catch_up_max": func(d *Definition) { d.CatchUpMax = 5000 },
			"jitter":       func(d *Definition) { d.Jitter = -1 },
			"name":         func(d *Definition) { d.Name = "" },
			"no handler":   func(d *Definition) { d.Job.Name = "unknown" },
		} {
			bad := d
			change(&bad)
			if err := x.Set(t.Context(), bad); err == nil || !strings.HasPrefix(err.Error(), field) {
				t.Errorf("%v, want %s", err, field)
			}
		}
	})
}

// TestScheduleRuns lets a schedule fire by the real clock.
func TestScheduleRuns(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s storetest.Store) {
		e := job.New(s, job.Options{})
		ran := make(chan struct{}, 10)
		must(t, job.Register(e, "x", func(context.Context, *job.Run, struct{}) (struct{}, error) {
			ran <- struct{}{}
			return struct{}{}, nil
		}))
		x := New(s, e, quiet())
		must(t, e.Start(t.Context()))
		must(t, x.Start(t.Context()))
		must(t, x.Set(t.Context(), Definition{Name: "n", Cron: "* * * * * *", Job: job.Spec{Name: "x"}}))
		<-ran
		<-ran
		x.Stop()
		must(t, e.Stop(context.Background()))
	})
}
