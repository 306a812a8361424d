package journal

import (
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/internal/fault"
)

// maxIdleBuffer is the largest write buffer that is kept for the next append.
const maxIdleBuffer = 1 << 20

// Append adds an entry with the new value of key and returns its number. Once
// it has returned, a SIGKILL loses nothing; see Options.SyncEvery for the rest.
// After an error the entry is not kept, but for an error of fsync (SyncEvery 0),
// which leaves that open. A later Append may succeed.
func (j *Journal) Append(key string, payload []byte) (uint64, error) {
	return j.durably(j.Write(key, payload))
}

// Delete adds an entry that removes key; its payload is for readers.
func (j *Journal) Delete(key string, payload []byte) (uint64, error) {
	return j.durably(j.WriteDelete(key, payload))
}

// Write is Append without the wait for an fsync; Durable waits for it. After an
// error the entry is not kept.
func (j *Journal) Write(key string, payload []byte) (uint64, error) {
	return j.appendOne(key, payload, kindData)
}

// WriteDelete is Delete without the wait for an fsync.
func (j *Journal) WriteDelete(key string, payload []byte) (uint64, error) {
	return j.appendOne(key, payload, kindDelete)
}

func (j *Journal) durably(seq uint64, err error) (uint64, error) {
	if err == nil {
		err = j.Durable(seq)
	}
	return seq, err
}

func (j *Journal) appendOne(key string, payload []byte, kind byte) (uint64, error) {
	if err := checkEntry(key, payload); err != nil {
		return 0, err
	}
	j.mu.Lock()
	if err := j.ready(); err != nil {
		j.mu.Unlock()
		return 0, err
	}
	j.buf = appendFrame(j.buf[:0], kind, j.seq+1, time.Now().UnixNano(), key, payload)
	off, err := j.write(j.buf)
	if err != nil {
		j.mu.Unlock()
		return 0, err
	}
	j.commit(key, kind, off, int64(len(j.buf)))
	seq := j.seq
	j.wrote()
	j.mu.Unlock()
	return seq, nil
}

// AppendAll adds entries in order, in one write, and returns the number of the
// last one; the others precede it without a gap. A crash may keep a leading
// part of them; an error keeps none.
func (j *Journal) AppendAll(entries []Entry) (uint64, error) {
	for _, e := range entries {
		if err := checkEntry(e.Key, e.Payload); err != nil {
			return 0, err
		}
	}
	j.mu.Lock()
	if err := j.ready(); err != nil {
		j.mu.Unlock()
		return 0, err
	}
	if len(entries) == 0 {
		defer j.mu.Unlock()
		return j.seq, nil
	}
	now := time.Now().UnixNano()
	j.buf = j.buf[:0]
	ends := make([]int64, len(entries))
	for i, e := range entries {
		j.buf = appendFrame(j.buf, e.kind(), j.seq+1+uint64(i), now, e.Key, e.Payload)
		ends[i] = int64(len(j.buf))
	}
	off, err := j.write(j.buf)
	if err != nil {
		j.mu.Unlock()
		return 0, err
	}
	begin := int64(0)
	for i, e := range entries {
		j.commit(e.Key, e.kind(), off+begin, ends[i]-begin)
		begin = ends[i]
	}
	seq := j.seq
	j.wrote()
	j.mu.Unlock()
	return j.durably(seq, nil)
}

func (e Entry) kind() byte {
	if e.Delete {
		return kindDelete
	}
	return kindData
}

func checkEntry(key string, payload []byte) error {
	if len(key) > MaxKey {
		return fmt.Errorf("cannot journal a key of %d bytes: at most %d are allowed", len(key), MaxKey)
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("cannot journal %d bytes for %q: at most %d are allowed", len(payload), key, MaxPayload)
	}
	return nil
}

// ready begins a new segment where it is time for one. Callers hold mu.
func (j *Journal) ready() error {
	if j.closed {
		return ErrClosed
	}
	if !j.distrust && j.newest().size < j.rotateAt {
		return nil
	}
	err := j.rotate()
	if err == nil {
		return nil
	}
	if j.distrust {
		return err
	}
	// The old segment still takes entries; try again when it has grown.
	j.rotateAt = j.newest().size + max(j.opts.SegmentSize/16, 1)
	return nil
}

// write puts b behind the valid bytes of the newest segment, whole or not at
// all. A part that could not be taken back is overwritten by the next write,
// since writes go to an offset and readers stop at the valid size. Callers hold mu.
func (j *Journal) write(b []byte) (off int64, err error) {
	if err := fault.Point("journal.append.before"); err != nil {
		return 0, fmt.Errorf("cannot write the journal: %w", err)
	}
	g := j.newest()
	if _, err := j.file.WriteAt(b, g.size); err != nil {
		// A part may have been written (WriteAt does not tell how much before an
		// error). It is taken back so that the file ends with a whole frame; a
		// failure of that costs nothing, see above.
		_ = j.file.Truncate(g.size)
		return 0, fmt.Errorf("cannot write the journal: %w", err)
	}
	off = g.size
	if err := fault.Point("journal.append.after"); err != nil {
		return 0, fmt.Errorf("cannot write the journal: %w", errors.Join(err, j.file.Truncate(off)))
	}
	g.size += int64(len(b))
	return off, nil
}

// commit gives the entry at off its number. Callers hold mu.
func (j *Journal) commit(key string, kind byte, off, size int64) {
	j.seq++
	if kind == kindDelete {
		j.forget(key)
		return
	}
	j.remember(key, position{seg: j.newest().origin, off: off, size: size, seq: j.seq})
}

// wrote wakes readers and the syncer. Callers hold mu.
func (j *Journal) wrote() {
	if cap(j.buf) > maxIdleBuffer {
		j.buf = nil
	}
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
	if j.syncState.interval() >= 0 {
		j.syncState.wake()
	}
}
