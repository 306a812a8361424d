//go:build unix

package journal

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// helperWrite appends for ever and tells each number once Append has returned.
func helperWrite(dir string) int {
	j, _, err := Open(dir, Options{SegmentSize: 20_000, SyncEvery: DefaultSyncEvery})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		seq, err := j.Append(fmt.Sprint("k", i%10), bytes.Repeat([]byte("p"), i%700))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := fmt.Println(seq); err != nil {
			return 1
		}
		if faultPlanned() && seq%100 == 0 {
			if err := j.Ack(seq); err != nil {
				return 1
			}
		}
	}
}

// helperSome appends a hundred times, whatever comes of it, and tells the last
// number that was acknowledged.
func helperSome(dir string) int {
	j, _, err := Open(dir, Options{SegmentSize: 2000, SyncEvery: -1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	last := uint64(0)
	for i := range 100 {
		if seq, err := j.Append(fmt.Sprint("k", i%10), []byte("payload")); err == nil {
			last = seq
		}
	}
	_ = j.Ack(last / 2) // may be made to fail
	fmt.Println(last)
	return 0 // without Close
}

func TestSIGKILLLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acked uint64
	for round := range 15 {
		cmd := helperCommand(t, "write", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 50+37*round && lines.Scan(); n++ {
			acked = parse(t, lines.Text())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// What was told before the signal took effect counts as well; a number
		// that was cut short is smaller, and so does no harm.
		for lines.Scan() {
			if text := lines.Text(); len(text) >= len(fmt.Sprint(acked)) {
				acked = max(acked, parse(t, text))
			}
		}
		_ = cmd.Wait() // it was killed
		checkAfterKill(t, dir, acked)
	}
}

func parse(t *testing.T, s string) uint64 {
	t.Helper()
	var n uint64
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}

// faultPlanned says whether this helper shall pass the points of Ack as well.
func faultPlanned() bool { return strings.Contains(os.Getenv("PERDURE_FAULT"), "journal.ack") }

func checkAfterKill(t *testing.T, dir string, acked uint64) {
	t.Helper()
	j, rep, err := Open(dir, Options{SegmentSize: 20_000, SyncEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	if rep.LastSeq < acked || rep.Jumped {
		t.Fatalf("%+v, but number %d was acknowledged", rep, acked)
	}
	got := readAll(t, j, 0)
	first := uint64(1)
	if len(got) > 0 && strings.HasPrefix(got[0], "gap to ") { // Ack was at work
		first = parse(t, strings.TrimPrefix(got[0], "gap to "))
		got = got[1:]
	}
	if first-1+uint64(len(got)) != rep.LastSeq {
		t.Fatalf("%d entries from %d on, the last number is %d", len(got), first, rep.LastSeq)
	}
	for i, line := range got {
		if !strings.HasPrefix(line, fmt.Sprintf("%d k", first+uint64(i))) {
			t.Fatalf("entry %d is %.20q", first+uint64(i), line)
		}
	}
	// The file is left as the kill left it, and not with a clean end.
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
}

// helperLimit fills its file size limit, raises it and goes on. RLIMIT_FSIZE
// stands for a full disk: write(2) comes back short and then with an error.
func helperLimit(dir string) int {
	signal.Ignore(syscall.SIGXFSZ)
	fail := func(args ...any) int { fmt.Fprintln(os.Stderr, args...); return 1 }
	j, _, err := Open(dir, Options{SegmentSize: 1 << 20, SyncEvery: -1})
	if err != nil {
		return fail(err)
	}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &lim); err != nil {
		return fail(err)
	}
	small := syscall.Rlimit{Cur: 1500, Max: lim.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return fail(err)
	}
	good, bad := 0, 0
	for i := range 20 {
		seq, err := j.Append("k", bytes.Repeat([]byte{'a' + byte(i)}, 100))
		if err != nil {
			bad++
			continue
		}
		good++
		if seq != uint64(good) {
			return fail("number", seq, "after", good, "entries")
		}
	}
	if good == 0 || bad == 0 {
		return fail("good", good, "bad", bad)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lim); err != nil {
		return fail(err)
	}
	if seq, err := j.Append("k", []byte("after")); err != nil || seq != uint64(good)+1 {
		return fail("after the shortage:", seq, err)
	}
	fmt.Println(good + 1)
	return 0 // without Close
}

func TestFullDiskAndRecovery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := helperCommand(t, "limit", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	n := parse(t, string(out))
	j, rep := mustOpen(t, dir, Options{})
	if rep.LastSeq != n || len(rep.Repairs) > 0 || values(t, j)["k"] != "after" {
		t.Errorf("%+v, want %d entries", rep, n)
	}
	if got := readAll(t, j, 0); uint64(len(got)) != n {
		t.Errorf("%d entries, want %d", len(got), n)
	}
}
