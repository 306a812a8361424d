package session

import (
	"strconv"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// enqueue puts a report behind the others of the endpoint.
func (e *Endpoint) enqueue(r Report) {
	if e.closed {
		return
	}
	r.size = len(r.Data) + len(r.Plain) + len(r.Type) + len(r.answer)
	if r.from != nil {
		r.from.waiting += r.size
		r.Generation = r.from.generation
	}
	e.queue = append(e.queue, r)
	e.beDue()
}

// beDue has the hub look for a batch when it is unlocked.
func (e *Endpoint) beDue() {
	if !e.queued && !e.closed {
		e.queued = true
		e.hub.due = append(e.hub.due, e)
	}
}

// nextBatch makes the next batch out of the queue. It says false when there is
// none or one is under way.
func (e *Endpoint) nextBatch() bool {
	if e.closed || len(e.batch.Reports) > 0 || len(e.queue) == 0 {
		return false
	}
	size, n := 0, 0
	for n < len(e.queue) && (n == 0 || size < maxBatch) {
		size += e.queue[n].size
		n++
	}
	e.batch = Batch{Reports: e.queue[:n:n]}
	e.batch.Marks = e.marksAfter(e.batch.Reports)
	e.queue = e.queue[n:]
	if len(e.queue) == 0 {
		e.queue = nil
	}
	return true
}

// marksAfter is all marks as they are once the reports are durable; nil when
// the reports change none.
func (e *Endpoint) marksAfter(reports []Report) []Mark {
	changed := map[string]uint64{}
	for i := range reports {
		if m := reports[i].Mark; m.Instance != "" {
			changed[m.Instance] = max(changed[m.Instance], m.ID)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	out := make([]Mark, 0, len(e.marks))
	for _, m := range e.marks {
		if id := max(m.settled, changed[m.instance]); id > 0 {
			out = append(out, Mark{m.instance, id})
		}
	}
	return out
}

// taken is called when a batch is durable, or is not.
func (e *Endpoint) taken(err error) {
	h := e.hub
	h.lock()
	defer h.calls.Done()
	defer h.unlock()
	if e.closed {
		return
	}
	if err != nil {
		// The journal says so itself; here the workers wait.
		h.later(e, h.o.Retry, func() {
			h.calls.Add(1)
			go e.handler.Take(e.batch, e.taken)
		})
		return
	}
	batch := e.batch.Reports
	e.batch = Batch{}
	e.settle(batch)
	e.beDue()
}

// settle tells the workers that reports are durable.
func (e *Endpoint) settle(batch []Report) {
	var acks []*mark
	for i := range batch {
		r := &batch[i]
		to := r.from
		if r.Mark.Instance != "" {
			m := e.markOf(r.Mark.Instance)
			if len(acks) == 0 || acks[len(acks)-1] != m {
				acks = append(acks, m)
			}
			m.settled = max(m.settled, r.Mark.ID)
			m.taken = max(m.taken, m.settled)
			to = m.conn
		}
		if to != nil && len(r.answer) > 0 {
			to.queueLine(r.answer)
		}
	}
	for _, m := range acks {
		if m.conn != nil {
			m.conn.queueLine(wire.AppendAck(nil, m.settled))
		}
	}
	for i := range batch {
		if c := batch[i].from; c != nil {
			c.waiting -= batch[i].size
			c.settled()
		}
	}
	for _, m := range acks {
		if m.conn != nil {
			m.conn.flush()
		}
	}
}

// keepLatest reports a message of which only the last one counts: at once, or
// when enough time has gone by since the one before.
func (e *Endpoint) keepLatest(r Report) {
	l := e.latest[r.Kind]
	if l == nil {
		l = &latest{last: e.hub.now - int64(e.hub.o.Coalesce)}
		e.latest[r.Kind] = l
	}
	if r.from != nil {
		// It does not count as the connection's: nothing waits for it.
		r.Generation, r.from = r.from.generation, nil
	}
	wait := time.Duration(l.last) + e.hub.o.Coalesce - time.Duration(e.hub.now)
	switch {
	case wait <= 0:
		l.last = e.hub.now
		e.enqueue(r)
	case l.waiting != nil:
		l.waiting = &r
	default:
		l.waiting = &r
		l.timer = e.hub.later(e, wait, func() {
			if l.waiting != nil {
				l.last = e.hub.now
				e.enqueue(*l.waiting)
				l.waiting = nil
			}
		})
	}
}

// reject reports connections that were turned away, with a count when there are many.
func (e *Endpoint) reject(p Peer) {
	t := &e.turned
	t.count++
	tell := func() {
		data := []byte(`{"reason":`)
		data = appendText(data, p.Foreign)
		data = appendInt(data, "pid", p.PID)
		data = appendInt(data, "uid", p.UID)
		data = appendInt(data, "count", t.count)
		t.count, t.last = 0, e.hub.now
		e.enqueue(Report{Type: "process.worker_rejected", Data: append(data, '}')})
	}
	wait := time.Duration(t.last) + e.hub.o.Coalesce - time.Duration(e.hub.now)
	switch {
	case t.last == 0 || wait <= 0:
		tell()
	case t.count == 1:
		t.timer = e.hub.later(e, wait, tell)
	}
}

func appendInt(b []byte, key string, n int) []byte {
	b = append(append(append(b, `,"`...), key...), `":`...)
	return strconv.AppendInt(b, int64(n), 10)
}
