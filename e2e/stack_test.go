//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// need skips a test whose programs are missing and cannot be installed; in
// continuous integration they are installed, so there it fails.
func need(t *testing.T, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	switch {
	case len(missing) == 0:
	case os.Getenv("CI") != "":
		t.Fatalf("missing %v: run scripts/setup.sh", missing)
	default:
		t.Skipf("missing %v: run scripts/setup.sh", missing)
	}
}

// stack is examples/stack, copied and with ports of its own.
type stack struct {
	*rig
	ports map[string]string
	url   string
}

func newStack(t *testing.T) *stack {
	t.Helper()
	need(t, "redis-server", "redis-cli", "nginx", "python3", "psql")
	r := newRig(t, "")
	if err := os.CopyFS(r.dir, os.DirFS("../examples/stack")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if err := os.RemoveAll(r.state()); err != nil { // somebody may have run the example in place
		t.Fatal(err)
	}
	s := &stack{rig: r, ports: map[string]string{}}
	for i, port := range freePorts(t, 4) {
		name := []string{"PG", "REDIS", "WEB", "NGINX"}[i]
		s.ports[name] = port
		r.env = append(r.env, "STACK_"+name+"_PORT="+port)
	}
	// PostgreSQL's user must be able to reach its data.
	data := filepath.Join("/var/tmp", filepath.Base(r.dir)+"-postgres")
	t.Cleanup(func() {
		if err := os.RemoveAll(data); err != nil {
			t.Error(err)
		}
	})
	r.env = append(r.env, "STACK_PG_DATA="+data)
	s.url = "http://127.0.0.1:" + s.ports["NGINX"]
	return s
}

// get asks the front and returns status and body; 0 when nobody answers.
func (s *stack) get(path string) (int, string) {
	s.t.Helper()
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(s.url + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// page waits until the page can be had and returns what it tells of itself.
func (s *stack) page() (pid, generation, visits string) {
	s.t.Helper()
	var m []string
	eventually(s.t, "the page", func() bool {
		status, body := s.get("/")
		m = regexp.MustCompile(`<b>\d+</b> in Redis, <b>(\d+)</b>[^.]*\. [^.]*pid (\d+) and is generation (\d+)`).FindStringSubmatch(body)
		return status == 200 && m != nil
	})
	return m[2], m[3], m[1]
}

// TestStack runs the example with real programs: PostgreSQL, Redis, nginx and a
// web application. P17 (a program is found in PATH), P18 (each part's output is
// told apart), N24 (a stop takes down dependents first).
func TestStack(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.ok("up", "-d", "--timeout", "3m") // PostgreSQL and Python begin slowly on a busy machine
	inOrder(t, s.rig)
	if pid, gen, visits := s.page(); gen != "1" || visits != "1" || pid != fmt.Sprint(s.process("web").PID) {
		t.Errorf("first page: pid %s, generation %s, visit %s", pid, gen, visits)
	}
	t.Run("crash button", s.crashButton)
	for _, name := range []string{"redis", "postgres", "nginx", "web"} {
		t.Run("kill "+name, func(t *testing.T) { s.killed(t, name) })
	}
	t.Run("waiting is told", s.waitingIsTold)
	t.Run("health and logs", s.healthAndLogs)
	for _, name := range []string{"initdb", "migrate"} {
		if p := s.process(name); p.Generation != 1 || p.State != api.StateExited || p.LastExit == nil || *p.LastExit.Code != 0 {
			t.Errorf("%s ran again or failed: %+v", name, p)
		}
		if n := len(s.events(name, "process.started")); n != 1 {
			t.Errorf("%s has started %d times", name, n)
		}
	}
	s.downLeavesNothing()
}

// inOrder checks that no part of the stack was started before what it depends
// on was sound.
func inOrder(t *testing.T, r *rig) {
	t.Helper()
	first := func(name, typ string) uint64 {
		events := r.events(name, typ)
		if len(events) == 0 {
			t.Fatalf("there is no %s of %s", typ, name)
		}
		return events[0].Seq
	}
	for _, c := range []struct{ name, event, dependent string }{
		{"initdb", "process.exited", "postgres"}, {"postgres", "process.ready", "migrate"}, {"migrate", "process.exited", "web"},
		{"redis", "process.ready", "web"}, {"web", "process.ready", "nginx"},
	} {
		if a, b := first(c.name, c.event), first(c.dependent, "process.started"); a >= b {
			t.Errorf("%s started (%d) before %s of %s (%d)", c.dependent, b, c.event, c.name, a)
		}
	}
}

func (s *stack) crashButton(t *testing.T) {
	before := s.process("web")
	seq := s.lastSeq()
	if status, _ := s.get("/crash"); status == 200 {
		t.Error("the crash was answered as if nothing had happened")
	}
	e := s.event(seq, "web", "process.exited", nil)
	if got := fields(t, e); got["code"] != 1.0 || e.Generation != before.Generation {
		t.Errorf("exit of generation %d: %v", e.Generation, got)
	}
	after := s.generation("web", before.Generation)
	if pid, gen, _ := s.page(); pid != fmt.Sprint(after.PID) || gen != fmt.Sprint(after.Generation) || after.PID == before.PID {
		t.Errorf("after the crash: pid %s, generation %s, %+v", pid, gen, after)
	}
}

// killed kills one part with SIGKILL: it comes back, and nothing else is touched.
func (s *stack) killed(t *testing.T, name string) {
	before, others := s.process(name), s.pids()
	seq := s.lastSeq()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := s.event(seq, name, "process.exited", nil)
	if got := fields(t, e); got["signal"] != "SIGKILL" || got["code"] != 137.0 {
		t.Errorf("the exit is told as %v", got)
	}
	after := s.generation(name, before.Generation)
	if after.Generation != before.Generation+1 || after.PID == before.PID || after.Restarts != before.Restarts+1 {
		t.Errorf("after the kill: %+v", after)
	}
	s.page() // web is at work again, with the same connections made anew
	for other, pid := range s.pids() {
		if other != name && pid != others[other] {
			t.Errorf("%s was restarted (pid %d, now %d) because %s was killed", other, others[other], pid, name)
		}
	}
}

// waitingIsTold starts web while Redis is stopped: it waits, says for whom, and
// comes up by itself when Redis does.
func (s *stack) waitingIsTold(t *testing.T) {
	s.ok("stop", "web", "redis")
	s.ok("start", "--no-wait", "web")
	p := s.wait("web", "waiting")
	if p.Reason != api.ReasonDependency || !strings.Contains(p.Detail, "redis") {
		t.Errorf("web waits for %q: %q", p.Reason, p.Detail)
	}
	if out := s.ok("ps", "web"); !strings.Contains(out, "waiting") || !strings.Contains(out, "redis") {
		t.Errorf("ps does not say whom web waits for:\n%s", out)
	}
	s.ok("start", "redis")
	s.wait("web", "ready")
	s.page()
}

func (s *stack) healthAndLogs(t *testing.T) {
	for _, name := range []string{"postgres", "redis", "web"} {
		s.wait(name, "healthy")
	}
	if out := s.ok("ps"); strings.Count(out, "healthy") != 3 {
		t.Errorf("ps does not show three healthy parts:\n%s", out)
	}
	for name, text := range map[string]string{
		"postgres": "ready to accept connections", "redis": "Ready to accept connections", "nginx": `"GET / HTTP/1.1" 200`,
		"web": "listening on", "initdb": "Success.",
	} {
		if out := s.ok("logs", name, "-n", "-1"); !strings.Contains(out, text) {
			t.Errorf("the log of %s lacks %q:\n%s", name, text, out)
		}
	}
}

// downLeavesNothing stops everything: dependents first, and then there is no
// process, no cgroup and no listener.
func (s *stack) downLeavesNothing() {
	t := s.t
	t.Helper()
	info, err := s.client().Info(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	descendants := tree(info.SupervisorPID)
	if len(descendants) < 8 {
		t.Errorf("only %d processes are there; did the stack run?", len(descendants))
	}
	id := strings.TrimSpace(s.read(".perdure/journal/id"))
	watch := s.start("events", "-f", "-n", "1", "--json", "process.stopped")
	// Its line shows that the command follows.
	s.ok("stop", "nginx")
	watch.line(`"nginx"`)
	s.ok("down")
	var order []string
	for range 3 {
		order = append(order, decode[api.Event](t, watch.line("process.stopped")).Name)
	}
	if order[0] != "web" || !slices.Contains(order[1:], "postgres") || !slices.Contains(order[1:], "redis") {
		t.Errorf("stopped in the order nginx, %v", order)
	}
	eventually(t, "the end of the supervisor", func() bool { return !alive(info.SupervisorPID) })
	if left := stillThere(descendants); len(left) > 0 {
		t.Errorf("processes are left: %+v", left)
	}
	if dirs := cgroupsNamed(id[:12]); len(dirs) > 0 {
		t.Errorf("cgroup folders are left: %v", dirs)
	}
	for name, port := range s.ports {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			t.Errorf("somebody still listens on the port of %s", name)
		}
	}
}

// cgroupsNamed are the cgroup folders of a journal.
func cgroupsNamed(id string) []string {
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "perdure-"+id) {
			out = append(out, path)
		}
		return nil // what is not there any more is not left
	})
	if err != nil {
		return []string{err.Error()}
	}
	return out
}
