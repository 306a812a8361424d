package server

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/proc"
)

// mortalFake is a supervisor that can die: then everything that it is asked
// fails as over a lost connection, and its journal's stream ends.
type mortalFake struct {
	*fakeSupervisor
	pid  int
	lost chan struct{}
	once sync.Once
	deaf bool // it dies under each command, before it is carried out
	// Of its program: the version, when it was started, and what it does when it
	// shall become another one.
	build   string
	began   time.Time
	upgrade func() error
}

func (m *mortalFake) die()                    { m.once.Do(func() { close(m.lost) }) }
func (m *mortalFake) Closed() <-chan struct{} { return m.lost }
func (m *mortalFake) Close() error            { m.die(); return nil }

func (m *mortalFake) err() error {
	if isClosed(m.lost) {
		return api.Errorf(api.CodeUnavailable, "the connection to the supervisor is lost")
	}
	return nil
}

func (m *mortalFake) Info(ctx context.Context) (control.Info, error) {
	info, err := m.fakeSupervisor.Info(ctx)
	info.PID, info.Build, info.StartedAt = m.pid, m.build, m.began
	return info, errors.Join(err, m.err())
}

func (m *mortalFake) Command(ctx context.Context, cmd control.Command) (control.Record, error) {
	if m.deaf {
		m.die()
	}
	if err := m.err(); err != nil {
		return control.Record{}, err
	}
	return m.fakeSupervisor.Command(ctx, cmd)
}

func (m *mortalFake) Upgrade(context.Context, string) error { return m.upgrade() }

func (m *mortalFake) Shutdown(ctx context.Context, d time.Duration) error {
	if m.deaf {
		m.die()
	}
	return m.err()
}

func (m *mortalFake) Follow(ctx context.Context, after uint64) iter.Seq2[[]control.Frame, error] {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-m.lost:
		case <-ctx.Done():
		}
	}()
	return func(yield func([]control.Frame, error) bool) {
		defer cancel()
		for frames, err := range m.fakeSupervisor.Follow(ctx, after) {
			if !yield(frames, err) {
				return
			}
		}
	}
}

// nursery brings forth supervisors over one journal.
type nursery struct {
	mu    sync.Mutex
	f     *fakeSupervisor
	alive *mortalFake
	pid   int
	deaf  bool        // of the next ones
	build string      // of the next ones
	stuck bool        // the next ones do not start
	tries []time.Time // of connect
	exit  map[int]*proc.Exit
}

func (n *nursery) connect(context.Context) (control.Supervisor, bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tries = append(n.tries, time.Now())
	if n.alive != nil && !isClosed(n.alive.lost) {
		return n.alive, false, nil
	}
	if n.stuck {
		return nil, false, errors.New("it ended before it was ready")
	}
	n.pid++
	n.alive = &mortalFake{fakeSupervisor: n.f, pid: n.pid, lost: make(chan struct{}), deaf: n.deaf, build: n.build, began: time.Now()}
	return n.alive, true, nil
}

func (n *nursery) lives() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.alive != nil && !isClosed(n.alive.lost)
}

func (n *nursery) exitOf(pid int) *proc.Exit { return n.exit[pid] }

func (n *nursery) check(context.Context, string, []string) (versions, error) {
	return versions{Build: "2", Control: control.Version}, nil
}

func (n *nursery) replace(_ int, path string) error {
	n.build = "2"
	if path == "/dies" {
		n.build = "1"
	}
	n.kill()
	return nil
}

func (n *nursery) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alive.die()
}

func (n *nursery) set(deaf, stuck bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaf, n.stuck = deaf, stuck
	n.alive.deaf = deaf
}

// gaps are the times between the tries since the last call.
func (n *nursery) gaps(since time.Time) []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []time.Duration
	for _, at := range n.tries {
		out = append(out, at.Sub(since))
		since = at
	}
	n.tries = nil
	return out
}

