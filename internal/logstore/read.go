package logstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxLine is the greatest length of a Line's Text in bytes; what is longer
	// comes in pieces.
	MaxLine = 1 << 20
	// chunkSize is how much of a segment a reader takes at once; mergeChunk when
	// there are many readers.
	chunkSize  = 64 << 10
	mergeChunk = 16 << 10
)

// Query selects lines of one process.
type Query struct {
	// Stream is "stdout", "stderr" or empty for both.
	Stream string
	// Lines is how many lines to begin with, counted from the end; -1 means all
	// that are kept. It is ignored with Since or Cursor.
	Lines int
	// Since selects lines that began at or after a time.
	Since time.Time
	// Cursor continues after a line of an earlier reading, at the oldest line
	// that is kept if that one is not. It goes before Since.
	Cursor string
	// Follow goes on with new lines until the context ends.
	Follow bool
}

// Line is one line that a process wrote.
type Line struct {
	// Time is when the first byte of the line was taken from the process, to
	// the millisecond. Where the index is damaged it is the time of the file.
	Time time.Time
	// Stream is "stdout" or "stderr".
	Stream string
	// Text is the line without its newline, otherwise as it was written. It is
	// valid until the next line is asked for.
	Text []byte
	// Cut says that the line does not end here: it is longer than MaxLine and
	// goes on in the next Line of the stream, or (without Follow) the process
	// has not ended it yet.
	Cut bool
	// Cursor continues after this line.
	Cursor string
}

// Read yields the lines of one process in the order in which they ended. dir
// is the LogDir; no Capture is needed, and one in another process may write and
// rotate meanwhile. A process without logs has no lines. An error is the last
// item, but for a damaged packed segment: reading goes on behind it. When ctx
// ends, its error is the last item of a reading without Follow; with Follow the
// reading just ends.
func Read(ctx context.Context, dir, name string, q Query) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r, err := newReader(dir, name, q, chunkSize)
		if err != nil {
			yield(Line{}, err)
			return
		}
		defer r.close()
		var f *follower
		if q.Follow {
			if f, err = newFollower(dir, []string{r.dir}); err != nil {
				yield(Line{}, err)
				return
			}
			defer func() { _ = f.close() }() // it only watched
		}
		if err := r.start(ctx, q); err != nil {
			yield(Line{}, err)
			return
		}
		for {
			line, ok, err := r.next(ctx)
			switch {
			case err != nil:
				if q.Follow && ctx.Err() != nil {
					return
				}
				if !yield(Line{}, err) || !r.damaged {
					return
				}
				r.damaged = false
			case ok:
				if !yield(line, nil) {
					return
				}
			case !q.Follow:
				return
			default:
				r.rest()
				changed, err := f.wait(ctx, true)
				if err != nil {
					if ctx.Err() == nil {
						yield(Line{}, err)
					}
					return
				}
				r.wake(changed[r.dir])
			}
		}
	}
}

// End returns the cursor behind all that is kept of a process now: what a reading
// from there yields has come later.
func End(dir, name string) (string, error) {
	r, err := newReader(dir, name, Query{}, mergeChunk)
	if err != nil {
		return "", err
	}
	defer r.close()
	end, err := r.end()
	if err != nil {
		return "", err
	}
	return formatCursor([2]int64{end, end}), nil
}

// partial is a line that has begun.
type partial struct {
	buf   []byte
	start int64 // global offset of the first byte
	time  int64
}

// reader yields the lines of one process. It has one owner.
type reader struct {
	dir    string
	want   [2]bool
	follow bool
	size   int // of chunk

	seg    *openSegment // nil: none open
	pos    int64        // global offset of the next byte
	limit  int64        // do not read beyond; MaxInt64: no limit
	sealed bool         // the next segment exists: what is read now is all there is
	look   bool         // something was made or removed in the directory

	chunk []byte // what was read and not taken, beginning at pos
	buf   []byte

	mark

	pend    [2]partial
	skip    [2]int64 // bytes of a stream before this offset were given already
	from    int64    // lines that began before this offset are left out
	damaged bool     // the last error was of one segment, which was left
	unended bool     // the last line was given although it has no end yet
	tick    int
}

