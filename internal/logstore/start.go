package logstore

import (
	"bytes"
	"context"
	"io"
	"math"
	"time"
)

// start goes to where a query begins.
func (r *reader) start(ctx context.Context, q Query) error {
	switch {
	case q.Cursor != "":
		at, err := parseCursor(q.Cursor)
		if err != nil {
			return err
		}
		r.seek(at)
		return nil
	case !q.Since.IsZero():
		return r.since(q.Since)
	case q.Lines < 0:
		r.seek([2]int64{})
		return nil
	}
	return r.tail(ctx, q.Lines)
}

// since goes to the first entry at or after a time. A line that was open there
// began before and is left out.
func (r *reader) since(t time.Time) error {
	list, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	micros := t.UnixMicro()
	place := int64(0)
	if len(list) > 0 {
		place = list[0].base
	}
	for i := len(list) - 1; i >= 0; i-- {
		g, err := openSegmentAt(r.dir, list[i].base)
		if err != nil {
			continue // removed meanwhile, or damaged: its neighbours decide
		}
		n := g.idx.count()
		k := g.idx.search(0, n, func(e entry) bool { return e.micros >= micros })
		e, ok := g.idx.at(k)
		last := k >= n || !ok
		if n == 0 && !g.mod.Before(t) {
			last, e = false, entry{} // without an index the time of the file decides
		}
		if last {
			// Everything of this segment is older.
			if place = list[i].base + 1; i < len(list)-1 {
				place = list[i+1].base
			} else if n, err := g.length(); err == nil {
				place = list[i].base + n
			}
		} else {
			place = list[i].base + e.off
		}
		g.close()
		if last || k > 0 {
			break
		}
	}
	at, err := r.back(place, 1, [2]bool{true, true})
	if err != nil {
		return err
	}
	r.seek(at)
	r.from = place
	return nil
}

// tail goes to the place from which n lines are left.
func (r *reader) tail(ctx context.Context, n int) error {
	end, err := r.end()
	if err != nil {
		return err
	}
	at, err := r.back(end, n+1, r.want)
	if err != nil {
		return err
	}
	r.seek(at)
	// The way back may have gone too far (packed segments are taken whole, and a
	// last line may have no end): count, and pass over what is too much.
	probe := &reader{dir: r.dir, want: r.want, size: r.size, limit: end, mark: mark{nextOff: math.MaxInt64}, follow: r.follow}
	defer probe.close()
	count, err := probe.count(ctx, at)
	if err != nil {
		return err
	}
	if count <= n {
		return nil
	}
	places, err := probe.placeAfter(ctx, at, count-n)
	if err != nil {
		return err
	}
	r.seek(places)
	return nil
}

// count counts the lines from at to the limit. A line that is open there counts
// unless the reading will follow: then it comes later, when it is whole.
func (r *reader) count(ctx context.Context, at [2]int64) (int, error) {
	r.seek(at)
	n := 0
	for {
		_, ok, err := r.next(ctx)
		if err != nil && !r.damaged {
			return 0, err
		}
		if r.damaged {
			r.damaged = false
			continue
		}
		if !ok || r.unended && r.follow {
			return n, nil
		}
		n++
	}
}

// placeAfter returns the place behind n lines.
func (r *reader) placeAfter(ctx context.Context, at [2]int64, n int) ([2]int64, error) {
	r.seek(at)
	for n > 0 {
		line, ok, err := r.next(ctx)
		if err != nil && !r.damaged {
			return at, err
		}
		if r.damaged {
			r.damaged = false
			continue
		}
		if !ok {
			break
		}
		if at, err = parseCursor(line.Cursor); err != nil {
			return at, err
		}
		n--
	}
	return at, nil
}

// end returns the global offset behind the last byte.
func (r *reader) end() (int64, error) {
	list, err := listSegments(r.dir)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	g, err := openSegmentAt(r.dir, list[len(list)-1].base)
	if err != nil {
		return list[len(list)-1].base, nil // removed meanwhile; a later one begins behind it
	}
	defer g.close()
	n, err := g.length()
	return g.base + n, err
}

// scan is the state of a way back: how many newlines of the wanted streams are
// still to be met, and where the line that is open begins, per stream.
type scan struct {
	want  [2]bool
	left  int
	place int64    // behind the newline that was the last to be met; -1: not yet
	open  [2]int64 // -1: not known yet
	low   int64    // look no further back for open
}

func (s *scan) done() bool { return s.place >= 0 && s.open[0] >= 0 && s.open[1] >= 0 }

// known says that nothing more is to be learnt from a stream.
func (s *scan) known(st int) bool { return s.place >= 0 && s.open[st] >= 0 }

