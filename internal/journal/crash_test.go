package journal

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sample makes a journal of one segment and returns its bytes, the offset at
// which each entry ends and the values after each entry.
func sample(t testing.TB) (name string, data []byte, ends []int64, after []map[string]string) {
	t.Helper()
	dir := t.TempDir()
	j, _, err := Open(dir, Options{SyncEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	now := map[string]string{}
	note := func() {
		ends = append(ends, j.newest().size)
		after = append(after, maps.Clone(now))
	}
	note()
	for i := range 12 {
		key := fmt.Sprint("key", i%3)
		if i == 7 {
			if _, err := j.Delete(key, []byte("gone")); err != nil {
				t.Fatal(err)
			}
			delete(now, key)
		} else {
			now[key] = strings.Repeat("x", i*3) + fmt.Sprint(i)
			mustAppend(t, j, key, now[key])
		}
		note()
	}
	name = filepath.Base(j.newest().path)
	// Read before Close: the end is that of a process that was killed.
	data, err = os.ReadFile(j.newest().path)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return name, data, ends, after
}

func plant(t testing.TB, name string, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCutAtEveryByte(t *testing.T) {
	t.Parallel()
	name, data, ends, after := sample(t)
	for cut := range len(data) + 1 {
		dir := plant(t, name, data[:cut])
		j, rep, err := Open(dir, Options{SyncEvery: -1})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= int64(cut) {
			whole++
		}
		if diff := cmp.Diff(after[whole], values(t, j)); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		atEnd := slices.Contains(ends, int64(cut))
		if !atEnd && cut > segmentHeader && len(rep.Repairs) != 1 {
			t.Fatalf("cut at %d: the report is %+v", cut, rep)
		}
		if atEnd && (len(rep.Repairs) > 0 || rep.Jumped) {
			t.Fatalf("cut at %d, the end of an entry: %+v", cut, rep)
		}
		// It goes on as if the lost write had never been tried.
		if cut >= segmentHeader {
			if seq := mustAppend(t, j, "new", "v"); seq != uint64(whole)+1 {
				t.Fatalf("cut at %d: the next number is %d, want %d", cut, seq, whole+1)
			}
			if got := readAll(t, j, 0); len(got) != whole+1 {
				t.Fatalf("cut at %d: %q", cut, got)
			}
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlipOfEveryByte(t *testing.T) {
	t.Parallel()
	name, data, ends, _ := sample(t)
	for at := range data {
		bad := slices.Clone(data)
		bad[at] ^= 0x41
		dir := plant(t, name, bad)
		j, rep, err := Open(dir, Options{SyncEvery: -1})
		if err != nil {
			t.Fatalf("flip at %d: %v", at, err)
		}
		hit := entryAt(ends, int64(at)) // 0: before the first entry
		if len(rep.Repairs) == 0 && (at < 36 || at >= segmentHeader) {
			t.Fatalf("flip at %d: nothing is reported", at)
		}
		got := readAll(t, j, 0)
		kept := 0
		for n := 1; n < len(ends); n++ {
			if n == hit {
				continue
			}
			if slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("%d ", n)) }) {
				kept++
			}
		}
		want := len(ends) - 1
		if hit > 0 {
			want--
		}
		if kept != want {
			t.Fatalf("flip at %d in entry %d: %d of the other %d entries are kept: %q", at, hit, kept, want, got)
		}
		// No number is given a second time to something else.
		if seq := mustAppend(t, j, "new", "v"); seq < uint64(len(ends)-1) {
			t.Fatalf("flip at %d: the next number is %d", at, seq)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j2, rep, err := Open(dir, Options{SyncEvery: -1})
		if err != nil || len(rep.Repairs) > 0 || values(t, j2)["new"] != "v" {
			t.Fatalf("flip at %d, second opening: %v %v", at, rep, err)
		}
		if err := j2.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// entryAt returns the number of the entry that holds the byte at off.
func entryAt(ends []int64, off int64) int {
	for n := 1; n < len(ends); n++ {
		if off >= ends[n-1] && off < ends[n] {
			return n
		}
	}
	return 0
}

func TestDamagedSnapshotFallsBackOnOlderSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _, err := Open(dir, Options{SegmentSize: 600, SyncEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, "quiet", "once")
	for i := 0; len(j.segs) < 3; i++ {
		mustAppend(t, j, "k", fmt.Sprint(i))
	}
	want := values(t, j)
	path := j.newest().path
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[segmentHeader+frameHeader+1] ^= 0xff // in the body of the first copy
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	j, rep := mustOpen(t, dir, Options{SyncEvery: -1})
	if diff := cmp.Diff(want, values(t, j)); diff != "" || len(rep.Repairs) != 1 {
		t.Errorf("%v %s", rep, diff)
	}
	// The damaged segment is no longer the one that everything hangs on.
	if err := j.Ack(1 << 60); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, values(t, j)); diff != "" {
		t.Error(diff)
	}
}

func TestPowerCutJumpsTheNumbers(t *testing.T) {
	t.Parallel()
	name, data, ends, _ := sample(t)
	head := encodeSegmentHeader(1, bootHash()+1) // another boot's
	copy(data, head)
	dir := plant(t, name, data)
	j, rep := mustOpen(t, dir, Options{})
	last := uint64(len(ends) - 1)
	if !rep.Jumped || len(rep.Repairs) > 0 {
		t.Fatalf("%+v", rep)
	}
	if seq := mustAppend(t, j, "k", "v"); seq != last+SeqJump+1 {
		t.Errorf("the next number is %d", seq)
	}
	got := readAll(t, j, last)
	want := []string{fmt.Sprintf("gap to %d", last+SeqJump+1), fmt.Sprintf("%d k=v", last+SeqJump+1)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCleanEndNeedsNoJumpAfterAReboot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, "k", "v")
	path := j.newest().path
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(encodeSegmentHeader(1, bootHash()+1), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	j, rep := mustOpen(t, dir, Options{})
	if rep.Jumped || len(rep.Repairs) > 0 {
		t.Errorf("%+v", rep)
	}
	if seq := mustAppend(t, j, "k", "v"); seq != 2 {
		t.Errorf("the next number is %d", seq)
	}
}

func FuzzOpen(f *testing.F) {
	name, data, _, _ := sample(f)
	f.Add(data)
	f.Add(data[:segmentHeader+10])
	f.Add(append(slices.Clone(data), data...))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := plant(t, name, data)
		j, _, err := Open(dir, Options{SyncEvery: -1})
		if err != nil {
			return // a newer version
		}
		if j.LastSeq() > 1<<62 {
			_ = j.Close()
			return // a forged number leaves no room for more
		}
		seq, err := j.Append("new", []byte("v"))
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, j, 0)
		before := values(t, j)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j, rep, err := Open(dir, Options{SyncEvery: -1})
		if err != nil || rep.LastSeq != seq {
			t.Fatalf("second opening: %+v %v, want number %d", rep, err, seq)
		}
		if diff := cmp.Diff(before, values(t, j)); diff != "" {
			t.Fatal(diff)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
