//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/perdure/perdure/api"
)

// numbersOf are the numbers in the data of events, in the order of the log.
func numbersOf(t *testing.T, events []api.Event, typ string) (list []int) {
	t.Helper()
	for _, e := range events {
		if e.Type != typ {
			continue
		}
		var data struct{ Data struct{ N int } }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatalf("%s: %v", e.Data, err)
		}
		list = append(list, data.Data.N)
	}
	return list
}

// Server and supervisor are killed while a worker emits: each event is in the log
// once, in order (P24, D4).
func TestEventsSurviveKills(t *testing.T) {
	t.Parallel()
	emitted := scale(2000, 100_000)
	r := newRig(t, fmt.Sprintf("processes:\n  w:\n    command: [%q]\n    env: {E2E_ROLE: emitter, EMIT: \"%d\"}\n    worker: unix\n    ready: {notify: worker}\n",
		self(t), emitted))
	r.ok("up", "-d")
	before := r.identities("w")
	done := func() bool { _, err := os.Stat(r.path("emitted")); return err == nil }
	kills := 0
	for kills < 6 || !done() {
		info := r.info()
		if kills%3 == 0 {
			strike(t, info.PID)
		} else {
			strike(t, info.SupervisorPID)
		}
		kills++
		r.ok("up", "-d", "--no-wait")
		seq := r.lastSeq()
		eventually(t, "that it is heard again", func() bool {
			page, err := r.client().Events(bounded(t), api.EventQuery{After: seq, Pattern: "process.w.tick", Limit: 1})
			return done() || err == nil && len(page.Events) > 0
		})
	}
	eventually(t, "the acks of all", done)
	r.same("the kills", before, []string{"w"})
	list := numbersOf(t, r.allEvents(), "process.w.tick")
	for i, n := range list {
		if n != i+1 {
			t.Fatalf("event %d has number %d", i+1, n)
		}
	}
	if len(list) != emitted {
		t.Errorf("%d events are in the log, %d were emitted", len(list), emitted)
	}
	// The last of the kills may have been after the last of the acks.
	eventually(t, "its connection", func() bool { w := r.process("w").Worker; return w != nil && w.Connections > 0 })
	if out := r.ok("send", "w", "echo", `{"a":1}`); strings.TrimSpace(out) != `{"a":1}` {
		t.Errorf("the reply is %q", out)
	}
	if res := r.exits(1, "send", "w", "unknown"); !strings.Contains(res.errOut, "refused") {
		t.Errorf("an unknown command says %q", res.errOut)
	}
	r.ok("down")
	if left, err := filepath.Glob(filepath.Join(r.state(), "run", "*")); err != nil || len(left) > 0 {
		t.Errorf("left are %q, %v", left, err)
	}
	t.Logf("%d events through %d kills", len(list), kills)
}

// A client of the plain protocol works as with its own server, and gets its events.
func TestPlainWorker(t *testing.T) {
	t.Parallel()
	r := newRig(t, fmt.Sprintf("processes:\n  w: {command: [%q], env: {E2E_ROLE: plain}}\n", self(t)))
	r.ok("up", "-d")
	first := r.event(0, "w", "process.w.step", nil)
	second := r.event(first.Seq, "w", "process.w.step", nil)
	if got := numbersOf(t, []api.Event{first, second}, "process.w.step"); got[0] != 0 || got[1] != 1 {
		t.Errorf("the events have %v", got)
	}
	r.event(0, "w", "process.event", nil)
	for _, typ := range []string{"process.stats", "process.w.stats"} {
		if data := fields(t, r.event(0, "w", typ, nil)); data["name"] != "w" || data["stats"] == nil {
			t.Errorf("%s has %v", typ, data)
		}
	}
	said := r.event(0, "w", "process.message", func(e api.Event) bool { return strings.Contains(string(e.Data), `"event":"step"`) })
	if data := fields(t, said); data["processId"] != r.process("w").ID {
		t.Errorf("the message has %v", data)
	}
	r.ok("down")
}

// A program that hangs is told stale, then killed, and starts again; the server is
// away all the while (P5, P17).
func TestHungWorkerIsKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  w:
    command: [sh, -c, "while :; do perdure heartbeat; sleep 0.2; done"]
    worker: unix
    heartbeat: {timeout: 4s}
    stop: {grace: 200ms}
    backoff: {kind: fixed, initial: 10ms}
`)
	r.env = append(r.env, "PATH="+filepath.Dir(bin())+":"+os.Getenv("PATH"))
	r.ok("up", "-d")
	eventually(t, "a heartbeat", func() bool { w := r.process("w").Worker; return w != nil && w.LastHeartbeat != nil })
	p, seq := r.process("w"), r.lastSeq()
	if err := syscall.Kill(-p.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	strike(t, r.info().PID)
	eventually(t, "the death of the one that hangs", func() bool { return !alive(p.PID) })
	r.ok("up", "-d", "--no-wait")
	stale := r.event(seq, "w", "process.stale", nil)
	killed := r.event(stale.Seq, "w", "process.watchdog.killed", nil)
	if data := fields(t, killed); data["reason"] != "heartbeat" {
		t.Errorf("it was killed for %v", data)
	}
	next := r.event(killed.Seq, "w", "process.started", nil)
	if next.Generation != p.Generation+1 {
		t.Errorf("generation %d follows %d", next.Generation, p.Generation)
	}
	r.ok("down")
}

// A grandchild that takes too much memory is ended with all of its process.
func TestLimitsCountTheWholeTree(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  w:
    command: [sh, -c, "sh -c 'a=$(head -c 50000000 /dev/zero | tr \"\\0\" x); sleep 1000; echo $a' & wait"]
    limits: {memory: 20MiB, interval: 100ms, dwell: 200ms}
    restart: never
`)
	r.ok("up", "-d", "--no-wait")
	over := r.event(0, "w", "process.limits_exceeded", nil)
	if data := fields(t, over); data["reason"] != "memory" || data["value"].(float64) < 20<<20 {
		t.Errorf("it was over a limit with %v", data)
	}
	r.event(over.Seq, "w", "process.watchdog.killed", nil)
	r.ok("down")
}
