//go:build unix

package logstore

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/internal/fault"
)

const (
	// indexStep is the resolution of times, in microseconds.
	indexStep = 1000
	// checkStep is how often it is looked whether the file is still there, in microseconds.
	checkStep = 1_000_000
)

// writer is the segment that is being written. The Sink's lock guards it.
type writer struct {
	dir            string
	log, idx       int
	base           int64
	off, idxOff    int64
	micros, looked int64 // of the last entry; of the last check
	born           int64 // time of the first entry
	end            [2]int64
	closed         []int64 // bases of closed segments, oldest first
	tag            uint16
	open           bool // bytes since the last break
}

// openWriter continues the newest segment of dir, or begins the first one.
// next is the least offset it may begin at.
func openWriter(dir string, next int64) (*writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make a log directory: %w", err)
	}
	if err := cleanTemps(dir); err != nil {
		return nil, err
	}
	list, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	w := &writer{dir: dir, log: -1, idx: -1}
	for _, g := range list {
		w.closed = append(w.closed, g.base)
	}
	if n := len(list); n > 0 {
		last := list[n-1]
		end, err := segmentEnd(dir, last)
		if err != nil {
			return nil, err
		}
		if last.plain && !last.gz && end >= next {
			w.closed = w.closed[:n-1]
			return w, w.resume(last.base)
		}
		next = max(next, end)
	}
	return w, w.begin(next)
}

func segmentEnd(dir string, s segment) (int64, error) {
	g, err := openSegmentAt(dir, s.base)
	if err != nil {
		if s.gz && !s.plain {
			return s.base + 1, nil // damaged; only a base that is free is needed
		}
		return 0, err
	}
	defer g.close()
	n, err := g.length()
	if err != nil && g.zip == nil {
		return 0, err
	}
	return s.base + n, nil
}

// cleanTemps removes what a killed compression left.
func cleanTemps(dir string) error {
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("cannot list the logs: %w", err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, tempSuffix) {
			if err := removeFile(dir + "/" + n); err != nil {
				return err
			}
		}
	}
	return nil
}

func openRaw(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0o600)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

// resume continues a segment behind its last byte.
func (w *writer) resume(base int64) error {
	log, err := openRaw(segmentPath(w.dir, base, ".log"), 0)
	if err != nil {
		return fmt.Errorf("cannot continue a log: %w", err)
	}
	idx, err := openRaw(segmentPath(w.dir, base, ".idx"), 0)
	if err != nil {
		unix.Close(log)
		return fmt.Errorf("cannot continue a log index: %w", err)
	}
	w.log, w.idx, w.base = log, idx, base
	var st, si unix.Stat_t
	if err := errors.Join(unix.Fstat(log, &st), unix.Fstat(idx, &si)); err != nil {
		w.close()
		return fmt.Errorf("cannot continue a log: %w", err)
	}
	w.off, w.idxOff = st.Size, si.Size-si.Size%entrySize
	w.open = w.off > 0 || len(w.closed) > 0
	w.trimIndex()
	return nil
}

// trimIndex drops entries that speak of bytes which a crash of the machine took.
func (w *writer) trimIndex() {
	var b [entrySize]byte
	for w.idxOff > 0 {
		if n, err := unix.Pread(w.idx, b[:], w.idxOff-entrySize); err != nil || n != entrySize {
			break
		}
		if e := parseEntry(b[:]); e.valid() && e.off <= w.off {
			w.open = w.open && (e.tag != tagBreak || e.off != w.off)
			break
		}
		w.idxOff -= entrySize
	}
	if n, err := unix.Pread(w.idx, b[:], 0); err == nil && n == entrySize && w.idxOff > 0 {
		w.born = parseEntry(b[:]).micros
	}
	// An old entry behind the new end would be read as a new one.
	if err := unix.Ftruncate(w.idx, w.idxOff); err != nil {
		w.idxOff += entrySize // it stays, and the reader ignores what steps back
	}
}