// guarded runs a test with a server whose supervisors come from a nursery.
func guarded(t *testing.T, test func(t *testing.T, s *Server, n *nursery, m *memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n, m := &nursery{f: newFake(), exit: map[int]*proc.Exit{}}, newMemory()
		n.f.add(running("web", 1), false)
		n.f.onCmd = func(control.Command) (control.Record, error) {
			return n.f.add(in("web", api.StateStopped, api.DesiredStopped), false), nil
		}
		events, err := event.Open(context.Background(), m)
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(Options{StateDir: "/state"})
		s.finder, s.events, s.config = n, events, &settled{}
		s.closers = append(s.closers, events.Close)
		ctx, cancel := context.WithCancel(context.Background())
		s.cancel = cancel
		if _, err := s.attach(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.loadNow(ctx); err != nil {
			t.Fatal(err)
		}
		s.background.Go(func() {
			defer s.end.readToEnd()
			s.keepAttached(ctx)
		})
		n.gaps(time.Now())
		test(t, s, n, m)
		end(t, s)
	})
}

// told are the data of the events of a type.
func (m *memory) told(t *testing.T, typ string) []map[string]any {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []map[string]any
	for _, e := range m.events {
		if e.Type == typ {
			data := map[string]any{}
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			out = append(out, data)
		}
	}
	return out
}

// A supervisor that was sound and dies is replaced at once, and how it ended is told.
func TestDeadSupervisorIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		n.exit[1] = &proc.Exit{Code: 137, Signal: "SIGKILL"}
		for range 20 {
			pass(time.Second)
			began := time.Now()
			n.kill()
			synctest.Wait()
			pass(lastEntries)
			synctest.Wait()
			if gaps := n.gaps(began); len(gaps) != 1 || gaps[0] > lastEntries {
				t.Fatalf("tries after %v", gaps)
			}
		}
		lost := m.told(t, "supervisor.lost")
		if len(lost) != 20 || lost[0]["pid"] != 1.0 || lost[0]["restarted"] != true || lost[0]["signal"] != "SIGKILL" || lost[0]["code"] != 137.0 {
			t.Errorf("%d events, the first %v", len(lost), lost[0])
		}
		if _, known := lost[1]["code"]; known {
			t.Errorf("an exit is invented: %v", lost[1])
		}
	})
}

// One that keeps dying at once is started ever more rarely; the API then says why
// at once, reads go on, and a try that succeeds ends it.
func TestBreakerOfTheSupervisor(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		pass(time.Second)
		n.set(false, true)
		began := time.Now()
		n.kill()
		pass(20 * time.Second)
		tries := len(n.gaps(began))
		if tries < 9 || tries > 12 {
			t.Errorf("%d tries until the breaker is open", tries)
		}
		if open := m.told(t, "supervisor.breaker_open"); len(open) != 1 || open[0]["deaths"] != 12.0 || open[0]["retry_ms"] != 30000.0 {
			t.Errorf("told %v", open)
		}
		began = time.Now()
		_, err := s.Command(context.Background(), "web", api.CommandRequest{Verb: "stop"})
		if api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "died 12 times") || !strings.Contains(err.Error(), "live on") || time.Since(began) > 0 {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if p, err := s.Process(context.Background(), "web"); err != nil || p.State != api.StateRunning {
			t.Errorf("a read: %+v, %v", p, err)
		}
		if info, err := s.Info(context.Background()); err != nil || info.SupervisorPID != 0 || !strings.Contains(info.SupervisorAway, "died 12 times") {
			t.Errorf("info: %+v, %v", info, err)
		}
		findings, err := s.Doctor(context.Background())
		if err != nil || !slices.ContainsFunc(findings, func(f api.Finding) bool { return f.Level == "error" && strings.Contains(f.Message, "died 12 times") }) {
			t.Errorf("doctor: %+v, %v", findings, err)
		}
		n.set(false, false)
		pass(30 * time.Second)
		if _, err := s.Command(context.Background(), "web", api.CommandRequest{Verb: "stop"}); err != nil {
			t.Errorf("after it is back: %v", err)
		}
		if lost := m.told(t, "supervisor.lost"); len(lost) != 1 {
			t.Errorf("told %v", lost)
		}
	})
}

