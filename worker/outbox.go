package worker

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/perdure/perdure/internal/wire"
)

// outbox keeps messages with an id until they are settled. It is pure; the lock
// of the worker guards it.
type outbox struct {
	maxMessages, maxBytes int

	items   []item // in the order of their ids
	sent    int    // items[:sent] went out on the connection that stands
	bytes   int
	last    uint64 // the highest id given
	settled uint64 // how many are settled
	refused uint64
	full    uint64
}

// item is one message that is not settled.
type item struct {
	id   uint64
	line []byte
	wait *waiter // nil: nobody waits
}

// waiter waits for one message. err is set before done is closed.
type waiter struct {
	done chan struct{}
	err  error
}

// room says whether a line of n bytes, its id not counted, can be taken.
func (b *outbox) room(n int) bool {
	return len(b.items) < b.maxMessages && (b.bytes+n+maxIDField <= b.maxBytes)
}

// maxIDField is the most that an id adds to a line.
const maxIDField = len(`,"id":9007199254740991`)

// add puts a line without id, "{…}\n", at the end.
func (b *outbox) add(line []byte, wait *waiter) {
	b.last++
	line = append(line[:len(line)-2], `,"id":`...)
	line = append(strconv.AppendUint(line, b.last, 10), "}\n"...)
	b.items = append(b.items, item{b.last, line, wait})
	b.bytes += len(line)
}

// batch appends what has not been sent to dst, until dst has at least size bytes.
func (b *outbox) batch(dst []byte, size int) []byte {
	for b.sent < len(b.items) && len(dst) < size {
		dst = append(dst, b.items[b.sent].line...)
		b.sent++
	}
	return dst
}

// settle drops everything up to id.
func (b *outbox) settle(id uint64) {
	n := 0
	for n < len(b.items) && b.items[n].id <= id {
		b.bytes -= len(b.items[n].line)
		if w := b.items[n].wait; w != nil {
			close(w.done)
		}
		n++
	}
	clear(b.items[:n])
	b.items = b.items[n:]
	b.sent = max(0, b.sent-n)
	b.settled += uint64(n)
	if len(b.items) == 0 {
		b.items = nil // gives back what a long absence has grown
	}
}

// refuse marks the message with the id, which stays until it is settled. It
// returns the error, and whether somebody waits for it; nil when there is no such message.
func (b *outbox) refuse(id uint64, code, reason string) (err *RefusedError, waited bool) {
	for i := range b.items {
		it := &b.items[i]
		if it.id != id {
			continue
		}
		b.refused++
		err = &RefusedError{Code: code, Reason: reason, Sent: bytes.TrimSpace(it.line)}
		if it.wait != nil {
			it.wait.err = err
		}
		return err, it.wait != nil
	}
	return nil, false
}

// restart begins a new connection, on which everything that is not settled is
// sent again. What is longer than this Perdure takes is refused here: it would
// be skipped there, and never settled.
func (b *outbox) restart(last uint64, maxLine int) (tooLong []*RefusedError) {
	b.settle(last)
	b.sent = 0
	kept := make([]item, 0, len(b.items))
	for _, it := range b.items {
		if len(it.line)-1 <= maxLine {
			kept = append(kept, it)
			continue
		}
		reason := fmt.Sprintf("the message has %d bytes, and this Perdure takes %d", len(it.line)-1, maxLine)
		err, waited := b.refuse(it.id, string(wire.CodeTooLong), reason)
		b.bytes -= len(it.line)
		b.settled++
		if waited {
			close(it.wait.done)
		} else {
			tooLong = append(tooLong, err)
		}
	}
	b.items = kept
	return tooLong
}

// abandon lets everybody who waits go with err; the messages stay.
func (b *outbox) abandon(err error) {
	for i := range b.items {
		if w := b.items[i].wait; w != nil {
			w.err = err
			close(w.done)
			b.items[i].wait = nil
		}
	}
}
