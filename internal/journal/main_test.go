package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// helperEnv makes the test binary play a process of its own: "write DIR", "some
// DIR" or "limit DIR".
const helperEnv = "PERDURE_JOURNAL_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "write":
		os.Exit(helperWrite(os.Args[1]))
	case "some":
		os.Exit(helperSome(os.Args[1]))
	case "limit":
		os.Exit(helperLimit(os.Args[1]))
	}
	goleak.VerifyTestMain(m)
}

func helperCommand(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), helperEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

func mustOpen(t testing.TB, dir string, o Options) (*Journal, Report) {
	t.Helper()
	j, rep, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return j, rep
}

func mustAppend(t testing.TB, j *Journal, key, payload string) uint64 {
	t.Helper()
	seq, err := j.Append(key, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// values returns the newest payload of each key.
func values(t testing.TB, j *Journal) map[string]string {
	t.Helper()
	out := map[string]string{}
	for f, err := range j.LatestErr() {
		if err != nil {
			t.Fatal(err)
		}
		out[f.Key] = string(f.Payload)
	}
	return out
}

// readAll reads what is there after a number, as text, gaps included, and stops
// at the last entry.
func readAll(t testing.TB, j *Journal, after uint64) []string {
	t.Helper()
	last := j.LastSeq()
	if after >= last {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out []string
	for f, err := range j.Follow(ctx, after) {
		var gap *GapError
		switch {
		case errors.As(err, &gap):
			out = append(out, fmt.Sprintf("gap to %d", gap.First))
			if gap.First > last {
				return out
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		out = append(out, show(f))
		if f.Seq >= last {
			return out
		}
	}
	t.Fatal("the follower ended early")
	return nil
}

func show(f Frame) string {
	if f.Deleted {
		return fmt.Sprintf("%d -%s %s", f.Seq, f.Key, f.Payload)
	}
	return fmt.Sprintf("%d %s=%s", f.Seq, f.Key, f.Payload)
}

// puller reads a follower one item at a time.
func puller(t *testing.T, seq iter.Seq2[Frame, error]) func() (Frame, error) {
	next, stop := iter.Pull2(seq)
	t.Cleanup(stop)
	return func() (Frame, error) {
		f, err, ok := next()
		if !ok {
			t.Fatal("the follower ended early")
		}
		return f, err
	}
}

func segmentsIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
