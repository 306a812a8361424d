//go:build unix

package perdure_test

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perdure/perdure"
	"github.com/perdure/perdure/api"
)

// TestMain lets this binary be its own supervisor, as a program that embeds
// Perdure is.
func TestMain(m *testing.M) {
	perdure.Init()
	goleak.VerifyTestMain(m)
}

// system starts a system over a directory with a short path (a socket's must be).
func system(t *testing.T, dir string, inProcess bool) *perdure.System {
	t.Helper()
	s, err := perdure.New(t.Context(), perdure.Options{StateDir: dir, InProcess: inProcess, Sync: "0s"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func worker() api.Definition {
	return api.Definition{Name: "worker", Command: api.Command{"sh", "-c", "echo hello $0 $WHO; exec sleep 1000"}}
}

// life takes a process through its life, and returns with it running.
func life(t *testing.T, s *perdure.System) api.Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Processes.Spawn(ctx, "worker", perdure.SpawnOptions{}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a spawn without a definition: %v", err)
	}
	if err := s.Processes.Define(api.Definition{Name: "a/b", Command: api.Command{"x"}}); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("a wrong definition: %v", err)
	}
	if err := s.Processes.Define(worker()); err != nil {
		t.Fatal(err)
	}
	o := perdure.SpawnOptions{Args: []string{"arg"}, Env: map[string]string{"WHO": "me"}, Metadata: map[string]any{"tenant": "t1"}}
	p, err := s.Processes.Spawn(ctx, "worker", o)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "worker" || p.Definition != "worker" || p.Metadata["tenant"] != "t1" {
		t.Errorf("spawned %+v", p)
	}
	second, err := s.Processes.Spawn(ctx, "worker", o)
	if err != nil || second.Name == "worker" {
		t.Fatalf("spawned a second one: %+v, %v", second, err)
	}
	if p, err = s.Processes.Wait(ctx, "worker", "running", 0); err != nil {
		t.Fatal(err)
	}
	for line, err := range s.Processes.Logs(ctx, api.LogQuery{Names: []string{"worker"}, Lines: -1, Follow: true}) {
		if err != nil || line.Text != "hello arg me" {
			t.Errorf("line %q, %v", line.Text, err)
		}
		break
	}
	if p, err = s.Processes.Restart(ctx, "worker"); err != nil || p.Generation != 2 {
		t.Fatalf("restarted: %+v, %v", p, err)
	}
	for e, err := range s.Events.Subscribe(ctx, "process.exited", 0) {
		if err != nil || e.Name != "worker" || e.Generation != 1 {
			t.Errorf("event %+v, %v", e, err)
		}
		break
	}
	if second, err = s.Processes.Stop(ctx, second.Name); err != nil || second.State != api.StateStopped || second.PID != 0 {
		t.Errorf("stopped: %+v, %v", second, err)
	}
	if list, err := s.Processes.List(ctx, "worker*"); err != nil || len(list) != 2 {
		t.Errorf("list: %+v, %v", list, err)
	}
	return p
}

// TestEmbedded: with a supervisor of its own and without, a program defines,
// spawns, watches and stops. Close lets the processes live, and the next New
// over the same directory finds them: same pid, same generation (P30).
func TestEmbedded(t *testing.T) {
	t.Parallel()
	for name, inProcess := range map[string]bool{"supervisor": false, "in process": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := system(t, dir, inProcess)
			before := life(t, s)
			if _, err := perdure.New(t.Context(), perdure.Options{StateDir: dir, InProcess: inProcess, Sync: "0s"}); api.CodeOf(err) != api.CodeConflict {
				t.Errorf("a second system over the same directory: %v", err)
			}
			if _, err := perdure.New(t.Context(), perdure.Options{StateDir: t.TempDir(), InProcess: inProcess, Sync: "sometimes"}); api.CodeOf(err) != api.CodeInvalid {
				t.Errorf("an interval that is none: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(before.PID, 0); err != nil {
				t.Errorf("Close ended a process: %v", err)
			}
			s = system(t, dir, inProcess)
			after, err := s.Processes.Wait(t.Context(), "worker", "running", 0)
			if err != nil || after.PID != before.PID || after.Generation != before.Generation {
				t.Errorf("before %+v, after %+v, %v", before, after, err)
			}
			if err := s.Stop(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(before.PID, 0); err == nil && !zombie(before.PID) {
				t.Error("Stop has left a process")
			}
		})
	}
}

// zombie says whether a pid is only waiting to be collected.
func zombie(pid int) bool {
	var ws syscall.WaitStatus
	p, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	return err == nil && p == pid || os.Getpid() == pid
}
