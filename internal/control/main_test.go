package control

import (
	"context"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/sockpath"
	"github.com/perdure/perdure/internal/supervise"
)

// helperEnv makes the test binary dial a socket as another user: "dial".
const helperEnv = "PERDURE_CONTROL_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "dial" {
		_, err := Dial(context.Background(), os.Args[1])
		fmt.Println(api.CodeOf(err), err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// fake is a Supervisor whose answers can be foreseen.
type fake struct {
	mu       sync.Mutex
	acked    uint64
	blocked  chan struct{} // gets a value when a blocking call has begun
	canceled chan struct{} // gets a value when its context has ended
	release  chan struct{} // closed to let blocking calls go on
	yielded  chan uint64   // gets the number of each entry that Follow hands out, if not nil
	hugeSize int           // bytes of each followed entry
}

func newFake() *fake {
	return &fake{blocked: make(chan struct{}, 100), canceled: make(chan struct{}, 100), release: make(chan struct{})}
}

func (f *fake) Info(context.Context) (Info, error) {
	return Info{Version: Version, Build: "test", PID: 42, LastSeq: 7, Notes: []string{"a note"}}, nil
}

func (f *fake) Apply(_ context.Context, req ApplyRequest) (ApplyResult, error) {
	if len(req.Definitions) == 0 {
		return ApplyResult{}, &api.Error{Code: api.CodeInvalid, Message: "cannot apply nothing", Field: "definitions"}
	}
	var res ApplyResult
	for _, d := range req.Definitions {
		res.Added = append(res.Added, d.Name)
	}
	return res, nil
}

func (f *fake) Command(ctx context.Context, cmd Command) (Record, error) {
	switch cmd.Verb {
	case "block":
		f.blocked <- struct{}{}
		select {
		case <-ctx.Done():
			f.canceled <- struct{}{}
			return Record{}, ctx.Err()
		case <-f.release:
		}
	case "stop":
		return Record{}, fmt.Errorf("cannot stop %q: %w", cmd.Name, api.Errorf(api.CodeNotFound, "no such process"))
	}
	return Record{Name: cmd.Name, State: supervise.State{State: api.StateRunning, PID: 9}}, nil
}

func (f *fake) List(context.Context) ([]Record, uint64, error) {
	return []Record{{Name: "a", Definition: &api.Definition{Name: "a", Command: api.Command{"true"}}}, {Name: "b"}}, 12, nil
}

func (f *fake) Follow(ctx context.Context, after uint64) iter.Seq2[[]Frame, error] {
	return func(yield func([]Frame, error) bool) {
		if after == 1 {
			if !yield(nil, fmt.Errorf("reading: %w", &journal.GapError{First: 100})) {
				return
			}
			after = 99
		}
		if after == 666 {
			yield(nil, api.Errorf(api.CodeInternal, "cannot read the journal"))
			return
		}
		payload := []byte(`{"events":[{"type":"x","data":"` + filled(f.hugeSize) + `"}]}`)
		for seq := after + 1; ctx.Err() == nil; seq++ {
			if f.yielded != nil {
				select {
				case f.yielded <- seq:
				case <-ctx.Done():
					return
				}
			}
			if !yield([]Frame{{Seq: seq, Time: time.Unix(int64(seq), 5), Key: "process/x", Payload: payload}}, nil) {
				return
			}
			if f.hugeSize == 0 && seq >= after+5 {
				<-ctx.Done()
			}
		}
	}
}

func filled(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'x'
	}
	return string(b)
}

func (f *fake) Ack(_ context.Context, seq uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acked = seq
	return nil
}

func (f *fake) Guard(_ context.Context, cmd ServerCommand) error {
	if len(cmd.Argv) == 0 {
		return nil
	}
	return api.Errorf(api.CodeConflict, "%q in %s with %q", cmd.Argv, cmd.Dir, cmd.Env)
}

func (f *fake) Upgrade(_ context.Context, path string) error {
	if path == "/bin/perdure" {
		return nil
	}
	return api.Errorf(api.CodeFailed, "cannot become %s", path)
}

func (f *fake) Shutdown(_ context.Context, timeout time.Duration) error {
	if timeout != 1500*time.Millisecond {
		return api.Errorf(api.CodeInvalid, "timeout %s", timeout)
	}
	return nil
}

// serve runs Serve over f until the test ends; stop ends it earlier.
func serve(t *testing.T, f Supervisor, o ServeOptions) (path string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s.sock")
	return path, serveAt(t, path, f, o)
}

func serveAt(t *testing.T, path string, f Supervisor, o ServeOptions) (stop func()) {
	t.Helper()
	l, err := sockpath.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func rawDial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := sockpath.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
