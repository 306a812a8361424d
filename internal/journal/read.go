package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"
)

var errDamaged = errors.New("the frame is damaged")

// frameReader reads single frames by position and keeps one file open.
type frameReader struct {
	seg  *origin // of file
	file *os.File
	buf  []byte
}

type rawFrame struct {
	nanos   int64
	payload []byte // valid until the next read
}

// read returns the frame at p, errDamaged if it does not check out, or an error
// that wraps os.ErrNotExist if its segment is gone.
func (r *frameReader) read(p position) (rawFrame, error) {
	if r.file == nil || r.seg != p.seg {
		r.close()
		f, err := os.Open(p.seg.path)
		if err != nil {
			return rawFrame{}, fmt.Errorf("cannot read the journal: %w", err)
		}
		r.file, r.seg = f, p.seg
	}
	if int64(cap(r.buf)) < p.size {
		r.buf = make([]byte, p.size)
	}
	b := r.buf[:p.size]
	if _, err := r.file.ReadAt(b, p.off); err != nil {
		return rawFrame{}, fmt.Errorf("cannot read the journal: %w", err)
	}
	h, ok := decodeHead(b)
	if !ok || h.size() != p.size || h.seq != p.seq || checksum(b[frameHeader:]) != h.bodyCRC {
		return rawFrame{}, errDamaged
	}
	return rawFrame{nanos: h.nanos, payload: b[frameHeader+h.keyLen:]}, nil
}

func (r *frameReader) close() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
		r.file = nil
	}
}

// Latest yields the newest frame of every live key, in no order, as of the
// moment when each is read. Keys that appear meanwhile may be missing. Damaged
// frames and failures to read are logged nowhere and left out: use LatestErr to
// see them.
func (j *Journal) Latest() iter.Seq2[string, Frame] {
	return func(yield func(string, Frame) bool) {
		for f, err := range j.LatestErr() {
			if err == nil && !yield(f.Key, f) {
				return
			}
		}
	}
}

// LatestErr is Latest with the errors of frames that could not be read; Key is
// set in both cases.
func (j *Journal) LatestErr() iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		j.mu.Lock()
		keys := make([]string, 0, len(j.latest))
		for k := range j.latest {
			keys = append(keys, k)
		}
		j.mu.Unlock()
		reader := frameReader{}
		defer reader.close()
		for _, key := range keys {
			f, live, err := j.readLatest(&reader, key)
			if live && !yield(f, err) {
				return
			}
		}
	}
}

// readLatest reads the newest frame of key. A segment that vanishes meanwhile
// has moved its frames to a newer one, so it looks again.
func (j *Journal) readLatest(r *frameReader, key string) (Frame, bool, error) {
	for {
		j.mu.Lock()
		p, live := j.latest[key]
		j.mu.Unlock()
		if !live {
			return Frame{}, false, nil
		}
		raw, err := r.read(p)
		if errors.Is(err, os.ErrNotExist) {
			j.mu.Lock()
			moved := j.latest[key] != p
			j.mu.Unlock()
			if moved {
				continue
			}
		}
		if err != nil {
			return Frame{Key: key, Seq: p.seq}, true, fmt.Errorf("cannot read the state of %q: %w", key, err)
		}
		return Frame{
			Seq: p.seq, Time: time.Unix(0, raw.nanos), Key: key,
			Payload: append([]byte(nil), raw.payload...),
		}, true, nil
	}
}

// Follow yields all entries with a number above after, in order, then waits for
// new ones until ctx or the journal ends. Where entries are gone it yields a
// *GapError once and, if the caller goes on, continues with its First. Any
// other error is the last thing that it yields; the end of ctx is not yielded.
// A reader never holds a writer up.
func (j *Journal) Follow(ctx context.Context, after uint64) iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		f := follower{j: j, next: after + 1, yield: yield}
		f.run(ctx)
	}
}

// run yields until the caller, ctx, the journal or an error ends it.
func (f *follower) run(ctx context.Context) {
	defer f.closeFile()
	if !f.begin() {
		return
	}
	for ctx.Err() == nil {
		progress, ok := f.step(ctx)
		if !ok {
			return
		}
		if progress {
			continue
		}
		wait, ok := f.j.waitFor(f.next)
		if !ok {
			continue
		}
		if f.idle != nil && !f.idle() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-f.j.done:
			return
		case <-wait:
		}
		if f.linger > 0 && !f.rest(ctx) {
			return
		}
	}
}