// newline takes a newline of a stream, which is behind offset at-1.
func (s *scan) newline(st int, at int64) {
	if s.place < 0 && s.want[st] {
		if s.left--; s.left == 0 {
			s.place, s.open[st] = at, at
			s.low = at - MaxLine
			return
		}
	}
	if s.place >= 0 && s.open[st] < 0 {
		s.open[st] = at
	}
}

// back walks backwards from end until n newlines of the wanted streams were
// met, and returns where both streams go on from there. In plain segments it
// reads no more than it needs.
func (r *reader) back(end int64, n int, want [2]bool) ([2]int64, error) {
	list, err := listSegments(r.dir)
	if err != nil {
		return [2]int64{}, err
	}
	s := &scan{want: want, left: n, place: -1, open: [2]int64{-1, -1}}
	oldest := int64(0)
	for i := len(list) - 1; i >= 0 && !s.done(); i-- {
		if list[i].base > end {
			continue
		}
		if s.place >= 0 && i < len(list)-1 && list[i+1].base <= s.low {
			oldest = list[i+1].base // no line that is open at the place can begin in here
			break
		}
		oldest = list[i].base
		g, err := openSegmentAt(r.dir, list[i].base)
		if err != nil {
			continue // removed meanwhile or damaged: it has no lines to give
		}
		if g.zip != nil {
			err = r.backPacked(g, s)
		} else {
			err = r.backPlain(g, end, s)
		}
		g.close()
		if err != nil {
			return [2]int64{}, err
		}
	}
	if s.place < 0 {
		return [2]int64{oldest, oldest}, nil
	}
	for st := range s.open {
		if s.open[st] < 0 {
			s.open[st] = min(s.place, max(oldest, s.low))
		}
	}
	return s.open, nil
}

// backPlain walks the runs of a segment backwards.
func (r *reader) backPlain(g *openSegment, end int64, s *scan) error {
	size, _ := g.size()
	hi := min(size, end-g.base)
	buf := make([]byte, r.size)
	for i := g.idx.count() - 1; hi > 0 && !s.done(); i-- {
		e, ok := g.idx.at(i)
		if i < 0 || !ok {
			e = entry{tag: tagStdout} // bytes before the first entry
		}
		if !e.valid() || e.off >= hi || e.tag == tagBreak {
			if i < 0 {
				return nil
			}
			continue
		}
		st := int(e.tag - tagStdout)
		if s.place >= 0 && g.base+hi < s.low {
			return nil
		}
		if s.want[st] || s.place >= 0 && s.open[st] < 0 {
			if err := backRun(g, st, e.off, hi, s, buf); err != nil {
				return err
			}
		}
		hi = e.off
	}
	return nil
}

// backRun meets the newlines in [lo, hi) of a segment from the last to the first.
func backRun(g *openSegment, st int, lo, hi int64, s *scan, buf []byte) error {
	for hi > lo && !s.known(st) {
		if s.place >= 0 && g.base+hi < s.low {
			return nil
		}
		from := max(lo, hi-int64(len(buf)))
		n, err := g.file.ReadAt(buf[:hi-from], from)
		if err != nil && err != io.EOF {
			return err
		}
		b := buf[:n]
		for !s.known(st) {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			s.newline(st, g.base+from+int64(i)+1)
			b = b[:i]
		}
		hi = from
	}
	return nil
}

// backPacked takes a packed segment whole. When its newlines are enough the place
// is its beginning, which is further back than needed; a line that is open there
// began in a segment before.
func (r *reader) backPacked(g *openSegment, s *scan) error {
	buf := make([]byte, r.size)
	count, next := 0, 0
	last := [2]int64{-1, -1} // behind the last newline of each stream
	tag := tagStdout
	for {
		off := g.zpos - g.base
		n, err := g.readAt(buf, g.zpos)
		for b := buf[:n]; len(b) > 0; {
			e, ok := g.idx.at(next)
			if ok && (!e.valid() || e.off <= off) {
				if e.valid() && e.tag != tagBreak {
					tag = e.tag
				}
				next++
				continue
			}
			run := int64(len(b))
			if ok {
				run = min(run, e.off-off)
			}
			st := tag - tagStdout
			if s.want[st] {
				count += bytes.Count(b[:run], []byte{'\n'})
			}
			if i := bytes.LastIndexByte(b[:run], '\n'); i >= 0 {
				last[st] = g.base + off + int64(i) + 1
			}
			b, off = b[run:], off+run
		}
		if err != nil {
			break // the end, or damage: what was readable counts
		}
	}
	if s.place < 0 {
		if s.left -= count; s.left <= 0 {
			s.place, s.low = g.base, g.base-MaxLine
		}
		return nil
	}
	for st := range last {
		if s.open[st] < 0 {
			s.open[st] = last[st]
		}
	}
	return nil
}
