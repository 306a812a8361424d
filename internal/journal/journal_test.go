package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReopenTellsTheLatestAndTheLog(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "journal")
	j, rep, err := Open(dir, Options{})
	if err != nil || len(rep.Repairs) > 0 || rep.LastSeq != 0 {
		t.Fatal(rep, err)
	}
	mustAppend(t, j, "a", "1")
	mustAppend(t, j, "b", "1")
	mustAppend(t, j, "a", "2")
	if _, err := j.Delete("b", []byte("last words")); err != nil {
		t.Fatal(err)
	}
	seq, err := j.AppendAll([]Entry{{Key: "c", Payload: []byte("1")}, {Key: "d", Payload: []byte("1")}, {Key: "c", Delete: true}})
	if err != nil || seq != 7 {
		t.Fatal(seq, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append("a", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	j, rep = mustOpen(t, dir, Options{})
	if diff := cmp.Diff(Report{Segments: 2, LastSeq: 7}, rep); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"a": "2", "d": "1"}, values(t, j)); diff != "" {
		t.Error(diff)
	}
	want := []string{"1 a=1", "2 b=1", "3 a=2", "4 -b last words", "5 c=1", "6 d=1", "7 -c "}
	if diff := cmp.Diff(want, readAll(t, j, 0)); diff != "" {
		t.Error(diff)
	}
	if seq := mustAppend(t, j, "a", "3"); seq != 8 {
		t.Errorf("seq %d after reopening, want 8", seq)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, segmentsIn(t, dir)[0]): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
}

func TestRotationCopiesTheLivingAndAckRemoves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{SegmentSize: 2000, SyncEvery: -1}
	j, _, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, "quiet", "once")
	mustAppend(t, j, "doomed", "x")
	if _, err := j.Delete("doomed", nil); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		mustAppend(t, j, fmt.Sprintf("k%d", i%3), strings.Repeat("v", 50)+fmt.Sprint(i))
	}
	if n := len(segmentsIn(t, dir)); n < 5 {
		t.Fatalf("%d segments, want at least 5", n)
	}
	if got := readAll(t, j, 0); len(got) != 103 || got[0] != "1 quiet=once" {
		t.Fatalf("%d entries, first %q", len(got), got[0])
	}
	if err := j.Ack(50); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, j, 50)
	if len(got) != 53 || !strings.HasPrefix(got[0], "51 ") {
		t.Errorf("after Ack(50): %d entries after 50, first %q", len(got), got[0])
	}
	if err := j.Ack(1 << 60); err != nil {
		t.Fatal(err)
	}
	if n := len(segmentsIn(t, dir)); n != 1 {
		t.Errorf("%d segments are left after everything is acknowledged", n)
	}
	want := values(t, j)
	if want["quiet"] != "once" || len(want) != 4 {
		t.Errorf("values: %v", want)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, rep := mustOpen(t, dir, o)
	if len(rep.Repairs) > 0 || rep.Jumped {
		t.Error(rep)
	}
	if diff := cmp.Diff(want, values(t, j)); diff != "" {
		t.Error(diff)
	}
	for k, f := range j.Latest() {
		if k == "quiet" && f.Seq != 1 {
			t.Errorf("the copy of entry 1 has number %d", f.Seq)
		}
	}
}

