//go:build unix

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

const three = `
processes:
  a: {command: [sleep, "1000"]}
  b: {command: [sleep, "1001"], depends_on: [a]}
  other: {command: [sh, -c, 'echo to out; echo to err >&2; exec sleep 1002']}
`

// TestUpReloadDown: a second up -d applies the file; a reload restarts only what
// changed; a broken file changes nothing; N20: what was removed stays away.
// Keeps out M3.
func TestUpReloadDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, three)
	r.ok("up", "-d")
	before := r.pids()
	for name, pid := range before {
		if !alive(pid) {
			t.Errorf("%s does not live", name)
		}
	}
	r.ok("up", "-d")
	if diff := cmp.Diff(before, r.pids()); diff != "" {
		t.Errorf("the second up touched processes:\n%s", diff)
	}
	r.write("perdure.yaml", "processes:\n  a: {command: [sleep], restrat: always}\n")
	for _, args := range [][]string{{"reload"}, {"up", "-d"}, {"validate"}} {
		if res := r.exits(2, args...); !strings.Contains(res.out+res.errOut, "perdure.yaml:2") {
			t.Errorf("%v does not name the line:\n%s%s", args, res.out, res.errOut)
		}
	}
	if diff := cmp.Diff(before, r.pids()); diff != "" {
		t.Errorf("a broken file touched processes:\n%s", diff)
	}
	r.write("perdure.yaml", strings.Replace(strings.Replace(three, "1002", "1003", 1), `  b: {command: [sleep, "1001"], depends_on: [a]}`, "  c: {command: [sleep, \"7\"]}", 1))
	r.ok("reload")
	r.wait("other", "running")
	r.wait("c", "running")
	eventually(t, "the end of b", func() bool { return !alive(before["b"]) })
	after := r.pids()
	if after["a"] != before["a"] || after["other"] == before["other"] || after["c"] == 0 {
		t.Errorf("before %v, after %v", before, after)
	}
	r.ok("down")
	r.ok("up", "-d")
	if diff := cmp.Diff([]string{"a", "c", "other"}, slices.Sorted(maps.Keys(r.pids()))); diff != "" {
		t.Errorf("after down and up:\n%s", diff)
	}
	r.ok("down")
	r.exits(3, "ps")
}

// TestCommands: ps, status, logs, events, wait and the verbs with globs.
func TestCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t, three)
	r.ok("up", "-d")
	if list := decode[[]api.Process](t, r.ok("ps", "--json")); len(list) != 3 || list[0].Name != "a" || list[0].State != api.StateRunning {
		t.Errorf("ps --json: %+v", list)
	}
	if s := decode[struct{ Process api.Process }](t, r.ok("status", "a", "--json")); s.Process.Name != "a" || s.Process.PID == 0 {
		t.Errorf("status --json: %+v", s)
	}
	r.ok("stop", "[ab]")
	pids := r.pids()
	if pids["a"] != 0 || pids["b"] != 0 || !alive(pids["other"]) {
		t.Errorf("after stop: %v", pids)
	}
	r.ok("wait", "a", "--for", "stopped")
	r.ok("start", "[ab]")
	old := r.pids()
	r.ok("restart", "a")
	if now := r.process("a"); now.PID == old["a"] || now.Generation != 3 {
		t.Errorf("after restart: %+v", now)
	}
	gen := r.process("other").Generation
	r.ok("signal", "KILL", "other")
	r.generation("other", gen)
	r.ok("kill", "b")
	if p := r.process("b"); p.State != api.StateStopped || p.Desired != api.DesiredStopped {
		t.Errorf("after kill: %+v", p)
	}
	eventually(t, "the second generation's output", func() bool {
		return strings.Count(r.ok("logs", "other", "-n", "-1", "--since", "1h"), "to out") == 2
	})
	if out := r.ok("logs", "other", "-n", "-1", "--stream", "stderr"); out != "to err\nto err\n" {
		t.Errorf("stderr of both generations: %q", out)
	}
	if out := r.ok("completion", "bash"); !strings.Contains(out, "__start_perdure") {
		t.Error("completion bash is not a script")
	}
	if out := r.ok("__complete", "status", "o"); !strings.HasPrefix(out, "other") {
		t.Errorf("completion of names: %q", out)
	}
	if res := r.run("doctor"); res.code > 1 || !strings.Contains(res.out, "the supervisor runs") {
		t.Errorf("doctor: %+v", res)
	}
}

