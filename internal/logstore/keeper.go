package logstore

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/fault"
)

const (
	// settle is how long a closed segment waits before it is packed. Under a
	// flood it is gone by then, and the work is saved for nothing to read it.
	settle = time.Second
	// ageStep is how often ages are looked at.
	ageStep = time.Minute
)

// keeper packs and ages closed segments, one at a time, on one goroutine that
// rests as long as it works. It touches no segment that is written.
type keeper struct {
	settle time.Duration
	sweep  func()                       // rotates by age; called every ageStep
	fail   func(name string, err error) // reports
	ctx    context.Context              // ends with the Capture
	stop   context.CancelFunc
	done   chan struct{}
	wake   chan struct{}

	mu     sync.Mutex
	due    map[string]time.Time // by name
	dirs   map[string]string
	active string             // the name that is worked on
	cancel context.CancelFunc // ends the work on active
	idle   *sync.Cond
}

func newKeeper(sweep func(), fail func(string, error)) *keeper {
	k := &keeper{
		settle: settle, sweep: sweep, fail: fail,
		done: make(chan struct{}), wake: make(chan struct{}, 1),
		due: map[string]time.Time{}, dirs: map[string]string{},
	}
	k.idle = sync.NewCond(&k.mu)
	k.ctx, k.stop = context.WithCancel(context.Background())
	return k
}

// pack asks that the closed segments of a directory be packed soon.
func (k *keeper) pack(name, dir string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.due[name]; ok {
		return
	}
	k.due[name], k.dirs[name] = time.Now().Add(k.settle), dir
	k.poke()
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// forget ends all work on name and returns when nothing of it goes on.
func (k *keeper) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.due, name)
	delete(k.dirs, name)
	if k.active == name {
		k.cancel()
	}
	for k.active == name {
		k.idle.Wait()
	}
}

// run works until close.
func (k *keeper) run() {
	defer close(k.done)
	age := time.NewTicker(ageStep)
	defer age.Stop()
	next := time.NewTimer(time.Hour)
	defer next.Stop()
	for {
		wait := k.once()
		next.Reset(wait)
		select {
		case <-k.ctx.Done():
			return
		case <-age.C:
			k.sweep()
		case <-k.wake:
		case <-next.C:
		}
	}
}

// once packs everything that is due and returns how long to wait for more.
func (k *keeper) once() time.Duration {
	for {
		k.mu.Lock()
		wait, name := time.Hour, ""
		for n, at := range k.due {
			if d := time.Until(at); d < wait {
				wait, name = d, n
			}
		}
		if name == "" || wait > 0 || k.ctx.Err() != nil {
			k.mu.Unlock()
			return wait
		}
		dir := k.dirs[name]
		delete(k.due, name)
		delete(k.dirs, name)
		ctx, cancel := context.WithCancel(k.ctx)
		k.active, k.cancel = name, cancel
		k.mu.Unlock()

		if err := packDir(ctx, dir); err != nil && ctx.Err() == nil {
			k.fail(name, err)
		}
		cancel()
		k.mu.Lock()
		k.active = ""
		k.idle.Broadcast()
		k.mu.Unlock()
	}
}

func (k *keeper) close() {
	k.stop()
	<-k.done
}

// packDir packs all segments of a directory but the newest, the one written.
func packDir(ctx context.Context, dir string) error {
	list, err := listSegments(dir)
	if err != nil {
		return err
	}
	for i, s := range list {
		if i == len(list)-1 || !s.plain {
			continue
		}
		if err := packSegment(ctx, dir, s.base); err != nil {
			return err
		}
	}
	return nil
}

// packSegment replaces the files of a segment by packed ones. At any instant
// either form is there and whole; the retention may remove the segment meanwhile.
func packSegment(ctx context.Context, dir string, base int64) error {
	for _, ext := range []string{".idx", ".log"} {
		from := segmentPath(dir, base, ext)
		if err := packFile(ctx, from, from+".gz"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot pack a log segment: %w", err)
		}
	}
	fault.Here("logstore.pack.before_remove")
	err := os.Remove(segmentPath(dir, base, ".log"))
	fault.Here("logstore.pack.after_remove")
	if errors.Is(err, fs.ErrNotExist) {
		return removeSegment(dir, base) // removed while it was packed
	}
	if err != nil {
		return fmt.Errorf("cannot remove a packed log segment: %w", err)
	}
	return removeFile(segmentPath(dir, base, ".idx"))
}

// packFile writes to a temporary file, syncs and renames it.
func packFile(ctx context.Context, from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	temp := to + tempSuffix
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), removeFile(temp))
		}
	}()
	z := gzip.NewWriter(out)
	if err = copyPaced(ctx, z, in); err != nil {
		return err
	}
	if err = z.Close(); err != nil {
		return err
	}
	if err = out.Sync(); err != nil {
		return err
	}
	if err = out.Close(); err != nil {
		return err
	}
	// Ages are told by the time of the last byte, not of the packing.
	if err = os.Chtimes(temp, st.ModTime(), st.ModTime()); err != nil {
		return err
	}
	fault.Here("logstore.pack.before_rename")
	return os.Rename(temp, to)
}

// copyPaced copies and rests after each piece as long as the piece took, so that
// packing never takes more than half of one core.
func copyPaced(ctx context.Context, to io.Writer, from io.Reader) error {
	b := make([]byte, 256<<10)
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		start := time.Now()
		n, err := from.Read(b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		rest.Reset(time.Since(start))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rest.C:
		}
	}
}

// removeOld removes closed segments that were last written before a time.
func removeOld(dir string, before time.Time) error {
	list, err := listSegments(dir)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, s := range list[:len(list)-1] {
		ext := ".log"
		if !s.plain {
			ext = ".log.gz"
		}
		st, err := os.Stat(segmentPath(dir, s.base, ext))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot tell the age of a log segment: %w", err)
		}
		if st.ModTime().Before(before) {
			if err := removeSegment(dir, s.base); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeSegment removes all files of a segment, the plain forms first: the
// keeper sees by them that a segment went while it was packed.
func removeSegment(dir string, base int64) error {
	var err error
	for _, ext := range []string{".log", ".idx", ".log.gz", ".idx.gz"} {
		err = errors.Join(err, removeFile(segmentPath(dir, base, ext)))
		fault.Here("logstore.remove.one")
	}
	return err
}

// removeFile removes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", filepath.Base(path), err)
	}
	return nil
}
