package event_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store/sqlite"
	"go.uber.org/goleak"
)

// writerEnv makes the test binary a writer on the file that it names.
const writerEnv = "PERDURE_TEST_EVENT_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		if err := writeForever(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// writeForever appends with several producers and prints each Seq when its
// event is acknowledged. The data of event n of a producer say so.
func writeForever(path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return err
	}
	l, err := event.Open(ctx, s)
	if err != nil {
		return err
	}
	start, err := l.Cursor(ctx, "journal")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	errs := make(chan error)
	for range 4 {
		go func() {
			for {
				seq, err := l.Append(ctx, api.Event{Type: "own"})
				if err != nil {
					errs <- err
					return
				}
				mu.Lock()
				fmt.Println("seq", seq)
				mu.Unlock()
			}
		}()
	}
	go func() {
		for cursor := start + 1; ; cursor++ {
			data := []byte(strconv.FormatUint(cursor, 10))
			if err := l.AppendFrom(ctx, "journal", cursor, []api.Event{{Type: "journal", Data: data}}); err != nil {
				errs <- err
				return
			}
			mu.Lock()
			fmt.Println("cursor", cursor)
			mu.Unlock()
		}
	}()
	return <-errs
}

// TestKilledWriterLosesNothing kills a writer with SIGKILL again and again.
// What it acknowledged is there, Seq has no gap, and the source's events are
// there once each, up to its cursor.
func TestKilledWriterLosesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	for round := range 8 {
		seq, cursor := runAndKill(t, path, 40+round*37)
		checkFile(t, path, seq, cursor)
	}
}

// runAndKill starts a writer, kills it after so many lines and returns the
// highest that it acknowledged, also in lines that were still on their way.
func runAndKill(t *testing.T, path string, lines int) (seq, cursor uint64) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for sc := bufio.NewScanner(out); sc.Scan(); {
		var kind string
		var value uint64
		if _, err := fmt.Sscan(sc.Text(), &kind, &value); err != nil {
			continue // the last line may be cut off
		}
		switch kind {
		case "seq":
			seq = max(seq, value)
		case "cursor":
			cursor = max(cursor, value)
		}
		if n++; n == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if n < lines {
		t.Fatalf("the writer ended by itself after %d lines", n)
	}
	return seq, cursor
}

func checkFile(t *testing.T, path string, seq, cursor uint64) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, last, err := s.Bounds(t.Context())
	if err != nil || first != 1 || last < seq {
		t.Errorf("events %d to %d (%v), acknowledged up to %d", first, last, err, seq)
	}
	kept, err := s.Cursor(t.Context(), "journal")
	if err != nil || kept < cursor {
		t.Errorf("cursor %d (%v), acknowledged %d", kept, err, cursor)
	}
	events, err := s.Select(t.Context(), event.Selection{Through: last, Limit: int(last) + 1})
	if err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for i, e := range events {
		if e.Seq != uint64(i+1) {
			t.Fatalf("event %d has Seq %d", i+1, e.Seq)
		}
		if e.Type == "journal" {
			if string(e.Data) != strconv.FormatUint(next, 10) {
				t.Fatalf("entry %s of the source comes where %d should", e.Data, next)
			}
			next++
		}
	}
	if uint64(len(events)) != last || next != kept+1 {
		t.Errorf("%d events of %d, %d entries of %d", len(events), last, next-1, kept)
	}
}