// waitFor returns a channel that is closed by the next append, or false if the
// entry next is there already.
func (j *Journal) waitFor(next uint64) (<-chan struct{}, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seq >= next && !j.closed {
		return nil, false
	}
	if j.wake == nil {
		j.wake = make(chan struct{})
	}
	return j.wake, true
}

// follower is the place of one reader.
type follower struct {
	j     *Journal
	next  uint64 // the number that it wants
	yield func(Frame, error) bool
	// idle, when set, is called before a wait for new entries; false ends the
	// reading. linger is the time from the first of them to their reading.
	idle   func() bool
	linger time.Duration

	file *os.File
	seg  *origin // of file
	scan scanner
}

func (f *follower) closeFile() {
	if f.file != nil {
		_ = f.file.Close() // it was only read
		f.file = nil
	}
}

// begin tells a reader whose place lies beyond the journal that it is from
// another one.
func (f *follower) begin() bool {
	f.j.mu.Lock()
	last, first := f.j.seq, f.j.segs[0].base
	f.j.mu.Unlock()
	if f.next <= last+1 {
		return true
	}
	f.next = first
	return f.yield(Frame{}, &GapError{First: first})
}

// choose returns the segment that holds the wanted entry or the first one after
// it, whether it is the newest, and whether there is anything to read.
func (f *follower) choose() (g segment, newest, some bool) {
	j := f.j
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seq < f.next {
		return segment{}, false, false
	}
	i := len(j.segs) - 1
	for i > 0 && j.segs[i].base > f.next {
		i--
	}
	return j.segs[i], i == len(j.segs)-1, true
}

// step yields what can be read now of one segment. ok is false when the reader
// has stopped or an error was its end.
func (f *follower) step(ctx context.Context) (progress, ok bool) {
	g, newest, some := f.choose()
	if !some {
		return false, true
	}
	if f.file == nil || f.seg != g.origin {
		f.closeFile()
		file, err := os.Open(g.path)
		if errors.Is(err, os.ErrNotExist) {
			return true, true // it was removed just now: choose again
		}
		if err != nil {
			f.yield(Frame{}, fmt.Errorf("cannot read the journal: %w", err))
			return false, false
		}
		f.file, f.seg = file, g.origin
		f.scan = scanner{r: file, off: segmentHeader, buf: f.scan.buf[:0]}
	}
	f.scan.limit = g.size
	for ctx.Err() == nil {
		it, err := f.scan.next()
		if err != nil {
			f.yield(Frame{}, fmt.Errorf("cannot read %s: %w", g.path, err))
			return false, false
		}
		if it.found == foundEnd {
			return true, newest && f.next > f.j.LastSeq() || f.passed(g)
		}
		if it.found == foundFrame && it.head.isEntry() && it.head.seq >= f.next && !f.deliver(it) {
			return false, false
		}
	}
	return true, true
}

// passed is called when all that choose saw of g was read and the wanted entry
// was not in it: it has come since, is in a later segment, or was damaged.
func (f *follower) passed(g segment) bool {
	next, known := f.j.behind(g)
	if !known || f.next >= next {
		return true // choose again
	}
	f.next = next
	return f.yield(Frame{}, &GapError{First: next})
}

// behind returns the first number that lies behind g, unless g has grown or was
// removed since it was seen: then nothing is known of its end.
func (j *Journal) behind(g segment) (next uint64, known bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, s := range j.segs {
		switch {
		case s.origin != g.origin:
			continue
		case s.size > g.size:
			return 0, false // and a newer segment may have been begun after that
		case i+1 < len(j.segs):
			return j.segs[i+1].base, true
		}
		return j.seq + 1, true
	}
	return 0, false
}

func (f *follower) deliver(it item) bool {
	if it.head.seq > f.next {
		f.next = it.head.seq
		if !f.yield(Frame{}, &GapError{First: f.next}) {
			return false
		}
	}
	k := it.head.keyLen
	f.next = it.head.seq + 1
	return f.yield(Frame{
		Seq: it.head.seq, Time: time.Unix(0, it.head.nanos), Key: string(it.body[:k]),
		Payload: append([]byte(nil), it.body[k:]...), Deleted: it.head.kind == kindDelete,
	}, nil)
}