func TestFollowOverRotationAndWaiting(t *testing.T) {
	t.Parallel()
	j, _ := mustOpen(t, t.TempDir(), Options{SegmentSize: 500, SyncEvery: -1})
	next := puller(t, j.Follow(t.Context(), 0))
	const n = 500
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		for i := range n {
			if _, err := j.Append("k", fmt.Appendf(nil, "%d", i)); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range n {
		f, err := next()
		if err != nil || f.Seq != uint64(i)+1 || string(f.Payload) != fmt.Sprint(i) {
			t.Fatalf("item %d: %v %v", i, show(f), err)
		}
	}
}

// Entries that come while a reader is inside a segment, and a segment that is
// begun after them, are no gap.
func TestFollowWhileTheSegmentGrowsAndIsClosed(t *testing.T) {
	t.Parallel()
	j, _ := mustOpen(t, t.TempDir(), Options{SegmentSize: 500, SyncEvery: -1})
	last := uint64(0)
	add := func() {
		var err error
		if last, err = j.Append("k", []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	add()
	want := uint64(0)
	for f, err := range j.Follow(t.Context(), 0) {
		if want++; err != nil || f.Seq != want {
			t.Fatalf("item %d: %v %v", want, show(f), err)
		}
		if want < last {
			continue
		}
		if last > 200 {
			return
		}
		for before := j.Stats().Segments; j.Stats().Segments == before; {
			add()
		}
	}
}

func TestFollowEndsWithContextAndClose(t *testing.T) {
	t.Parallel()
	j, _, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	begun := make(chan struct{}, 2)
	for _, c := range []context.Context{ctx, t.Context()} {
		readers.Go(func() {
			for _, err := range j.Follow(c, 0) {
				if err != nil {
					t.Error(err)
				}
				begun <- struct{}{}
			}
		})
	}
	mustAppend(t, j, "k", "v")
	<-begun
	<-begun
	cancel()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
}

func TestGapIsToldOnceAndReadingGoesOn(t *testing.T) {
	t.Parallel()
	j, _ := mustOpen(t, t.TempDir(), Options{SegmentSize: 500, SyncEvery: -1})
	for i := range 50 {
		mustAppend(t, j, "k", fmt.Sprint(i))
	}
	if err := j.Ack(20); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, j, 3)
	var first uint64
	if _, err := fmt.Sscanf(got[0], "gap to %d", &first); err != nil || first < 5 || first > 21 {
		t.Fatalf("first item %q", got[0])
	}
	for i, line := range got[1:] {
		if want := fmt.Sprintf("%d k=%d", first+uint64(i), first+uint64(i)-1); line != want {
			t.Fatalf("item %d is %q, want %q", i, line, want)
		}
	}
	next := puller(t, j.Follow(t.Context(), 1000))
	var gap *GapError
	if _, err := next(); !errors.As(err, &gap) || gap.First > 21 {
		t.Errorf("a reader from another journal got %v", err)
	}
	if f, err := next(); err != nil || f.Seq < 5 {
		t.Errorf("it goes on with %v, %v", show(f), err)
	}
}

func TestMaxBytesDropsTheOldest(t *testing.T) {
	t.Parallel()
	j, _ := mustOpen(t, t.TempDir(), Options{SegmentSize: 1000, MaxBytes: 5000, SyncEvery: -1})
	mustAppend(t, j, "quiet", "once")
	for i := range 500 {
		mustAppend(t, j, "k", fmt.Sprint(i))
		if s := j.Stats(); s.Bytes > 5200 {
			t.Fatalf("%d bytes are kept", s.Bytes)
		}
	}
	if s := j.Stats(); s.Dropped == 0 || s.Keys != 2 {
		t.Errorf("%+v", s)
	}
	if v := values(t, j); v["quiet"] != "once" {
		t.Error("the value of a quiet key was dropped")
	}
}

func TestConcurrentAppenders(t *testing.T) {
	t.Parallel()
	for _, every := range []int64{-1, 0, int64(DefaultSyncEvery)} {
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			t.Parallel()
			j, _ := mustOpen(t, t.TempDir(), Options{SegmentSize: 8000, SyncEvery: time.Duration(every)})
			var group sync.WaitGroup
			const writers, each = 8, 40
			for w := range writers {
				group.Go(func() {
					for i := range each {
						if _, err := j.Append(fmt.Sprint("w", w), fmt.Appendf(nil, "%d", i)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			group.Wait()
			last := map[string]int{}
			for i, line := range readAll(t, j, 0) {
				var seq uint64
				var rest string
				if _, err := fmt.Sscanf(line, "%d %s", &seq, &rest); err != nil || seq != uint64(i)+1 {
					t.Fatalf("item %d is %q", i, line)
				}
				key, value, _ := strings.Cut(rest, "=")
				if value != fmt.Sprint(last[key]) {
					t.Fatalf("%s: %s comes when %d is due", key, value, last[key])
				}
				last[key]++
			}
			for w := range writers {
				if n := last[fmt.Sprint("w", w)]; n != each {
					t.Errorf("writer %d: %d entries", w, n)
				}
			}
		})
	}
}

func TestBoundsOfAnEntry(t *testing.T) {
	t.Parallel()
	j, _ := mustOpen(t, t.TempDir(), Options{})
	if _, err := j.Append(strings.Repeat("k", MaxKey+1), nil); err == nil {
		t.Error("a key that is too long is taken")
	}
	if _, err := j.Append("k", make([]byte, MaxPayload+1)); err == nil {
		t.Error("a payload that is too long is taken")
	}
	if seq := mustAppend(t, j, "", ""); seq != 1 {
		t.Errorf("seq %d after refused entries", seq)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	head := encodeSegmentHeader(1, 0)
	head[offVersion] = FormatVersion + 1
	sum := checksum(head[:offVersionCRC])
	head[offVersionCRC], head[offVersionCRC+1], head[offVersionCRC+2], head[offVersionCRC+3] =
		byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	path := filepath.Join(dir, segmentName(1))
	if err := os.WriteFile(path, head, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(dir, Options{})
	var v *VersionError
	if !errors.As(err, &v) || v.Version != FormatVersion+1 || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("got %v", err)
	}
	if err := Check(dir); !errors.As(err, &v) || v.Version != FormatVersion+1 {
		t.Errorf("Check got %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(head) {
		t.Error("the newer file was touched")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	j, _, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(dir); err != nil {
		t.Errorf("Check of our own, open: %v", err)
	}
	if err := errors.Join(j.Close(), Check(filepath.Join(dir, "none"))); err != nil {
		t.Error(err)
	}
}
