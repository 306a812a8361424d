package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"os"
	"path"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/api"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == signalTeller {
		tellSignals()
	}
	if os.Getenv("PERDURE_TEST_MAIN") != "" { // this test binary as the program itself
		os.Exit(Main(os.Args[1:], newBench().seams))
	}
	goleak.VerifyTestMain(m)
}

// fake is a running Perdure without processes.
type fake struct {
	mu        sync.Mutex
	list      []api.Process
	commands  []string
	refuse    map[string]error // by name
	away      error            // every question fails with it
	events    []api.Event
	lines     []api.LogLine
	follow    chan api.Event // further events
	moreLines chan api.LogLine
	reload    api.ReloadResult
	config    api.Config
	findings  []api.Finding
	troubles  []api.Trouble
	shutdowns []time.Duration
	block     chan struct{} // Command waits for it, if set
}

func (f *fake) Info(context.Context) (api.Info, error) {
	return api.Info{Version: "v0", PID: 1, SupervisorPID: 2, Troubles: f.troubles}, f.away
}

func (f *fake) Processes(_ context.Context, globs ...string) ([]api.Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil || len(globs) == 0 {
		return f.list, f.away
	}
	var out []api.Process
	for _, p := range f.list {
		for _, g := range globs {
			if ok, err := path.Match(g, p.Name); err == nil && ok {
				out = append(out, p)
			}
		}
	}
	if len(out) == 0 && !isGlob(globs[0]) {
		return nil, api.Errorf(api.CodeNotFound, "cannot find a process %q", globs[0])
	}
	return out, nil
}

func (f *fake) Process(ctx context.Context, name string) (api.Process, error) {
	list, err := f.Processes(ctx, name)
	if err != nil {
		return api.Process{}, err
	}
	return list[0], nil
}

func (f *fake) Definition(context.Context, string) (api.Definition, error) {
	return api.Definition{Command: api.Command{"true"}}, f.away
}

func (f *fake) Command(ctx context.Context, name string, req api.CommandRequest) (api.Process, error) {
	f.mu.Lock()
	line := req.Verb + " " + name + " " + req.Signal
	if req.Wait {
		line += " wait " + req.Timeout.String()
	}
	f.commands = append(f.commands, line)
	err, block := f.refuse[name], f.block
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return api.Process{}, ctx.Err()
		}
	}
	if err != nil {
		return api.Process{}, err
	}
	return f.Process(ctx, name)
}

func (f *fake) Wait(ctx context.Context, name string, _ api.WaitRequest) (api.Process, error) {
	if err := f.refuse[name]; err != nil {
		return api.Process{}, err
	}
	return f.Process(ctx, name)
}

// Send replies with what it was given.
func (f *fake) Send(ctx context.Context, name string, req api.SendRequest) (api.SendResult, error) {
	if _, err := f.Process(ctx, name); err != nil {
		return api.SendResult{}, err
	}
	if req.Data == nil {
		return api.SendResult{Reply: json.RawMessage("null")}, nil
	}
	return api.SendResult{Reply: req.Data}, nil
}

func (f *fake) Events(_ context.Context, q api.EventQuery) (api.EventPage, error) {
	page := api.EventPage{LastSeq: uint64(len(f.events)), FirstSeq: 1}
	for _, e := range f.events {
		if e.Seq > q.After && len(page.Events) < 2 {
			page.Events = append(page.Events, e)
		}
	}
	page.More = len(page.Events) == 2 && page.Events[1].Seq < page.LastSeq
	return page, f.away
}

func (f *fake) FollowEvents(ctx context.Context, _ api.EventQuery) iter.Seq2[api.Event, error] {
	return stream(ctx, f.events, f.follow)
}

func (f *fake) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogLine, error] {
	if !q.Follow {
		return stream(ctx, f.lines, nil)
	}
	return stream(ctx, f.lines, f.moreLines)
}

// stream yields what is there, then what comes until ctx ends; a nil channel
// ends it at once.
func stream[T any](ctx context.Context, list []T, more chan T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
		for more != nil {
			select {
			case v, open := <-more:
				if !open || !yield(v, nil) {
					return
				}
			case <-ctx.Done():
				var zero T
				yield(zero, ctx.Err())
				return
			}
		}
	}
}

func (f *fake) Reload(context.Context) (api.ReloadResult, error) { return f.reload, f.away }
func (f *fake) Upgrade(context.Context, api.UpgradeRequest) (api.UpgradeResult, error) {
	return api.UpgradeResult{From: "v0", To: "v1", SupervisorPID: 2, ServerPID: 1}, f.away
}
func (f *fake) Config(context.Context) (api.Config, error)    { return f.config, f.away }
func (f *fake) Doctor(context.Context) ([]api.Finding, error) { return f.findings, f.away }
func (f *fake) Shutdown(_ context.Context, d time.Duration) error {
	f.shutdowns = append(f.shutdowns, d)
	return f.away
}

// bench is one run of a command against a fake.
type bench struct {
	*fake
	seams   Seams
	signals chan os.Signal
	env     map[string]string
	in      io.Writer // in place of out, if set
}

func newBench() *bench {
	b := &bench{fake: &fake{list: []api.Process{
		{Name: "db", State: api.StateRunning, Ready: true, PID: 10, Detail: "running"},
		{Name: "web", State: api.StateRunning, Ready: true, PID: 11, Detail: "running"},
		{Name: "worker-1", State: api.StateFailed, Detail: "breaker open after 5 failures in 1m0s"},
	}}, signals: make(chan os.Signal, 4), env: map[string]string{}}
	b.seams = Seams{
		Version:    "v1.2.3",
		Dial:       func(DialOptions) (Client, error) { return b.fake, nil },
		StateDir:   func(_ []string, dir, flag string) (string, error) { return first(flag, dir+"/.perdure"), nil },
		SocketPath: func(dir string) string { return dir + "/api.sock" },
		Running:    func(string) (int, int) { return 0, 0 },
		Find:       func(string) (string, error) { return "/x/perdure.yaml", nil },
		LoadConfig: func([]string) (api.Config, []api.Finding, error) { return b.config, b.findings, nil },
		Schema:     func() []byte { return []byte("{}") },
		Presets:    func() []string { return []string{"default", "pidnap"} },
		Preset: func(name string) (api.Definition, error) {
			if name != "pidnap" {
				return api.Definition{}, errors.New("no")
			}
			return api.Definition{Restart: api.RestartAlways}, nil
		},
		Complete:     func(d map[string]api.Definition) map[string]api.Definition { return d },
		NeedsRestart: func(a, b api.Definition) bool { return len(a.Command) != len(b.Command) },
		Supervisor:   func(args []string) int { return len(args) },
	}
	return b
}

// run runs a command line and returns the exit code and what was written.
func (b *bench) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	clock := func() time.Time { // a second later each time
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
	a := &app{seams: b.seams, out: &out, errOut: &errOut, getenv: func(k string) string { return b.env[k] },
		now:     clock,
		signals: func() (<-chan os.Signal, func()) { return b.signals, func() {} }}
	if b.in != nil {
		a.out = b.in
	}
	code = a.run(t.Context(), args)
	return code, out.String(), errOut.String()
}