// mark is how far a reader has applied the index of the open segment.
type mark struct {
	cur     entry // what holds at the reader's pos
	nexti   int   // number of the first entry not applied
	nextOff int64 // global offset where it applies; MaxInt64: unknown
	breaks  bool  // a break was met: pending lines end here
}

func newReader(dir, name string, q Query, size int) (*reader, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	r := &reader{dir: filepath.Join(dir, name), follow: q.Follow, size: size, limit: math.MaxInt64, look: true,
		mark: mark{nextOff: math.MaxInt64}}
	switch q.Stream {
	case "":
		r.want = [2]bool{true, true}
	case "stdout":
		r.want[0] = true
	case "stderr":
		r.want[1] = true
	default:
		return nil, fmt.Errorf("cannot read the stream %q: it is \"stdout\", \"stderr\" or empty for both", q.Stream)
	}
	return r, nil
}

// seek goes to a place: per stream, the offset of the first byte not given.
func (r *reader) seek(at [2]int64) {
	r.drop()
	r.skip = at
	r.pos = min(at[0], at[1])
	r.pend = [2]partial{}
}

// drop forgets the open segment and all that was read from it.
func (r *reader) drop() {
	if r.seg != nil {
		r.seg.close()
		r.seg = nil
	}
	r.chunk, r.sealed, r.breaks = nil, false, false
	r.nextOff = math.MaxInt64
}

func (r *reader) close() {
	r.drop()
	r.rest()
}

// rest gives memory back that is not needed until there is more to read.
func (r *reader) rest() {
	if len(r.chunk) == 0 {
		r.buf, r.chunk = nil, nil
	}
}

// next returns the next line; false means that there is none now.
func (r *reader) next(ctx context.Context) (Line, bool, error) {
	for {
		if r.breaks {
			if line, ok := r.flush(false); ok {
				return line, true, nil
			}
			r.breaks = false
			r.advance()
			continue
		}
		if len(r.chunk) == 0 {
			if r.tick++; r.tick%16 == 1 && ctx.Err() != nil {
				return Line{}, false, ctx.Err()
			}
			more, err := r.fill()
			if err != nil {
				return Line{}, false, err
			}
			if !more && !r.breaks {
				if r.follow && r.limit == math.MaxInt64 {
					return Line{}, false, nil
				}
				line, ok := r.flush(true)
				return line, ok, nil
			}
			continue
		}
		if r.nextOff <= r.pos {
			r.advance()
			continue
		}
		if line, ok := r.take(); ok {
			return line, true, nil
		}
	}
}

// take consumes bytes of the run at pos, up to the end of one line.
func (r *reader) take() (Line, bool) {
	data := r.chunk[:min(int64(len(r.chunk)), r.nextOff-r.pos)]
	st := 0
	if r.cur.tag == tagStderr {
		st = 1
	}
	if d := r.skip[st] - r.pos; d > 0 {
		r.consume(int(min(d, int64(len(data)))))
		return Line{}, false
	}
	p := &r.pend[st]
	if len(p.buf) == 0 {
		p.start, p.time = r.pos, r.cur.micros
	}
	room := MaxLine - len(p.buf)
	i := bytes.IndexByte(data[:min(len(data), room+1)], '\n')
	var text []byte
	switch {
	case i >= 0:
		text = data[:i]
		r.consume(i + 1)
	case len(data) > room:
		text = data[:room]
		r.consume(room)
	default:
		p.buf = append(p.buf, data...)
		r.consume(len(data))
		return Line{}, false
	}
	if len(p.buf) > 0 {
		text = append(p.buf, text...)
		p.buf = text[:0]
		if cap(text) > 4*chunkSize {
			p.buf = nil // one very long line does not hold memory
		}
	}
	r.skip[st] = r.pos
	if !r.want[st] || p.start < r.from {
		return Line{}, false
	}
	r.unended = false
	return r.line(st, p.time, text, i < 0), true
}

