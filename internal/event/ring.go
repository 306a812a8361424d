package event

import (
	"sort"
	"sync"

	"github.com/perdure/perdure/api"
)

// The bounds of the ring: the number of events and the bytes of their data.
const (
	ringEvents = 2048
	ringBytes  = 1 << 20
)

// ring holds the newest committed events for all followers. It is filled by the
// writer only and never waits for a reader.
type ring struct {
	mu     sync.Mutex
	events []api.Event // a circle of ringEvents
	head   int         // index of the oldest
	n      int
	bytes  int
	floor  uint64 // all events above it, up to last, are in the ring
	last   uint64 // newest committed Seq
	first  uint64 // oldest Seq that the store keeps
	wake   chan struct{}
}

// begin tells what the store holds. What was published before counts as well.
func (r *ring) begin(first, last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		r.last, r.floor = last, last
	}
	if first > 0 {
		r.first = first
	}
}

// publish adds committed events in the order of their Seq and wakes the followers.
func (r *ring) publish(events []api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if e.Seq > r.last { // those up to it the store has shown already
			r.add(e)
		}
	}
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

func (r *ring) add(e api.Event) {
	if r.events == nil {
		r.events = make([]api.Event, ringEvents)
	}
	size := len(e.Data)
	for r.n > 0 && (r.n == ringEvents || r.bytes+size > ringBytes) {
		r.bytes -= len(r.events[r.head].Data)
		r.floor = r.events[r.head].Seq
		r.events[r.head] = api.Event{}
		r.head = (r.head + 1) % ringEvents
		r.n--
	}
	r.events[(r.head+r.n)%ringEvents] = e
	r.n++
	r.bytes += size
	r.last = e.Seq
	if r.first == 0 {
		r.first = e.Seq
	}
}

// read appends to buf the events after seq, up to its capacity. ok is false
// when they are no longer in the ring.
func (r *ring) read(seq uint64, buf []api.Event) (out []api.Event, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq >= r.last {
		return buf, true
	}
	if seq < r.floor {
		return buf, false
	}
	first := sort.Search(r.n, func(i int) bool { return r.events[(r.head+i)%ringEvents].Seq > seq })
	for i := first; i < r.n && len(buf) < cap(buf); i++ {
		buf = append(buf, r.events[(r.head+i)%ringEvents])
	}
	return buf, true
}

// waitAfter returns a channel that is closed when there is more than seq, or
// nil when there already is.
func (r *ring) waitAfter(seq uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last > seq {
		return nil
	}
	if r.wake == nil {
		r.wake = make(chan struct{})
	}
	return r.wake
}

func (r *ring) bounds() (first, last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first, r.last
}

func (r *ring) trimmed(first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first = max(r.first, first)
}
