package httpapi

import (
	"context"
	"iter"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/client"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store/sqlite"
)

// fakeBackend has one process, "web", and the real event log.
type fakeBackend struct {
	log *event.Log

	mu       sync.Mutex
	commands []api.CommandRequest
	defined  []api.Definition
	shutdown time.Duration
	logQuery api.LogQuery
}

func (b *fakeBackend) Info(context.Context) (api.Info, error) {
	return api.Info{Version: "test", PID: 7}, nil
}

func (b *fakeBackend) Processes(ctx context.Context, globs []string) ([]api.Process, error) {
	if len(globs) > 0 && globs[0] == "panic" {
		panic("as asked")
	}
	for _, g := range globs {
		if _, err := b.Process(ctx, g); err != nil {
			return nil, err
		}
	}
	return []api.Process{{Name: "web", State: api.StateRunning, Uptime: api.Duration(time.Minute)}}, nil
}

func (b *fakeBackend) Process(_ context.Context, name string) (api.Process, error) {
	if name != "web" {
		return api.Process{}, api.Errorf(api.CodeNotFound, "cannot find a process named %s", name)
	}
	return api.Process{Name: "web", State: api.StateRunning}, nil
}

func (b *fakeBackend) Definition(context.Context, string) (api.Definition, error) {
	grace := api.Duration(3 * time.Second)
	return api.Definition{Name: "web", Command: api.Command{"sleep", "1"}, Stop: api.StopPolicy{Grace: &grace}}, nil
}

func (b *fakeBackend) Define(_ context.Context, def api.Definition) (api.Process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.defined = append(b.defined, def)
	return api.Process{Name: def.Name}, nil
}

func (b *fakeBackend) Remove(ctx context.Context, name string) error {
	_, err := b.Process(ctx, name)
	return err
}

func (b *fakeBackend) Command(_ context.Context, name string, req api.CommandRequest) (api.Process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.commands = append(b.commands, req)
	return api.Process{Name: name}, nil
}

func (b *fakeBackend) Wait(ctx context.Context, name string, req api.WaitRequest) (api.Process, error) {
	<-ctx.Done()
	return api.Process{}, api.Errorf(api.CodeTimeout, "cannot see %s %s: still starting", name, req.For)
}

// Send replies with what was sent.
func (b *fakeBackend) Send(_ context.Context, name string, req api.SendRequest) (api.SendResult, error) {
	if name != "web" {
		return api.SendResult{}, api.Errorf(api.CodeNotFound, "cannot find a process named %s", name)
	}
	return api.SendResult{Reply: req.Data}, nil
}

func (b *fakeBackend) Events(ctx context.Context, q api.EventQuery) (api.EventPage, error) {
	return b.log.Query(ctx, q)
}

func (b *fakeBackend) FollowEvents(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error] {
	return b.log.Follow(ctx, q)
}

func (b *fakeBackend) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogLine, error] {
	b.mu.Lock()
	b.logQuery = q
	b.mu.Unlock()
	return func(yield func(api.LogLine, error) bool) {
		for _, n := range q.Names {
			if n == "nobody" {
				yield(api.LogLine{}, api.Errorf(api.CodeNotFound, "cannot find a process named nobody"))
				return
			}
		}
		for i := range max(q.Lines, 0) {
			if !yield(api.LogLine{Name: "web", Stream: "stdout", Text: "line " + strconv.Itoa(i)}, nil) {
				return
			}
		}
		switch {
		case q.Stream == "stderr":
			yield(api.LogLine{}, api.Errorf(api.CodeUnavailable, "cannot read on: the file is gone"))
		case q.Follow:
			<-ctx.Done()
		}
	}
}

func (b *fakeBackend) Reload(context.Context) (api.ReloadResult, error) {
	return api.ReloadResult{Added: []string{"db"}}, nil
}

func (b *fakeBackend) Config(context.Context) (api.Config, error) {
	return api.Config{Files: []string{"perdure.yaml"}}, nil
}

func (b *fakeBackend) Doctor(context.Context) ([]api.Finding, error) { return nil, nil }

func (b *fakeBackend) Upgrade(_ context.Context, req api.UpgradeRequest) (api.UpgradeResult, error) {
	return api.UpgradeResult{From: "1", To: req.Binary, SupervisorPID: 7, ServerPID: 8}, nil
}

func (b *fakeBackend) Shutdown(_ context.Context, d time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shutdown = d
	return nil
}

// newBackend returns a backend with an event log on SQLite.
func newBackend(t testing.TB) *fakeBackend {
	t.Helper()
	s, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "p.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := event.Open(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return &fakeBackend{log: l}
}

// serve serves a backend on a listener and returns what ends it.
func serve(t testing.TB, b Backend, l net.Listener, o Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, New(b, o), ServeOptions{Drain: 100 * time.Millisecond}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newClient(t testing.TB, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// onSocket serves a backend on a Unix socket and returns a client of it.
func onSocket(t testing.TB, b Backend) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	serve(t, b, listen(t, "unix", path), Options{})
	return newClient(t, client.Options{Socket: path})
}

const token = "sixteen characters at least"

// onTCP serves a backend on TCP and returns its URL.
func onTCP(t testing.TB, b Backend, o Options) string {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, b, l, o)
	return "http://" + l.Addr().String()
}

func mustAppend(t testing.TB, l *event.Log, n int, typ string) {
	t.Helper()
	events := make([]api.Event, n)
	for i := range events {
		events[i] = api.Event{Type: typ, Name: "web"}
	}
	if _, err := l.Append(context.Background(), events...); err != nil {
		t.Fatal(err)
	}
}
