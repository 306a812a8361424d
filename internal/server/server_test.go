package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// The children of these tests are this test binary, which lives until SIGTERM.
func TestMain(m *testing.M) {
	proc.Shim(os.Args)
	if os.Getenv("TEST_CHILD") != "" {
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		fmt.Println("value", os.Getenv("VALUE"))
		<-term
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// site is a directory with a file, and the server of it.
type site struct {
	*Server
	t    *testing.T
	dir  string
	file string
}

func newSite(t *testing.T, text string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, dir: dir, file: filepath.Join(dir, "perdure.yaml")}
	s.write(text)
	s.start()
	return s
}

// write writes the file; CHILD stands for the program.
func (s *site) write(text string) {
	s.t.Helper()
	text = strings.ReplaceAll(text, "CHILD", fmt.Sprintf("command: [%q]\n    env: {TEST_CHILD: \"1\"}", os.Args[0]))
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) start() {
	s.t.Helper()
	var err error
	s.Server, err = Start(s.t.Context(), Options{Files: []string{s.file}, StateDir: filepath.Join(s.dir, ".perdure"), Embedded: true, Version: "test"})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) end() {
	s.t.Helper()
	if err := s.Stop(context.Background(), 20*time.Second); err != nil {
		s.t.Error(err)
	}
	if err := s.Close(); err != nil {
		s.t.Error(err)
	}
}

func (s *site) until(name, what string) api.Process {
	s.t.Helper()
	p, err := s.Wait(s.t.Context(), name, api.WaitRequest{For: what, Timeout: api.Duration(30 * time.Second)})
	if err != nil {
		s.t.Fatalf("%s is never %s: %v", name, what, err)
	}
	return p
}

func child(name string) api.Definition {
	return api.Definition{Name: name, Command: api.Command{os.Args[0]}, Env: map[string]string{"TEST_CHILD": "1"}}
}

func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t, "processes:\n  web:\n    CHILD\n  old:\n    CHILD\n")
	web := s.until("web", "running")
	s.until("old", "running")
	if _, err := s.Define(t.Context(), child("guest")); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Command(t.Context(), "guest", api.CommandRequest{Verb: "start", Wait: true}); err != nil || p.PID == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := s.Define(t.Context(), child("web")); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a process of the file was redefined over the API: %v", err)
	}

	s.write("processes:\n  web:\n    command: []\n    restart: sometimes\n")
	if _, err := s.Reload(t.Context()); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a broken file: %v", err)
	}
	if p := s.until("web", "running"); p.PID != web.PID {
		t.Error("a broken file has restarted web")
	}

	s.write("processes:\n  web:\n    CHILD\n  new:\n    CHILD\n")
	res, err := s.Reload(t.Context())
	if err != nil || !slices.Equal(res.Added, []string{"new"}) || !slices.Equal(res.Removed, []string{"old"}) || !slices.Equal(res.Unchanged, []string{"web"}) {
		t.Errorf("%+v, %v", res, err)
	}
	if len(res.Settings) > 0 {
		t.Errorf("settings %q are told as changed", res.Settings)
	}
	// A changed setting touches no process, and is in force at once.
	fresh := s.until("new", "running")
	s.write("settings: {sync: off}\nprocesses:\n  web:\n    CHILD\n  new:\n    CHILD\n")
	if res, err = s.Reload(t.Context()); err != nil || !slices.Equal(res.Settings, []string{"settings.sync"}) || len(res.Unchanged) != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	if cfg, err := s.Config(t.Context()); err != nil || cfg.Settings.Sync != "off" {
		t.Errorf("in force is %+v, %v", cfg.Settings, err)
	}
	if p := s.until("new", "running"); p.PID != fresh.PID {
		t.Error("a changed setting has restarted new")
	}
	if p := s.until("guest", "running"); p.Generation != 1 {
		t.Errorf("the reload has touched what came over the API: %+v", p)
	}
	if err := s.Remove(t.Context(), "guest"); err != nil {
		t.Error(err)
	}
	if _, err := s.Process(t.Context(), "guest"); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("guest is still there: %v", err)
	}
	s.end()
}

