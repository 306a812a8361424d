package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// forgetful is a disk that knows what a power cut may take: the bytes of a file
// since its last sync, each write on its own, in any order, torn between two
// sectors; and the names since the last sync of the directory, from some point
// on, as file systems with a journal keep the order of names.
type forgetful struct {
	osDisk

	mu    sync.Mutex
	names map[string]*inode // as a power cut leaves them at the least
	moves []func(names map[string]*inode)
	now   map[string]*inode
}

// inode is a file. A change takes the bytes, and a choice of how much of its own
// size it may keep.
type inode struct {
	durable, plain []byte
	pending        []change
}

type change func(b []byte, keep func(size int) int) []byte

func whole(size int) int { return size }

func newForgetful() *forgetful {
	return &forgetful{names: map[string]*inode{}, now: map[string]*inode{}}
}

func (d *forgetful) move(f func(map[string]*inode)) {
	f(d.now)
	d.moves = append(d.moves, f)
}

func (d *forgetful) open(path string, create bool) (file, error) {
	f, err := d.osDisk.open(path, create)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := filepath.Base(path)
	if create {
		n := &inode{}
		d.move(func(names map[string]*inode) { names[name] = n })
	}
	return &forgetfulFile{f, d, d.now[name]}, nil
}

func (d *forgetful) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, b := filepath.Base(from), filepath.Base(to)
	n := d.now[a]
	d.move(func(names map[string]*inode) { delete(names, a); names[b] = n })
	return d.osDisk.rename(from, to)
}

func (d *forgetful) remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.move(func(names map[string]*inode) { delete(names, filepath.Base(path)) })
	return d.osDisk.remove(path)
}

func (d *forgetful) syncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.moves {
		m(d.names)
	}
	d.moves = nil
	return nil
}

// sector is the least that a disk writes whole.
const sector = 512

// cut writes into dir what a power cut leaves, and returns the disk that goes on
// with it. Choose draws a number from 0 to n.
func (d *forgetful) cut(dir string, choose func(n int, what string) int) (*forgetful, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := maps.Clone(d.names)
	for _, m := range d.moves[:choose(len(d.moves), "names kept")] {
		m(names)
	}
	next := newForgetful()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		b := slices.Clone(n.durable)
		for _, c := range n.pending {
			b = c(b, func(size int) int {
				switch choose(2, "fate of a write") {
				case 0:
					return 0
				case 1:
					return min(size, sector*choose(size/sector, "sectors"))
				}
				return size
			})
		}
		next.names[name] = &inode{durable: b, plain: slices.Clone(b)}
		next.now[name] = next.names[name]
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	return next, nil
}

type forgetfulFile struct {
	file
	d *forgetful
	n *inode
}

func (f *forgetfulFile) change(c change) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.plain = c(f.n.plain, whole)
	f.n.pending = append(f.n.pending, c)
}

func (f *forgetfulFile) WriteAt(b []byte, off int64) (int, error) {
	b2 := slices.Clone(b)
	f.change(func(to []byte, keep func(int) int) []byte {
		k := int64(keep(len(b2)))
		if k == 0 {
			return to
		}
		to = append(to, make([]byte, max(0, off+k-int64(len(to))))...)
		copy(to[off:], b2[:k])
		return to
	})
	return f.file.WriteAt(b, off)
}

func (f *forgetfulFile) Truncate(size int64) error {
	f.change(func(to []byte, keep func(int) int) []byte {
		if keep(sector) < sector {
			return to
		}
		to = append(to, make([]byte, max(0, size-int64(len(to))))...)
		return to[:size]
	})
	return f.file.Truncate(size)
}

func (f *forgetfulFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.durable, f.n.pending = slices.Clone(f.n.plain), nil
	return nil
}

