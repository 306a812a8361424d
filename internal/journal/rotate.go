package journal

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/perdure/perdure/internal/fault"
)

const tempSuffix = ".tmp"

// rotate begins a new segment: head and snapshot go to a temporary name, and
// only the whole appears under the segment's name. On an error nothing has
// changed. Callers hold mu (or are Open).
func (j *Journal) rotate() error {
	if err := fault.Point("journal.rotate.begin"); err != nil {
		return err
	}
	base := j.seq + 1
	path := j.segmentPath(base)
	f, err := j.disk.open(path+tempSuffix, true)
	if err != nil {
		return fmt.Errorf("cannot begin a journal segment: %w", err)
	}
	seg := &origin{base: base, path: path}
	fresh, size, err := j.writeSnapshot(f, seg)
	if err == nil {
		err = j.publish(f, path)
	}
	if err != nil {
		return fmt.Errorf("cannot begin a journal segment: %w", errors.Join(err, f.Close(), j.disk.remove(path+tempSuffix)))
	}
	old := j.file
	j.file, j.latest, j.live, j.distrust = f, fresh, 0, false
	for _, p := range fresh {
		j.live += p.size
	}
	if n := len(j.segs); n > 0 && j.segs[n-1].base == base {
		j.segs = j.segs[:n-1] // it held no entry, and has been replaced by name
	}
	j.segs = append(j.segs, segment{origin: seg, size: size})
	j.setRotateAt()
	j.dropOldest()
	if old != nil {
		return errors.Join(old.Close(), fault.Point("journal.rotate.after_rename"))
	}
	return fault.Point("journal.rotate.after_rename")
}

// publish makes the new segment durable and gives it its name. The old segment
// is made durable first, so that durability keeps the order of numbers.
func (j *Journal) publish(f file, path string) error {
	durable := j.syncState.interval() >= 0
	if durable {
		if j.file != nil && !j.distrust {
			if err := j.file.Sync(); err != nil {
				j.distrust = true
			}
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := fault.Point("journal.rotate.before_rename"); err != nil {
		return err
	}
	if err := j.disk.rename(path+tempSuffix, path); err != nil {
		return err
	}
	if durable {
		// The segment is in place whatever becomes of this; the next fsync of
		// the folder makes the name durable.
		if err := j.disk.syncDir(j.dir); err != nil {
			j.syncState.setError(err)
		}
	}
	return nil
}

// setRotateAt leaves room for at least three times the snapshot.
func (j *Journal) setRotateAt() {
	j.rotateAt = max(j.opts.SegmentSize, 4*(j.live+segmentHeader))
}

// writeSnapshot writes the head of a segment, a copy of every newest frame and
// the mark of the end, and returns where the copies are.
func (j *Journal) writeSnapshot(f file, seg *origin) (map[string]position, int64, error) {
	out := make([]byte, 0, 256<<10)
	out = append(out, encodeSegmentHeader(seg.base, j.boot)...)
	fresh := make(map[string]position, len(j.latest))
	size := int64(0) // bytes already in the file
	reader := frameReader{}
	defer reader.close()
	for key, p := range j.latest {
		frame, err := reader.read(p)
		if err != nil {
			if errors.Is(err, errDamaged) {
				j.damaged++ // the disk has changed it; what can be kept is kept
				continue
			}
			return nil, 0, err
		}
		off := size + int64(len(out))
		out = appendFrame(out, kindSnapshot, p.seq, frame.nanos, key, frame.payload)
		fresh[key] = position{seg: seg, off: off, size: size + int64(len(out)) - off, seq: p.seq}
		if len(out) >= 192<<10 {
			if _, err := f.WriteAt(out, size); err != nil {
				return nil, 0, err
			}
			size += int64(len(out))
			out = out[:0]
		}
	}
	out = appendFrame(out, kindSnapEnd, j.seq, time.Now().UnixNano(), "", nil)
	if _, err := f.WriteAt(out, size); err != nil {
		return nil, 0, err
	}
	return fresh, size + int64(len(out)), nil
}

// dropOldest removes the oldest segments beyond MaxBytes. Callers hold mu.
func (j *Journal) dropOldest() {
	total := int64(0)
	for _, g := range j.segs {
		total += g.size
	}
	// Room for the newest segment to grow into is part of the bound.
	total += max(0, j.rotateAt-j.newest().size)
	for len(j.segs) > 1 && total > j.opts.MaxBytes {
		if err := j.disk.remove(j.segs[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.syncState.setError(fmt.Errorf("cannot drop an old journal segment: %w", err))
			return
		}
		total -= j.segs[0].size
		j.segs = j.segs[1:]
		j.dropped++
	}
}

// Ack says that readers need no entry up to seq any more: older segments that
// hold nothing else are removed.
func (j *Journal) Ack(seq uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	for len(j.segs) > 1 && j.segs[1].base <= seq+1 {
		if err := fault.Point("journal.ack.before_remove"); err != nil {
			return err
		}
		if err := j.disk.remove(j.segs[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot remove a journal segment that is no longer needed: %w", err)
		}
		j.segs = j.segs[1:]
	}
	return nil
}
