//go:build unix

// Package e2e tests the built program with real processes.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/client"
)

// patience bounds every wait. It is a safeguard against a hang, not a measure.
const patience = 2 * time.Minute

// TestMain builds the program once, or takes the one that PERDURE_BIN names.
// With E2E_ROLE set, this binary is one of the managed programs instead.
func TestMain(m *testing.M) {
	if role := os.Getenv("E2E_ROLE"); role != "" {
		os.Exit(playRole(role))
	}
	dir, err := os.MkdirTemp("", "perdure-e2e-")
	if err == nil && os.Getenv("PERDURE_BIN") == "" {
		bin := filepath.Join(dir, "perdure")
		build := exec.Command("go", "build", "-o", bin, "../cmd/perdure")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err = build.Run(); err == nil {
			err = os.Setenv("PERDURE_BIN", bin)
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot build the program:", err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// rig is one Perdure of its own: a project directory with a file, and what was
// started in it. Whatever it starts carries the mark in its environment.
type rig struct {
	t    *testing.T
	dir  string
	mark string
	env  []string
	bin  string         // the program; empty: bin()
	api  *client.Client // made by the first who asks; see client
	once sync.Once
}

// newRig makes a project directory with a perdure.yaml (none when text is
// empty). At the end of the test everything that it started is gone, and a test
// that has passed fails if `perdure down` has left a process.
func newRig(t *testing.T, text string) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "perdure-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, mark: "E2E_MARK=" + filepath.Base(dir)}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PERDURE_") && !strings.HasPrefix(kv, "NO_COLOR=") && !strings.HasPrefix(kv, "TERM=") {
			r.env = append(r.env, kv)
		}
	}
	r.env = append(r.env, r.mark)
	if text != "" {
		r.write("perdure.yaml", text)
	}
	t.Cleanup(r.end)
	return r
}

// bin is the program under test.
func bin() string { return os.Getenv("PERDURE_BIN") }

// self is the command that makes this binary play a role (see playRole).
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }
func (r *rig) state() string           { return r.path(".perdure") }

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := r.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// result is how a command has ended.
type result struct {
	code        int
	out, errOut string
}

// command is a perdure command in the project directory.
func (r *rig) command(ctx context.Context, args ...string) *exec.Cmd {
	program := r.bin
	if program == "" {
		program = bin()
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a command to its end.
func (r *rig) run(args ...string) result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := r.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) || ctx.Err() != nil {
		r.t.Fatalf("perdure %q: %v\n%s%s", args, errors.Join(err, ctx.Err()), out.String(), errOut.String())
	}
	return result{exitCode(cmd.ProcessState), out.String(), errOut.String()}
}

