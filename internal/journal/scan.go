package journal

import (
	"bytes"
	"errors"
	"io"
)

// scanner reads the frames of one segment from off up to limit. It never reads
// beyond limit, so that it can read a segment that is being written.
type scanner struct {
	r     io.ReaderAt
	off   int64 // of the next frame
	limit int64
	buf   []byte // the bytes from bufAt on
	bufAt int64
}

// found is what scanner.next met.
type found uint8

const (
	foundEnd     found = iota // nothing more up to the limit
	foundFrame                // a whole frame
	foundCorrupt              // damage, after which there is another frame or the end
	foundTorn                 // the beginning of a frame that is cut off by the limit
)

// item is one step of a scan: what lies from off to end.
type item struct {
	found    found
	off, end int64
	head     head
	body     []byte // valid until the next call
}

const scanChunk = 64 << 10

// peek returns n bytes at off; the caller has made sure that off+n <= limit.
func (s *scanner) peek(off, n int64) ([]byte, error) {
	if off < s.bufAt || off+n > s.bufAt+int64(len(s.buf)) {
		want := max(n, min(int64(scanChunk), s.limit-off))
		if int64(cap(s.buf)) < want {
			s.buf = make([]byte, want)
		}
		s.buf = s.buf[:want]
		s.bufAt = off
		got, err := s.r.ReadAt(s.buf, off)
		s.buf = s.buf[:got]
		if int64(got) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	at := off - s.bufAt
	return s.buf[at : at+n], nil
}

// next reads one item and moves behind it.
func (s *scanner) next() (item, error) {
	rest := s.limit - s.off
	if rest <= 0 {
		return item{found: foundEnd, off: s.off, end: s.off}, nil
	}
	it := item{off: s.off, end: s.limit}
	if rest < frameHeader {
		it.found = foundTorn
		s.off = s.limit
		return it, nil
	}
	b, err := s.peek(s.off, frameHeader)
	if err != nil {
		return item{}, err
	}
	h, ok := decodeHead(b)
	if !ok {
		return s.resync(it)
	}
	it.head = h
	if h.size() > rest {
		// A head that checks out, cut short: an unfinished write, unless a
		// later frame shows that it is a leftover in the middle.
		return s.torn(it)
	}
	it.end = s.off + h.size()
	if b, err = s.peek(s.off, h.size()); err != nil {
		return item{}, err
	}
	it.body = b[frameHeader:]
	it.found = foundFrame
	if checksum(it.body) != h.bodyCRC {
		// The head is sound and so is its length, unless another frame begins
		// inside: then the write of this one was never finished.
		return s.resync(it)
	}
	s.off = it.end
	return it, nil
}

// torn decides between an unfinished write at the end and damage before other frames.
func (s *scanner) torn(it item) (item, error) {
	next, err := s.findFrame(it.off + 1)
	if err != nil {
		return item{}, err
	}
	it.end, it.found = next, foundCorrupt
	if next == s.limit {
		it.found = foundTorn
	}
	s.off = next
	return it, nil
}

// resync moves to the next frame behind damage.
func (s *scanner) resync(it item) (item, error) {
	next, err := s.findFrame(it.off + 1)
	if err != nil {
		return item{}, err
	}
	s.off = next
	return item{found: foundCorrupt, off: it.off, end: next, head: it.head}, nil
}

// findFrame returns the offset of the first sound frame header at or after
// from, or limit. Its checksum makes a false hit in a payload unlikely, and
// keeps the search linear.
func (s *scanner) findFrame(from int64) (int64, error) {
	magic := []byte("PFRM")
	for s.limit-from >= frameHeader {
		n := min(int64(scanChunk), s.limit-from)
		b, err := s.peek(from, n)
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, magic)
		switch {
		case i < 0:
			from += n - int64(len(magic)-1)
		case int64(i)+frameHeader > n:
			if from+int64(i)+frameHeader > s.limit {
				return s.limit, nil
			}
			from += int64(i)
		default:
			if h, ok := decodeHead(b[i:]); ok && from+int64(i)+h.size() <= s.limit {
				return from + int64(i), nil
			}
			from += int64(i) + 1
		}
	}
	return s.limit, nil
}
