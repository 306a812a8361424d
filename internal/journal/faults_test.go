//go:build faults && unix

package journal

import (
	"bufio"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/perdure/perdure/internal/fault"
)

// TestKillAtEveryPoint kills a writer at each point of the journal, at the first
// and at a later pass, and looks at what is left.
func TestKillAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, point := range fault.Points() {
		if !strings.HasPrefix(point, "journal.") {
			continue
		}
		for _, pass := range []string{"1", "4"} {
			t.Run(point+":"+pass, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				cmd := helperCommand(t, "write", dir)
				cmd.Env = append(cmd.Env, "PERDURE_FAULT="+point+"=kill:"+pass)
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				var acked uint64
				for lines := bufio.NewScanner(out); lines.Scan(); {
					acked = parse(t, lines.Text())
				}
				_ = cmd.Wait() // the state tells
				ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
				if !ok || ws.Signal() != syscall.SIGKILL {
					t.Fatalf("it ended with %v", cmd.ProcessState)
				}
				if _, err := os.Stat(dir); err != nil {
					t.Fatal(err)
				}
				checkAfterKill(t, dir, acked)
			})
		}
	}
}

// TestErrorAtEveryPoint lets each point fail once and for all; what was
// acknowledged is there.
func TestErrorsKeepWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"journal.append.before", "journal.append.after", "journal.rotate.before_rename", "journal.rotate.begin"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := helperCommand(t, "some", dir)
			cmd.Env = append(cmd.Env, "PERDURE_FAULT="+point+"=error:30")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			checkAfterKill(t, dir, parse(t, string(out)))
		})
	}
}