// The events of a server and of its successor are whole: nothing is told twice,
// and the processes are adopted.
func TestServerAfterServer(t *testing.T) {
	t.Parallel()
	s := newSite(t, "processes:\n  web:\n    CHILD\n")
	web := s.until("web", "running")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.start()
	again := s.until("web", "running")
	if again.PID != web.PID || again.Generation != 1 || again.ID != web.ID {
		t.Errorf("%+v after %+v", again, web)
	}
	s.until("web", "running")
	if err := s.Stop(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	page, err := s.Events(t.Context(), api.EventQuery{Name: "web", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, e := range page.Events {
		counts[e.Type]++
	}
	for _, typ := range []string{"process.registered", "process.started", "process.exited", "process.stopped"} {
		if counts[typ] != 1 {
			t.Errorf("%s was told %d times", typ, counts[typ])
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestEnvFileRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := filepath.Join(dir, "web.env")
	if err := os.WriteFile(env, []byte("VALUE=one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, fmt.Sprintf("processes:\n  web:\n    CHILD\n    env_file: %q\n    env_reload: {mode: restart}\n  api:\n    CHILD\n", env))
	s.until("web", "running")
	s.until("api", "running")
	if err := os.WriteFile(env, []byte("VALUE=two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for e, err := range s.FollowEvents(t.Context(), api.EventQuery{Pattern: "process.ready", Name: "web"}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Generation == 2 {
			break
		}
	}
	if p := s.until("api", "running"); p.Generation != 1 {
		t.Errorf("api was restarted as well: %+v", p)
	}
	s.end()
}

func TestFiguresAreOfWhatLives(t *testing.T) {
	t.Parallel()
	s := newSite(t, "processes:\n  web:\n    CHILD\n")
	s.until("web", "running")
	p, err := s.Process(t.Context(), "web")
	if err != nil || p.Memory <= 0 || p.Processes != 1 || p.Uptime < 0 || p.StartedAt == nil {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = s.Command(t.Context(), "web", api.CommandRequest{Verb: "stop", Wait: true}); err != nil || p.Memory != 0 || p.PID != 0 || p.StartedAt != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if err := s.Remove(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	s.sampler.mu.Lock()
	if len(s.sampler.last) != 0 {
		t.Errorf("figures of a removed process are kept: %v", s.sampler.last)
	}
	s.sampler.mu.Unlock()
	s.end()
}

func TestView(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c := clock{wall: now, boot: supervise.Instant(time.Hour)}
	rec := running("web", 3)
	rec.State.StartedAt = supervise.Instant(time.Hour - time.Minute)
	p := view(rec, nil, c)
	if !p.StartedAt.Equal(now.Add(-time.Minute)) || p.Uptime != api.Duration(time.Minute) || p.ReadyAt != nil || p.NextStart != nil {
		t.Errorf("%+v", p)
	}
	rec = in("web", api.StateBackoff, api.DesiredRunning)
	rec.State.Timers[supervise.TimerStart] = supervise.Timer{Number: 1, Deadline: supervise.Instant(time.Hour + time.Second)}
	rec.State.Exit = &supervise.Exit{Unknown: true, Cause: "unknown"}
	p = view(rec, nil, c)
	if !p.NextStart.Equal(now.Add(time.Second)) || p.Uptime != 0 || p.LastExit.Code != nil || p.Health != api.HealthUnknown {
		t.Errorf("%+v", p)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		says       string
	}{
		{"good", "0123456789abcdef\n", 0o600, ""},
		{"short", "0123456789", 0o600, "at least 16"},
		{"open", "0123456789abcdef", 0o644, "others may read it"},
		{"group", "0123456789abcdef", 0o640, "others may read it"},
	} {
		path := filepath.Join(dir, c.name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		token, err := readToken(path)
		if c.says == "" && (err != nil || token != "0123456789abcdef") || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %q, %v", c.name, token, err)
		}
	}
	for _, path := range []string{"", filepath.Join(dir, "missing")} {
		var e *api.Error
		if _, err := readToken(path); !errors.As(err, &e) || e.Field != "settings.token_file" {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestStateDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := prepare(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := prepare(dir); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	link := dir + "-link"
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := prepare(link); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a symbolic link is taken: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := prepare(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("a directory of somebody else is taken: %v", err)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, "processes:\n  web:\n    CHILD\n")
	s.until("web", "running")
	_, err := Start(t.Context(), Options{Files: []string{s.file}, StateDir: filepath.Join(s.dir, ".perdure"), Embedded: true})
	if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "already runs") {
		t.Errorf("%v", err)
	}
	if p := s.until("web", "running"); p.Generation != 1 {
		t.Errorf("%+v", p)
	}
	s.end()
}

var _ control.Supervisor = (*fakeSupervisor)(nil)
