package job_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/job"
	"github.com/perdure/perdure/internal/store"
	"github.com/perdure/perdure/internal/store/postgres"
	"github.com/perdure/perdure/internal/store/sqlite"
	"github.com/perdure/perdure/internal/store/storetest"
)

// nodeEnv makes the test binary a node that works off jobs until it is killed. It
// is the node's name, then the file, or the URL and the schema.
const nodeEnv = "PERDURE_TEST_JOB_NODE"

// runNode is such a node.
func runNode(what string) error {
	ctx := context.Background()
	parts := strings.Split(what, "\n")
	s, err := openFor(ctx, parts[1:])
	if err != nil {
		return err
	}
	e := job.New(s, job.Options{Node: parts[0], Lease: time.Second, Workers: 8, Poll: 100 * time.Millisecond})
	var mu sync.Mutex
	err = registerEffect(e, s, func(id int64) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(id)
	})
	if err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func openFor(ctx context.Context, where []string) (storetest.Store, error) {
	if len(where) == 1 {
		return sqlite.Open(ctx, where[0], sqlite.Options{})
	}
	return postgres.Open(ctx, postgres.Options{URL: where[0], Schema: where[1]})
}

// registerEffect has a handler whose effect is a row that counts how often it
// happened, in one transaction with the job's end.
func registerEffect(e *job.Engine, s store.Store, done func(int64)) error {
	return job.Register(e, "effect", func(ctx context.Context, r *job.Run, _ none) (none, error) {
		err := s.Update(ctx, func(tx store.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO counter (name, next) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET next = counter.next + 1`,
				fmt.Sprint("effect/", r.ID()))
			if err != nil {
				return err
			}
			return r.Finish(ctx, tx, nil)
		})
		if err == nil {
			done(r.ID())
		}
		return none{}, err
	})
}

// TestKilledNodesLoseAndDoubleNothing kills nodes with SIGKILL in the middle of
// their work, again and again: each job's effect happens once.
func TestKilledNodesLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		killNodes(t, 1, []string{filepath.Join(t.TempDir(), "p.db")})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url, schema := server.Schema(t)
		killNodes(t, 3, []string{url, schema})
	})
}

func killNodes(t *testing.T, nodes int, where []string) {
	t.Helper()
	const jobs = 400
	s, err := openFor(t.Context(), where)
	must(t, err)
	e := job.New(s, job.Options{})
	must(t, registerEffect(e, s, nil))
	specs := make([]job.Spec, jobs)
	for i := range specs {
		specs[i] = job.Spec{Name: "effect", MaxAttempts: 1000, Backoff: job.Backoff{Initial: time.Millisecond}}
	}
	_, err = e.Enqueue(t.Context(), specs...)
	must(t, err)
	must(t, s.Close()) // a file has one owner at a time
	told := make(chan string, jobs)
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for i := range nodes {
		wg.Go(func() { keepNode(ctx, t, fmt.Sprint("n", i), where, 15+7*i, told) })
	}
	seen := map[string]bool{}
	for len(seen) < jobs {
		id := <-told
		if seen[id] {
			t.Errorf("job %s was finished twice", id)
		}
		seen[id] = true
		// What was committed and never told of, because its node was killed in
		// between, is counted in the database at the end.
		if len(seen) >= jobs*9/10 {
			break
		}
	}
	stop()
	wg.Wait()
	finishAll(t, where, jobs)
}

// keepNode runs a node and kills it after some jobs, until ctx ends.
func keepNode(ctx context.Context, t *testing.T, name string, where []string, jobs int, told chan<- string) {
	for round := 0; ctx.Err() == nil; round++ {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), nodeEnv+"="+strings.Join(append([]string{name}, where...), "\n"))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Error(err)
			return
		}
		if err := cmd.Start(); err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		n := 0
		for lines := bufio.NewScanner(out); lines.Scan(); n++ {
			select {
			case told <- lines.Text():
			case <-ctx.Done():
			}
			if n == jobs+round%5 {
				_ = cmd.Process.Kill() // it may have ended
			}
		}
		_ = cmd.Wait() // it was killed
	}
}

// finishAll lets a last node work off the rest and counts the effects.
func finishAll(t *testing.T, where []string, jobs int) {
	t.Helper()
	s, err := openFor(t.Context(), where)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	w := open(t, s, job.Options{Node: "last", Lease: time.Second, Poll: 20 * time.Millisecond})
	must(t, registerEffect(w.Engine, s, func(int64) {}))
	must(t, w.Start(t.Context()))
	defer func() { must(t, w.Stop(context.Background())) }()
	for {
		var completed, effects, most int
		must(t, s.View(t.Context(), func(r store.Reader) error {
			return r.Row(t.Context(), `SELECT (SELECT count(*) FROM job WHERE state = 'completed'), (SELECT count(*) FROM counter WHERE name LIKE 'effect/%'),
				(SELECT coalesce(max(next), 0) FROM counter WHERE name LIKE 'effect/%')`).Scan(&completed, &effects, &most)
		}))
		if most > 1 {
			t.Fatalf("an effect happened %d times", most)
		}
		if completed == jobs {
			if effects != jobs {
				t.Errorf("%d jobs have %d effects", jobs, effects)
			}
			return
		}
		select {
		case <-w.wake:
		case <-time.After(100 * time.Millisecond):
		}
	}
}