func (r *reader) consume(n int) {
	r.pos += int64(n)
	r.chunk = r.chunk[n:]
}

// flush gives a pending line as it is, the older one first.
func (r *reader) flush(cut bool) (Line, bool) {
	for {
		st := 0
		if len(r.pend[0].buf) == 0 || len(r.pend[1].buf) > 0 && r.pend[1].start < r.pend[0].start {
			st = 1
		}
		p := &r.pend[st]
		if len(p.buf) == 0 {
			return Line{}, false
		}
		text := p.buf
		p.buf = nil
		r.skip[st] = r.pos
		if r.want[st] && p.start >= r.from {
			r.unended = cut
			return r.line(st, p.time, text, cut), true
		}
	}
}

func (r *reader) line(st int, micros int64, text []byte, cut bool) Line {
	name := "stdout"
	if st == 1 {
		name = "stderr"
	}
	at := [2]int64{r.pos, r.pos}
	if o := &r.pend[1-st]; len(o.buf) > 0 {
		at[1-st] = o.start
	} else if r.skip[1-st] > r.pos {
		at[1-st] = r.skip[1-st]
	}
	return Line{Time: time.UnixMicro(micros), Stream: name, Text: text, Cut: cut, Cursor: formatCursor(at)}
}

// formatCursor writes the places of both streams in hexadecimal, once if they
// are the same.
func formatCursor(at [2]int64) string {
	b := strconv.AppendInt(make([]byte, 0, 40), at[0], 16)
	if at[1] != at[0] {
		b = strconv.AppendInt(append(b, '-'), at[1], 16)
	}
	return string(b)
}

func parseCursor(s string) (at [2]int64, err error) {
	a, b, two := strings.Cut(s, "-")
	if !two {
		b = a
	}
	for i, t := range []string{a, b} {
		v, perr := strconv.ParseUint(t, 16, 62)
		if perr != nil {
			return at, fmt.Errorf("cannot read the log cursor %q: take one from a line of this process", s)
		}
		at[i] = int64(v)
	}
	return at, nil
}

// advance applies the entries at or before pos.
func (r *reader) advance() {
	r.nextOff = math.MaxInt64
	if r.seg == nil {
		return
	}
	for {
		e, ok := r.seg.idx.at(r.nexti)
		if !ok {
			return
		}
		if at := r.seg.base + e.off; e.valid() && e.off >= r.cur.off {
			if at > r.pos {
				r.nextOff = at
				return
			}
			if e.tag == tagBreak {
				r.nexti++
				if at == r.pos {
					r.breaks, r.nextOff = true, r.pos
					return
				}
				continue
			}
			r.cur = e
		}
		r.nexti++
	}
}

// fill reads the next chunk; false means that there is nothing more now. Data
// is read before the index, which is written before the data: so every byte
// here has its entry.
func (r *reader) fill() (bool, error) {
	for {
		if r.pos >= r.limit {
			return false, nil
		}
		if r.seg == nil {
			if ok, err := r.enter(); !ok || err != nil {
				return false, err
			}
		}
		if r.buf == nil {
			r.buf = make([]byte, r.size)
		}
		n, err := r.seg.readAt(r.buf[:min(int64(r.size), r.limit-r.pos)], r.pos)
		if n > 0 {
			r.chunk = r.buf[:n]
			if r.nextOff == math.MaxInt64 || r.nextOff <= r.pos {
				r.advance()
			}
			return true, nil
		}
		if r.advance(); r.breaks {
			return true, nil
		}
		if !errors.Is(err, io.EOF) {
			base := r.seg.base
			var lerr error
			r.damaged, lerr = r.leave(base + 1)
			return false, errors.Join(fmt.Errorf("cannot read the log segment %016x: %w", base, err), lerr)
		}
		on, err := r.atEnd()
		if !on || err != nil {
			return false, err
		}
	}
}