// N18: what a grandchild writes after the end of the leader, when it is asked to
// end with the rest of the group, is kept.
func TestLastWordsOfAGrandchild(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  short:
    oneshot: true
    command:
      - sh
      - -c
      - |
        (trap 'echo last words; exit' TERM; touch up; while :; do sleep 0.1; done) &
        while [ ! -e up ]; do sleep 0.1; done
        echo first words
`)
	r.ok("up", "-d")
	r.wait("short", "completed")
	eventually(t, "its last words", func() bool {
		return r.ok("logs", "short", "-n", "-1", "--stream", "stdout") == "first words\nlast words\n"
	})
}

// TestExitCodes provokes each row of docs/reference/exit-codes.md.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  ok: {command: [sleep, "1000"]}
  bad: {command: [./no-such-program], restart: never, autostart: false}
`)
	r.exits(3, "ps")
	r.ok("up", "-d")
	r.exits(1, "start", "bad")
	r.exits(2, "start")
	r.exits(2, "nonsense")
	r.exits(4, "status", "nobody")
	r.exits(5, "wait", "ok", "--for", "stopped", "--timeout", "50ms")
	r.exits(6, "up")
	w := r.start("wait", "ok", "--for", "stopped")
	seq := r.lastSeq()
	r.ok("restart", "ok") // time for the other to begin: it holds no lock and says nothing
	r.event(seq, "ok", "process.started", nil)
	eventually(t, "the handler of Ctrl-C", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
		_, rest, _ := strings.Cut(string(b), "SigCgt:\t")
		var mask uint64
		_, scanErr := fmt.Sscanf(rest, "%x", &mask)
		return err == nil && scanErr == nil && mask&(1<<(uint(syscall.SIGINT)-1)) != 0
	})
	w.signal(syscall.SIGINT)
	if code := w.wait(); code != 130 {
		t.Errorf("an interrupted wait ended with %d", code)
	}
	for code, script := range map[int]string{0: "true", 42: "exit 42", 137: "kill -KILL $$"} {
		if res := r.exits(code, "run", "--restart", "never", "--", "sh", "-c", "echo said; "+script); res.out != "said\n" {
			t.Errorf("run printed %q", res.out)
		}
	}
}