// begin makes a new segment at a global offset and makes it the one written.
// The one before it, if any, is closed; nothing changes when begin fails.
func (w *writer) begin(base int64) error {
	// The index first: a reader looks for the data and then for its index.
	idx, err := openRaw(segmentPath(w.dir, base, ".idx"), unix.O_TRUNC)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(w.dir, 0o700); err != nil {
			return fmt.Errorf("cannot make a log directory: %w", err)
		}
		idx, err = openRaw(segmentPath(w.dir, base, ".idx"), unix.O_TRUNC)
	}
	if err != nil {
		return fmt.Errorf("cannot begin a log index: %w", err)
	}
	fault.Here("logstore.begin.index")
	log, err := openRaw(segmentPath(w.dir, base, ".log"), unix.O_EXCL)
	if err != nil {
		unix.Close(idx)
		return fmt.Errorf("cannot begin a log segment: %w", err)
	}
	open := w.open
	if w.log >= 0 {
		if w.base != base {
			w.closed = append(w.closed, w.base)
		}
		w.close()
	}
	fault.Here("logstore.begin.before_link")
	*w = writer{dir: w.dir, log: log, idx: idx, base: base, closed: w.closed, open: open}
	w.link()
	return nil
}

// link lets current.log lead to the segment, for people and their tools. It is
// a convenience: nothing here reads it, so a failure is no failure of the log.
func (w *writer) link() {
	temp := w.dir + "/" + currentName + tempSuffix
	if err := removeFile(temp); err != nil {
		return
	}
	if err := os.Symlink(fmt.Sprintf("%016x.log", w.base), temp); err == nil {
		_ = os.Rename(temp, w.dir+"/"+currentName)
	}
}

// size counts the index too, so that the total is bounded even when single
// bytes arrive.
func (w *writer) size() int64 { return w.off + w.idxOff }

// due says whether the segment should be closed now.
func (w *writer) due(r Retention, micros int64) bool {
	if w.off == 0 {
		return false
	}
	if r.MaxAge > 0 && w.born > 0 && micros-w.born >= r.MaxAge.Microseconds() && w.lineEnds() {
		return true
	}
	size := w.size()
	return size >= 2*r.MaxSize-2*entrySize || size >= r.MaxSize && w.lineEnds()
}

// lineEnds says whether both streams are at the end of a line, as far as this
// writer has written them.
func (w *writer) lineEnds() bool {
	var b [1]byte
	for _, end := range w.end {
		if end == 0 {
			continue
		}
		if n, err := unix.Pread(w.log, b[:], end-1); err != nil || n != 1 || b[0] != '\n' {
			return false
		}
	}
	return true
}

// mark writes an index entry if one is needed before bytes of tag are stored.
func (w *writer) mark(tag uint16, micros int64) error {
	// A clock that was set back does not stop the times.
	if d := micros - w.micros; tag == w.tag && d >= 0 && d < indexStep {
		return nil
	}
	var a [entrySize]byte
	b := entry{off: w.off, tag: tag, micros: micros}.append(a[:0])
	n, err := pwrite(w.idx, b, w.idxOff)
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	if err != nil {
		return fmt.Errorf("cannot write a log index: %w", err)
	}
	fault.Here("logstore.index.after")
	w.idxOff += entrySize
	w.tag, w.micros = tag, micros
	if w.born == 0 {
		w.born = micros
	}
	return nil
}

// lost says whether the file was removed or cut by somebody else.
func (w *writer) lost(micros int64) bool {
	if d := micros - w.looked; d >= 0 && d < checkStep {
		return false
	}
	w.looked = micros
	var st unix.Stat_t
	if err := unix.Fstat(w.log, &st); err != nil {
		return false
	}
	return st.Nlink == 0 || st.Size < w.off
}

// prune removes the oldest closed segments beyond the bounds.
func (w *writer) prune(r Retention) error {
	var err error
	for len(w.closed) > r.MaxFiles && err == nil {
		err = removeSegment(w.dir, w.closed[0])
		w.closed = slices.Delete(w.closed, 0, 1)
	}
	return err
}

func (w *writer) close() {
	unix.Close(w.log)
	unix.Close(w.idx)
	w.log, w.idx = -1, -1
}

func pwrite(fd int, b []byte, off int64) (int, error) {
	for {
		n, err := unix.Pwrite(fd, b, off)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func nowMicros() int64 { return time.Now().UnixMicro() }