// What is under way when the supervisor dies waits for the next one and is asked
// again, but for what must not be done twice.
func TestCommandsOverADeath(t *testing.T) {
	t.Parallel()
	for verb, again := range map[string]bool{"stop": true, "start": true, "kill": true, "reset": true, "restart": false, "signal": false} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
				pass(time.Second)
				n.alive.deaf = true // only this one
				_, err := s.Command(context.Background(), "web", api.CommandRequest{Verb: verb})
				switch {
				case again && err != nil:
					t.Errorf("%v", err)
				case !again && (api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "nobody can tell")):
					t.Errorf("%v", err)
				}
				pass(time.Second)
				n.mu.Lock()
				defer n.mu.Unlock()
				if n.pid != 2 {
					t.Errorf("%d supervisors", n.pid)
				}
			})
		})
	}
}

// A request waits for a supervisor that is away, but not for ever.
func TestRequestsWaitForTheSupervisor(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		pass(time.Second)
		n.set(false, true)
		n.kill()
		synctest.Wait()
		began := time.Now()
		_, err := s.Reload(context.Background())
		if api.CodeOf(err) != api.CodeUnavailable || time.Since(began) < time.Second || time.Since(began) > awayPatience {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// The supervisor that dies while it ends everything is replaced, and the next one
// goes on with the end.
func TestShutdownOverADeath(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		pass(time.Second)
		n.alive.deaf = true
		if err := s.Stop(context.Background(), time.Minute); err != nil {
			t.Errorf("%v", err)
		}
		if n.pid != 2 || !isClosed(s.Stopped()) {
			t.Errorf("%d supervisors, stopped: %v", n.pid, isClosed(s.Stopped()))
		}
		n.kill() // the end of an end is no death
		pass(time.Minute)
		if n.pid != 2 {
			t.Errorf("%d supervisors after the end", n.pid)
		}
	})
}

// The supervisor dies when nothing lives any more, and before it has written that
// the boot is over: the next one does.
func TestShutdownOverADeathBeforeTheLastWord(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		n.f.add(in("web", api.StateStopped, api.DesiredStopped), false)
		pass(time.Second)
		n.alive.deaf = true
		if err := s.Stop(context.Background(), time.Minute); err != nil {
			t.Errorf("%v", err)
		}
		if n.pid != 2 {
			t.Errorf("%d supervisors", n.pid)
		}
	})
}

// A supervisor that dies when all is ended takes its last events with it until the
// next one comes: nobody waits for them.
func TestNoWaitForTheEventsOfTheDead(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		n.f.add(in("web", api.StateStopped, api.DesiredStopped), false)
		pass(time.Second)
		n.f.mu.Lock()
		n.f.lastSeq = 100
		n.f.mu.Unlock()
		stopped, began := make(chan error, 1), time.Now()
		go func() { stopped <- s.Stop(context.Background(), time.Minute) }()
		synctest.Wait()
		n.kill()
		if err := <-stopped; err == nil || time.Since(began) >= lastEvents {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// A lost connection is no death: the same supervisor is attached again, and
// nothing is told.
func TestLostConnectionIsNoDeath(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		for range 20 {
			n.mu.Lock()
			old := n.alive
			n.alive = &mortalFake{fakeSupervisor: n.f, pid: old.pid, lost: make(chan struct{})}
			n.mu.Unlock()
			old.die()
			pass(time.Second)
		}
		if lost := m.told(t, "supervisor.lost"); len(lost) != 0 || n.pid != 1 {
			t.Errorf("told %v; %d supervisors", lost, n.pid)
		}
		if _, err := s.Command(context.Background(), "web", api.CommandRequest{Verb: "stop"}); err != nil {
			t.Error(err)
		}
	})
}