// TestBreakerAndReset: a crash loop is parked, a reset and a start bring it back.
func TestBreakerAndReset(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  flaky:
    command: [sh, -c, 'test -e good || exit 9; exec sleep 1000']
    backoff: {initial: 0s}
    breaker: {failures: 3, on_open: park}
`)
	r.run("up", "-d") // its code depends on whether it sees a generation run
	p := r.wait("flaky", "failed")
	if p.Reason != api.ReasonBreaker || p.Generation != 3 {
		t.Errorf("%+v", p)
	}
	if out := r.ok("ps"); !strings.Contains(out, "flaky") || !strings.Contains(out, "failed") {
		t.Errorf("ps:\n%s", out)
	}
	r.write("good", "")
	r.ok("reset", "flaky")
	if p := r.process("flaky"); p.State != api.StateIdle || p.Failures != 0 {
		t.Errorf("after reset: %+v", p)
	}
	r.ok("start", "flaky")
	r.wait("flaky", "running")
}

// TestFollowing: logs -f goes on over rotations and misses nothing; events -f
// goes on over a restart of the server; P30: the server's death stops nothing.
func TestFollowing(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  talker:
    command: [sh, -c, 'i=0; while read -r n; do while [ $i -lt $n ]; do i=$((i+1)); echo "line $i of a text that fills the file"; done; done < pipe']
    logs: {max_size: 4KiB, max_files: 100}
  steady: {command: [sleep, "1000"]}
`)
	if err := syscall.Mkfifo(r.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(r.path("pipe"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pipe.Close() })
	r.ok("up", "-d")
	logs := r.start("logs", "-f", "-n", "-1", "talker")
	for _, n := range []int{1, 300, 600} {
		fmt.Fprintln(pipe, n)
		logs.line(fmt.Sprintf("line %d of", n))
	}
	for i, line := range strings.Split(logs.text(), "\n") {
		if want := fmt.Sprintf("line %d of a text that fills the file", i+1); line != want {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(r.state(), "logs", "talker", "*")); len(files) < 4 {
		t.Errorf("nothing was rotated: %v", files)
	}
	events := r.start("events", "-f", "--json", "process.*")
	events.line("process.started")
	before := r.pids()
	info, err := r.client().Info(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(info.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the server", func() bool { return !alive(info.PID) })
	r.ok("up", "-d")
	if diff := cmp.Diff(before, r.pids()); diff != "" {
		t.Errorf("the server's death touched processes:\n%s", diff)
	}
	r.ok("restart", "steady")
	events.line(`"type":"process.exited"`)
	var last uint64
	for _, line := range strings.Split(events.text(), "\n") {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		e := decode[api.Event](t, line)
		if e.Seq <= last {
			t.Errorf("event %d came after %d", e.Seq, last)
		}
		last = e.Seq
	}
}

// TestEnvFiles: N10: a change of a listed key restarts what runs, another change
// nothing, and a stopped process is never started by it. Files merge in order.
func TestEnvFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  app: &app
    command: [sh, -c, 'echo "KEY=$KEY MODE=$MODE"; exec sleep 1000']
    env_file: [app.env]
    env_reload: {debounce: 20ms, only_restart_if_changed: [KEY]}
  still: *app
`)
	r.write("app.env", "KEY=1\nOTHER=1\n")
	r.write("dev.yaml", "processes:\n  app: {env: {MODE: dev}}\n")
	r.ok("up", "-d", "-f", "perdure.yaml", "-f", "dev.yaml")
	r.ok("stop", "still")
	before := r.process("app")
	seq := r.lastSeq()
	r.write("app.env", "KEY=1\nOTHER=2\n")
	r.event(seq, "", "config.env_changed", nil)
	if p := r.process("app"); p.PID != before.PID {
		t.Errorf("a key that is not listed restarted it: %+v", p)
	}
	r.write("app.env", "KEY=2\nOTHER=2\n")
	r.generation("app", before.Generation)
	eventually(t, "the new value", func() bool { return strings.Contains(r.ok("logs", "app", "-n", "-1"), "KEY=2 MODE=dev") })
	if p := r.process("still"); p.State != api.StateStopped || p.Generation != 1 {
		t.Errorf("a change of .env started a stopped process: %+v", p)
	}
}

// TestProcfile: a Procfile is taken as it is, with the .env beside it.
func TestProcfile(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.write("Procfile", "web: echo \"web $PORT $GREETING\" && exec sleep 1000\nworker: echo \"worker $PORT\" && exec sleep 1000\n")
	r.write(".env", "GREETING=hello\n")
	r.ok("up", "-d")
	for name, want := range map[string]string{"web": "web 5000 hello\n", "worker": "worker 5100\n"} {
		eventually(t, "the output of "+name, func() bool { return r.ok("logs", name) == want })
	}
}

// TestNewcomer: examples/run.sh falls back to examples/hello where no program of
// the stack is installed, says what is missing, and needs only sh.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	if err := os.CopyFS(r.path("examples"), os.DirFS("../examples")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(r.path("examples/hello/.perdure")); err != nil {
		t.Fatal(err)
	}
	tools := r.path("tools")
	for _, name := range []string{"sh", "dirname", "basename", "ls", "id", "sleep", "date", "mkdir", "rm", "touch", "cat", "test", "expr"} {
		for _, dir := range []string{"/bin/", "/usr/bin/"} {
			if _, err := os.Stat(dir + name); err == nil {
				if err := os.MkdirAll(tools, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(dir+name, filepath.Join(tools, name)); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
	}
	cmd := r.command(t.Context())
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "examples/run.sh", bin()}
	cmd.Env = append(cmd.Env, "PATH="+tools)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w := watch(t, cmd)
	w.line("redis-server")
	w.line("ticker  │")
	w.signal(syscall.SIGINT)
	if code := w.wait(); code != 0 {
		t.Errorf("ended with %d:\n%s", code, w.text())
	}
}

// TestAccess: N17, P26: private files, no TCP without a token, checks of Host and
// Origin, no names that are paths (P33), secrets hidden.
func TestAccess(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	port := freePorts(t, 1)[0]
	text := "settings: {listen: \"127.0.0.1:" + port + "\", token_file: TOKENFILE}\nprocesses:\n  app:\n    command: [sleep, '1000', --]\n    env: {DB_PASSWORD: hunter22, URL: 'postgres://u:hunter22@h/db'}\n"
	r.write("perdure.yaml", strings.Replace(text, ", token_file: TOKENFILE", "", 1))
	r.exits(2, "up", "-d")
	const token = "a token of some length"
	if err := os.WriteFile(r.path("token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	r.write("perdure.yaml", strings.Replace(text, "TOKENFILE", r.path("token"), 1))
	r.ok("up", "-d")
	r.private()
	for name, c := range map[string]struct {
		token, host, origin string
		status              int
	}{
		"no token":        {"", "", "", 401},
		"wrong token":     {"another token of that length", "", "", 401},
		"token":           {token, "", "", 200},
		"name of another": {token, "evil.example", "", 403},
		"another origin":  {token, "", "http://evil.example", 403},
	} {
		req, err := http.NewRequestWithContext(bounded(t), http.MethodGet, "http://127.0.0.1:"+port+"/v1/processes", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		req.Host = c.host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: status %d, not %d", name, resp.StatusCode, c.status)
		}
	}
	for _, name := range []string{"../x", "a/b", "..", "a.b", "a*"} {
		_, err := r.client().Define(bounded(t), api.Definition{Name: name, Command: api.Command{"true"}})
		if err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
	for _, args := range [][]string{{"status", "app", "--json"}, {"config", "show", "--json"}, {"config", "show"}, {"events", "--json", "-n", "1000"}} {
		if out := r.ok(args...); strings.Contains(out, "hunter22") {
			t.Errorf("%v tells a secret:\n%s", args, out)
		}
	}
}

// private checks who may read the state directory, and that another user is
// refused at the socket.
func (r *rig) private() {
	t := r.t
	t.Helper()
	modes := map[string]os.FileMode{"": 0o700, "api.sock": 0o600, "supervisor.sock": 0o600, "perdure.db": 0o600, "journal": 0o700, "logs": 0o700}
	got := maps.Clone(modes)
	for name := range modes {
		fi, err := os.Stat(filepath.Join(r.state(), name))
		if err != nil {
			t.Fatal(err)
		}
		got[name] = fi.Mode().Perm()
	}
	if diff := cmp.Diff(modes, got); diff != "" {
		t.Errorf("modes:\n%s", diff)
	}
	if os.Geteuid() != 0 {
		return // only root can be somebody else
	}
	// The doors are opened so that the check of the peer alone is left.
	for _, path := range []string{r.dir, r.state(), filepath.Join(r.state(), "api.sock"), filepath.Dir(bin()), bin()} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := r.command(bounded(t), "ps", "--socket", filepath.Join(r.state(), "api.sock"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput() // the code is judged
	if code := exitCode(cmd.ProcessState); code != 1 {
		t.Errorf("another user's ps ended with %d:\n%s", code, out)
	}
}
