//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/perdure/perdure/api"
)

// checkLogger holds that a stream is complete: each line once, whole, in order,
// the last one without an end. It returns the number of lines.
func (r *rig) checkLogger(name, stream string) int {
	r.t.Helper()
	tag := stream[3:]
	n, ended := 0, false
	for l, err := range r.client().Logs(bounded(r.t), api.LogQuery{Names: []string{name}, Stream: stream, Lines: -1}) {
		if err != nil {
			r.t.Fatalf("the log of %s: %v", name, err)
		}
		n++
		want := fmt.Sprintf("%s %d%s", tag, n, strings.Repeat("x", n%7*n%50))
		switch {
		case ended:
			r.t.Errorf("%s %s: %q follows the end", name, stream, l.Text)
			return n
		case l.Text == fmt.Sprintf("%s end %d", tag, n):
			ended = true
		case l.Text != want:
			r.t.Errorf("%s %s: line %d is %q, not %q", name, stream, n, l.Text, want)
			return n
		}
	}
	if !ended {
		r.t.Errorf("%s %s: it ends with line %d, and its last words are missing", name, stream, n)
	}
	return n
}

// Loggers write without a pause into logs that rotate every few kilobytes, while
// the supervisor, the server and both are killed at random; at last they end
// while no supervisor lives. Each stream is complete, in order and not doubled,
// lines that were cut by a death are joined, and each exit is known (P9, N3).
// Keeps out Q18.
func TestLogsHaveNoHole(t *testing.T) {
	t.Parallel()
	const n = 4
	var b strings.Builder
	b.WriteString("processes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  logger%d:\n    command: [%s]\n    env: {E2E_ROLE: logger}\n    restart: never\n"+
			"    logs: {max_size: %dKiB, max_files: 1000000, compress: %v}\n", i, strconv.Quote(self(t)), 4<<i, i%2 == 0)
	}
	r := newRig(t, b.String())
	r.ok("up", "-d", "--no-wait")
	for i := range n {
		r.wait(fmt.Sprintf("logger%d", i), "running")
	}
	kills := map[string]int{}
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for range scale(12, 200) {
		info := r.info()
		what := []string{"supervisor", "server", "both", "both"}[random.IntN(4)]
		kills[what]++
		switch what {
		case "supervisor":
			strike(t, info.SupervisorPID)
			r.newSupervisor(info.SupervisorPID)
		case "server":
			strike(t, info.PID)
			r.newServer(info.PID)
		default:
			strikeAll(t, info.PID, info.SupervisorPID)
			<-tick() // the FIFOs fill
			r.ok("up", "-d", "--no-wait")
		}
		<-tick()
	}
	eventually(t, "that all are held", func() bool { return r.says(fmt.Sprintf("of %d processes are held", n)) })
	info := r.info()
	thaw := freeze(t, info.PID)
	strike(t, info.SupervisorPID)
	r.write("enough", "")
	// They can end only as far as what they write last fits into the FIFOs, so the
	// next supervisor comes while some still write.
	<-tick()
	thaw()
	r.newSupervisor(info.SupervisorPID)
	lines := 0
	for i := range n {
		name := fmt.Sprintf("logger%d", i)
		e := r.event(0, name, "process.exited", nil)
		if code, ok := fields(t, e)["code"].(float64); !ok || code != 42 {
			t.Errorf("%s: %s", name, e.Data)
		}
		for _, stream := range []string{"stdout", "stderr"} {
			lines += r.checkLogger(name, stream)
		}
	}
	t.Logf("kills %v, %d lines", kills, lines)
	audit(t, r.allEvents())
	r.ok("down")
}