// exitCode is 128+n after signal n.
func exitCode(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

// exits runs a command that must end with a code.
func (r *rig) exits(code int, args ...string) result {
	r.t.Helper()
	res := r.run(args...)
	if res.code != code {
		r.t.Fatalf("perdure %q ended with %d, not %d\n%s%s%s", args, res.code, code, res.out, res.errOut, r.serverLog())
	}
	return res
}

// serverLog is the end of what a detached server said.
func (r *rig) serverLog() string {
	var out string
	for _, name := range []string{"server.log", "supervisor.log"} {
		if b, err := os.ReadFile(filepath.Join(r.state(), name)); err == nil {
			out += "--- " + name + "\n" + string(b[max(0, len(b)-4000):])
		}
	}
	return out
}

// ok runs a command that must succeed and returns its output.
func (r *rig) ok(args ...string) string {
	r.t.Helper()
	return r.exits(0, args...).out
}

// client talks to the rig's server, whichever that is: one client for all, so
// that it takes few connections.
func (r *rig) client() *client.Client {
	r.t.Helper()
	r.once.Do(func() {
		c, err := client.New(client.Options{Socket: filepath.Join(r.state(), "api.sock")})
		if err != nil {
			r.t.Error(err)
			return
		}
		r.api = c
		r.t.Cleanup(func() { _ = c.Close() }) // it cannot fail
	})
	if r.api == nil {
		r.t.Fatal("there is no client")
	}
	return r.api
}

// bounded is a context for one wait.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// process returns the record of a process.
func (r *rig) process(name string) api.Process {
	r.t.Helper()
	p, err := r.client().Process(bounded(r.t), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// pids are the pids of all processes by name.
func (r *rig) pids() map[string]int {
	r.t.Helper()
	list, err := r.client().Processes(bounded(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]int{}
	for _, p := range list {
		out[p.Name] = p.PID
	}
	return out
}

// wait waits until a process is something, and returns it.
func (r *rig) wait(name, what string) api.Process {
	r.t.Helper()
	p, err := r.client().Wait(bounded(r.t), name, api.WaitRequest{For: what, Timeout: api.Duration(patience)})
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", name, err, r.run("events", "--name", name).out)
	}
	return p
}

// lastSeq is the place of the newest event.
func (r *rig) lastSeq() uint64 {
	r.t.Helper()
	page, err := r.client().Events(bounded(r.t), api.EventQuery{Last: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	return page.LastSeq
}

// event waits for the first event after a place that matches.
func (r *rig) event(after uint64, name, pattern string, match func(api.Event) bool) api.Event {
	r.t.Helper()
	q := api.EventQuery{After: after, Name: name, Pattern: pattern}
	for e, err := range r.client().FollowEvents(bounded(r.t), q) {
		if err != nil {
			r.t.Fatalf("waiting for %s of %s: %v", pattern, name, err)
		}
		if match == nil || match(e) {
			return e
		}
	}
	r.t.Fatalf("no event %s of %s came\n%s", pattern, name, r.run("events", "-n", "200").out)
	return api.Event{}
}

// events are all events so far that match.
func (r *rig) events(name, pattern string) []api.Event {
	r.t.Helper()
	page, err := r.client().Events(bounded(r.t), api.EventQuery{Name: name, Pattern: pattern, Last: 1000})
	if err != nil {
		r.t.Fatal(err)
	}
	return page.Events
}

// generation waits for the first sound generation (ready, where it has a ready
// probe) after gen, and returns it.
func (r *rig) generation(name string, gen uint64) api.Process {
	r.t.Helper()
	var p api.Process
	eventually(r.t, fmt.Sprintf("a generation of %s after %d", name, gen), func() bool {
		p = r.wait(name, "ready")
		return p.Generation > gen && p.PID != 0
	})
	return p
}

// eventually asks until it is so. It is for what no event tells, such as the
// table of processes of the system.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("in vain: %s", what)
		}
	}
}

// fields reads the data of an event.
func fields(t *testing.T, e api.Event) map[string]any {
	t.Helper()
	out := map[string]any{}
	if len(e.Data) > 0 {
		if err := json.Unmarshal(e.Data, &out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// decode reads a JSON document.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return v
}

// freePorts returns ports that the kernel had free. Another may take one before
// it is used; the kernel hands them out in an order that makes this rare.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }() // all are held until all are known
		_, port, _ := net.SplitHostPort(l.Addr().String())
		out = append(out, port)
	}
	return out
}

// end stops what runs, and kills and tells what a clean stop has left.
func (r *rig) end() {
	if len(r.marked()) > 0 {
		_ = r.command(context.Background(), "down", "--timeout", "1s").Run() // what it leaves is found below
	}
	for grace := time.Now().Add(5 * time.Second); len(r.marked()) > 0 && time.Now().Before(grace); {
		<-time.After(20 * time.Millisecond)
	}
	if left := r.marked(); len(left) > 0 {
		r.t.Errorf("processes are left after the end: %+v\n%s", left, r.serverLog())
	}
	eventually(r.t, "the end of what was left", func() bool {
		left := r.marked()
		for _, st := range left {
			_ = syscall.Kill(st.pid, syscall.SIGKILL) // it may have ended by itself
		}
		return len(left) == 0
	})
	if r.t.Failed() {
		r.t.Logf("kept: %s", r.serverLog())
	}
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Error(err)
	}
}
