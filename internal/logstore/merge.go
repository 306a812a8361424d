package logstore

import (
	"container/heap"
	"context"
	"fmt"
	"iter"
)

// NamedLine is a line and the process that wrote it.
type NamedLine struct {
	Name string
	Line
}

// Merge reads several processes at once, as Read reads one, ordered by time as
// far as known: what is there is ordered, and what comes later does not wait for
// anybody. One watch serves all, and each process costs at most 16 KiB and
// an open line while it has something to say. A Cursor is of one process and refused.
func Merge(ctx context.Context, dir string, names []string, q Query) iter.Seq2[NamedLine, error] {
	return func(yield func(NamedLine, error) bool) {
		m := &merger{ctx: ctx}
		defer m.close()
		if err := m.begin(dir, names, q); err != nil {
			yield(NamedLine{}, err)
			return
		}
		for n := 1; ; {
			for ; len(m.heads) > 0; n++ {
				if q.Follow && n%fairLines == 0 {
					// One that never rests does not keep the others from being heard.
					if more, err := m.wait(false, yield); err != nil || !more {
						return
					}
				}
				h := m.heads[0]
				if !yield(NamedLine{Name: h.name, Line: h.line}, nil) {
					return
				}
				if !m.pull(h, yield) {
					return
				}
			}
			if !q.Follow {
				return
			}
			if more, err := m.wait(true, yield); err != nil || !more {
				if err != nil && ctx.Err() == nil {
					yield(NamedLine{}, err)
				}
				return
			}
		}
	}
}

// fairLines is after how many lines the other processes are looked at.
const fairLines = 256

// source is one process in a merge.
type source struct {
	*reader
	name  string
	line  Line
	place int // in the heap; -1: no line now
}

type merger struct {
	ctx     context.Context
	f       *follower
	sources []*source
	byDir   map[string]*source
	heads   lineHeap
}

func (m *merger) begin(dir string, names []string, q Query) error {
	if q.Cursor != "" && len(names) != 1 {
		return fmt.Errorf("cannot continue %d processes at one cursor: it belongs to one", len(names))
	}
	m.byDir = map[string]*source{}
	dirs := make([]string, 0, len(names))
	for _, n := range names {
		r, err := newReader(dir, n, q, mergeChunk)
		if err != nil {
			return err
		}
		if m.byDir[r.dir] != nil {
			continue
		}
		s := &source{reader: r, name: n, place: -1}
		m.byDir[r.dir] = s
		m.sources = append(m.sources, s)
		dirs = append(dirs, r.dir)
	}
	if q.Follow {
		var err error
		if m.f, err = newFollower(dir, dirs); err != nil {
			return err
		}
	}
	for _, s := range m.sources {
		if err := s.start(m.ctx, q); err != nil {
			return err
		}
		var first error
		m.pull(s, func(_ NamedLine, e error) bool { first = e; return false })
		if first != nil {
			return fmt.Errorf("cannot read the logs of %q: %w", s.name, first)
		}
	}
	return nil
}

// pull takes the next line of a source and puts the source in its place; false
// says to end.
func (m *merger) pull(s *source, yield func(NamedLine, error) bool) bool {
	for {
		line, ok, err := s.next(m.ctx)
		switch {
		case err != nil:
			if m.ctx.Err() != nil && s.follow {
				return false
			}
			if !yield(NamedLine{Name: s.name}, err) || !s.damaged {
				return false
			}
			s.damaged = false
			continue
		case ok:
			s.line = line
			if s.place >= 0 {
				heap.Fix(&m.heads, s.place)
			} else {
				heap.Push(&m.heads, s)
			}
		default:
			if s.place >= 0 {
				heap.Remove(&m.heads, s.place)
			}
			s.rest()
		}
		return true
	}
}

// wait waits for a change and pulls from the sources that changed.
func (m *merger) wait(block bool, yield func(NamedLine, error) bool) (bool, error) {
	changed, err := m.f.wait(m.ctx, block)
	if err != nil {
		return false, err
	}
	for d, made := range changed {
		if s := m.byDir[d]; s != nil {
			s.wake(made)
			if s.place < 0 && !m.pull(s, yield) {
				return false, nil
			}
		}
	}
	return true, nil
}

func (m *merger) close() {
	for _, s := range m.sources {
		s.reader.close()
	}
	if m.f != nil {
		_ = m.f.close() // a watch that is not needed any more
	}
}

// lineHeap has the source with the earliest line first.
type lineHeap []*source

func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, j int) bool { return h[i].line.Time.Before(h[j].line.Time) }
func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is heap.Interface's.
func (h *lineHeap) Push(x any) {
	s := x.(*source)
	s.place = len(*h)
	*h = append(*h, s)
}

// Pop is heap.Interface's.
func (h *lineHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	s.place = -1
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return s
}