// TestPowerCuts appends, syncs, acknowledges, restarts and cuts the power at
// random. Whatever was durable is there, nothing else is told, and no number is
// given twice: not even that of an entry which is lost and was seen.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp("", "perdure-power-")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(root) }()
		w := &powerWorld{seen: map[uint64]string{}, lost: map[uint64]bool{}, root: root, dir: root, d: newForgetful()}
		w.open(t)
		defer func() { w.j.crash() }()
		t.Repeat(map[string]func(*rapid.T){
			"append": w.append, "append more": w.append, "append all": w.appendAll, "sync": w.sync, "ack": w.ack,
			"kill": w.kill, "end": w.end, "power cut": w.powerCut,
		})
	})
}

// An end in order leaves a mark. What is appended after it and lost with the
// power must not look like that end, or its number is given once more.
func TestPowerCutAfterACleanEnd(t *testing.T) {
	t.Parallel()
	d, o, dir := newForgetful(), Options{SyncEvery: time.Hour}, t.TempDir()
	for _, last := range []bool{false, true} {
		j, _, err := open(dir, o, d, 1)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, j, "k", "v")
		if last {
			j.crash()
		} else if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	dir = t.TempDir()
	d, err := d.cut(dir, func(int, string) int { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	j, rep, err := open(dir, o, d, 2)
	if err != nil {
		t.Fatal(err)
	}
	if seq := mustAppend(t, j, "k", "other"); seq <= 2 || !rep.Jumped {
		t.Errorf("number %d is given once more: %+v", seq, rep)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// powerWorld is one journal over several boots.
type powerWorld struct {
	root, dir string
	boot      uint64
	d         *forgetful
	j         *Journal
	seen      map[uint64]string // every entry that was ever acknowledged
	durable   uint64            // all of those up to here were made durable
	acked     uint64            // those up to here are not needed any more
	lost      map[uint64]bool   // what a power cut has taken, as it may
}

func (w *powerWorld) open(t *rapid.T) {
	j, _, err := open(w.dir, Options{SegmentSize: 900, SyncEvery: time.Hour}, w.d, 77+w.boot)
	if err != nil {
		t.Fatal(err)
	}
	w.j = j
}

func (w *powerWorld) append(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
	value := strings.Repeat("v", rapid.IntRange(0, 700).Draw(t, "size"))
	act, mark := w.j.Append, ""
	if rapid.IntRange(0, 9).Draw(t, "deletes") == 0 {
		act, mark = w.j.Delete, "-"
	}
	seq, err := act(key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	w.note(t, seq, key+"="+mark+value)
}

func (w *powerWorld) appendAll(t *rapid.T) {
	last, err := w.j.AppendAll([]Entry{{Key: "a", Payload: []byte("1")}, {Key: "b", Payload: []byte("2")}})
	if err != nil {
		t.Fatal(err)
	}
	w.note(t, last-1, "a=1")
	w.note(t, last, "b=2")
}

func (w *powerWorld) note(t *rapid.T, seq uint64, text string) {
	if before, twice := w.seen[seq]; twice {
		t.Fatalf("number %d is given to %.20q and was given to %.20q", seq, text, before)
	}
	w.seen[seq] = text
}

func (w *powerWorld) sync(t *rapid.T) {
	if err := w.j.Sync(); err != nil {
		t.Fatal(err)
	}
	w.durable = w.j.LastSeq()
}

func (w *powerWorld) ack(t *rapid.T) {
	back := uint64(rapid.IntRange(0, 5).Draw(t, "back"))
	w.acked = max(w.acked, w.j.LastSeq()-min(back, w.j.LastSeq()))
	if err := w.j.Ack(w.acked); err != nil {
		t.Fatal(err)
	}
}

// kill is a SIGKILL: the machine goes on.
func (w *powerWorld) kill(t *rapid.T) {
	last := w.j.LastSeq()
	w.j.crash()
	w.open(t)
	w.check(t, last)
}

// end is an end in order, and the next beginning.
func (w *powerWorld) end(t *rapid.T) {
	w.durable = w.j.LastSeq()
	if err := w.j.Close(); err != nil {
		t.Fatal(err)
	}
	w.open(t)
	w.check(t, w.durable)
}

func (w *powerWorld) powerCut(t *rapid.T) {
	w.j.crash()
	w.boot++
	w.dir = filepath.Join(w.root, fmt.Sprint(w.boot))
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := w.d.cut(w.dir, func(n int, what string) int { return rapid.IntRange(0, n).Draw(t, what) })
	if err != nil {
		t.Fatal(err)
	}
	w.d = d
	w.open(t)
	have := w.check(t, w.durable)
	for seq := range w.seen {
		w.lost[seq] = w.lost[seq] || have[seq] == ""
	}
}

// check holds the journal against what was seen: every entry up to must is
// there, and nothing that was never written.
func (w *powerWorld) check(t *rapid.T, must uint64) map[uint64]string {
	have := w.read(t)
	newest := map[string]uint64{} // of a key, among those that must be there
	for seq, text := range w.seen {
		if seq > must || w.lost[seq] {
			continue
		}
		if seq > w.acked && have[seq] == "" {
			t.Fatalf("entry %d is lost, %d was durable: %.20q", seq, must, text)
		}
		key, _, _ := strings.Cut(text, "=")
		newest[key] = max(newest[key], seq)
	}
	now := map[string]uint64{}
	for f, err := range w.j.LatestErr() {
		if err != nil {
			t.Fatal(err)
		}
		now[f.Key] = f.Seq
		if text := f.Key + "=" + string(f.Payload); w.seen[f.Seq] != text {
			t.Fatalf("the newest value of %s is entry %d, which was written as %.20q, not %.20q", f.Key, f.Seq, w.seen[f.Seq], text)
		}
	}
	for key, seq := range newest {
		at, live := now[key]
		if live && at < seq || !live && !w.deletedSince(key, seq) {
			t.Fatalf("the newest value of %s is entry %d (live: %v), and %d was durable", key, at, live, seq)
		}
	}
	return have
}

// read returns the entries that a reader gets, and holds that each was written so.
func (w *powerWorld) read(t *rapid.T) map[uint64]string {
	have := map[uint64]string{}
	last := w.j.LastSeq()
	if last == 0 {
		return have
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for f, err := range w.j.Follow(ctx, 0) {
		var gap *GapError
		switch {
		case errors.As(err, &gap):
			if gap.First > last {
				return have
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		text := f.Key + "=" + string(f.Payload)
		if f.Deleted {
			text = f.Key + "=-" + string(f.Payload)
		}
		if w.seen[f.Seq] != text {
			t.Fatalf("entry %d is told as %.20q, it was written as %.20q", f.Seq, text, w.seen[f.Seq])
		}
		if have[f.Seq] = text; f.Seq >= last {
			return have
		}
	}
	t.Fatal("the reading ended early")
	return nil
}

func (w *powerWorld) deletedSince(key string, seq uint64) bool {
	for at, text := range w.seen {
		if at >= seq && strings.HasPrefix(text, key+"=-") {
			return true
		}
	}
	return false
}

// crash ends a journal as SIGKILL does: nothing more is written.
func (j *Journal) crash() {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return
	}
	j.closed = true
	close(j.done)
	j.mu.Unlock()
	j.syncState.running.Wait()
	_ = j.file.Close() // nothing is lost by it: it has no buffer
}

// What was appended is durable one interval later, whether or not more comes,
// and at once where the interval is set to 0.
func TestSyncInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newForgetful()
		j, _, err := open(t.TempDir(), Options{SyncEvery: 100 * time.Millisecond}, d, 1)
		if err != nil {
			t.Fatal(err)
		}
		step := func(what string, want int, wait time.Duration) {
			t.Helper()
			if what != "" {
				mustAppend(t, j, "k", what)
			}
			if wait > 0 {
				<-time.After(wait)
			}
			synctest.Wait()
			d.mu.Lock()
			defer d.mu.Unlock()
			if n := len(d.now[filepath.Base(j.newest().path)].pending); n != want {
				t.Errorf("after %q and %s %d writes are not durable, want %d", what, wait, n, want)
			}
		}
		step("first", 1, 99*time.Millisecond)
		step("shares the flush", 2, 0)
		step("", 0, time.Millisecond)
		step("waits", 1, 0)
		j.SetSyncEvery(0)
		step("is flushed at once, with what waited", 0, time.Second)
		j.SetSyncEvery(time.Second)
		step("waits longer", 1, 999*time.Millisecond)
		step("", 0, time.Millisecond)
		j.SetSyncEvery(-1)
		step("waits for ever", 1, time.Hour)
		j.SetSyncEvery(time.Hour)
		step("", 1, 59*time.Minute)
		j.SetSyncEvery(time.Second)
		step("", 1, 999*time.Millisecond)
		step("", 0, time.Millisecond)
		step("is overtaken", 1, 0)
		j.SetSyncEvery(0)
		step("", 0, time.Millisecond)
		seq, err := j.Write("k", []byte("is not waited for"))
		if err == nil {
			err = j.Durable(seq)
		}
		if err != nil {
			t.Error(err)
		}
		step("", 0, 0)
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}

// lazyDisk takes its time for an fsync, or refuses it.
type lazyDisk struct {
	*forgetful
	mu   sync.Mutex
	took time.Duration
	err  error
}

type lazyFile struct {
	file
	d *lazyDisk
}

func (d *lazyDisk) open(path string, create bool) (file, error) {
	f, err := d.forgetful.open(path, create)
	return &lazyFile{f, d}, err
}

func (d *lazyDisk) be(took time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.took, d.err = took, err
}

func (f *lazyFile) Sync() error {
	f.d.mu.Lock()
	took, err := f.d.took, f.d.err
	f.d.mu.Unlock()
	if took > 0 {
		<-time.After(took)
	}
	if err != nil {
		return err
	}
	return f.file.Sync()
}

// An fsync that fails or is slow is told once, when it begins, and once when it is
// over; whoever is told may append.
func TestSyncHealthIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []string
		var j *Journal
		d := &lazyDisk{forgetful: newForgetful()}
		o := Options{SyncEvery: time.Second, OnSync: func(h SyncHealth) {
			mu.Lock()
			told = append(told, fmt.Sprintf("%v %v", h.Err, h.Slow))
			mu.Unlock()
			mustAppend(t, j, "told", "x")
		}}
		j, _, err := open(t.TempDir(), o, d, 1)
		if err != nil {
			t.Fatal(err)
		}
		want := func(what string, wait time.Duration, lines ...string) {
			t.Helper()
			<-time.After(wait)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, lines) {
				t.Errorf("%s: told %q, want %q", what, told, lines)
			}
			told = nil
		}
		mustAppend(t, j, "k", "1")
		want("all is well", time.Minute)
		d.be(time.Minute, nil)
		mustAppend(t, j, "k", "2")
		want("not slow yet", time.Second+SlowSync-time.Millisecond)
		want("slow while it lasts", time.Millisecond, "<nil> true")
		want("told once", 10*time.Minute)
		d.be(0, nil)
		mustAppend(t, j, "k", "quick")
		want("quick again", time.Second, "<nil> false")
		d.be(0, syscall.EIO)
		mustAppend(t, j, "k", "3")
		want("it fails", time.Second, syscall.EIO.Error()+" false")
		// What is appended now begins a segment, which cannot be made durable either.
		if _, err := j.Append("k", nil); !errors.Is(err, syscall.EIO) {
			t.Errorf("an append on a disk that has failed: %v", err)
		}
		d.be(0, nil)
		mustAppend(t, j, "k", "4")
		want("it works again", time.Second, "<nil> false")
		d.be(0, syscall.EIO)
		mustAppend(t, j, "k", "5")
		want("it fails", time.Minute, syscall.EIO.Error()+" false")
		d.be(0, nil)
		want("it works again, and nobody has appended", syncRetry, "<nil> false")
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}