// atEnd is called at the end of a segment; true means to read on.
func (r *reader) atEnd() (bool, error) {
	if r.sealed {
		moved, err := r.leave(r.seg.base + 1)
		r.damaged = moved && err != nil
		return moved, err
	}
	after := r.seg.base
	found := r.pos > after && segmentExists(r.dir, r.pos)
	if !found && (r.look || !r.follow || r.seg.zip != nil) {
		list, err := listSegments(r.dir)
		if err != nil {
			return false, err
		}
		found = len(list) > 0 && list[len(list)-1].base > after
		if !found && len(list) > 0 && r.replaced() {
			// Everything was removed and begun anew: what is there now is all new.
			r.drop()
			r.pend, r.skip, r.pos = [2]partial{}, [2]int64{}, 0
			r.look = false
			return true, nil
		}
		r.look = false
	}
	// The writer stores the last byte of a segment before it makes the next one.
	r.sealed = found
	return found, nil
}

// replaced says whether the open file is no longer the segment of its name.
func (r *reader) replaced() bool {
	if r.seg.zip != nil {
		return false
	}
	mine, err := r.seg.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(segmentPath(r.dir, r.seg.base, ".log"))
	return errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(mine, there)
}

func segmentExists(dir string, base int64) bool {
	for _, ext := range []string{".log", ".log.gz"} {
		if _, err := os.Stat(segmentPath(dir, base, ext)); err == nil {
			return true
		}
	}
	return false
}

// leave goes to the first segment with a base of at least from that can be
// opened. Lines that are open go on there, unless bytes between were removed.
// moved says that there is one; the error is of segments passed over.
func (r *reader) leave(from int64) (moved bool, err error) {
	r.drop()
	list, err := listSegments(r.dir)
	if err != nil {
		return false, err
	}
	for _, s := range list {
		if s.base < from {
			continue
		}
		oerr := r.open(s.base, max(r.pos, s.base))
		if oerr == nil {
			return true, err
		}
		if !errors.Is(oerr, os.ErrNotExist) { // else: removed meanwhile
			err = errors.Join(err, oerr)
		}
	}
	return false, err
}

// enter opens the segment that has pos, or the oldest one when it is not kept.
func (r *reader) enter() (bool, error) {
	for range 8 { // each turn loses a race against the retention
		list, err := listSegments(r.dir)
		if err != nil || len(list) == 0 {
			return false, err
		}
		at := list[0]
		for _, s := range list {
			if s.base <= r.pos {
				at = s
			}
		}
		pos := max(r.pos, at.base)
		err = r.open(at.base, pos)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			var lerr error
			r.damaged, lerr = r.leave(at.base + 1)
			return false, errors.Join(err, lerr)
		}
		if n, ok := r.seg.size(); ok && pos > at.base+n {
			// A place beyond the end is of logs that were removed.
			r.seek([2]int64{list[0].base, list[0].base})
			return true, r.open(list[0].base, list[0].base)
		}
		return true, nil
	}
	return false, fmt.Errorf("cannot read the logs in %s: segments are removed faster than they can be opened", r.dir)
}

// open opens a segment to read from a global offset.
func (r *reader) open(base, pos int64) error {
	r.drop()
	g, err := openSegmentAt(r.dir, base)
	if err != nil {
		return err
	}
	if pos != r.pos {
		for st := range r.pend {
			r.pend[st].buf = nil // its end is not kept
		}
	}
	r.seg, r.pos = g, pos
	r.cur = entry{tag: tagStdout, micros: g.mod.UnixMicro()}
	r.nexti = 0
	if pos > base { // at the base, a break ends lines of the segment before
		r.nexti = g.idx.covering(pos - base)
	}
	// Several entries may be at one offset: the last one holds, a break does not count.
	for r.nexti > 0 {
		e, ok := g.idx.at(r.nexti)
		if ok && e.valid() && e.tag != tagBreak && e.off <= pos-base {
			break
		}
		r.nexti--
	}
	r.advance()
	return nil
}

// wake tells that something changed; made that files came or went.
func (r *reader) wake(made bool) { r.look = r.look || made }
