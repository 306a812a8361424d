package session

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/perdure/perdure/internal/wire"
)

// conn is one connection. It is guarded by the hub's lock.
type conn struct {
	e          *Endpoint
	stream     stream // nil once it is hung up
	peer       Peer
	generation uint64
	frames     wire.Framer

	plain      bool // no hello has been accepted
	proven     bool // it may speak: the system vouches for it, or it brought the token
	introduced bool // it has said hello or connected
	claimed    bool // a claim of its has been told
	commands   bool // it takes commands
	mark       *mark

	waiting int    // bytes of its reports that are not yet durable
	out     []byte // waits to be sent
	reading bool
	ending  bool   // nothing more is read
	reason  string // why it ends
}

// errHungUp ends the reading of what is left of a connection.
var errHungUp = errors.New("hung up")

// open begins a connection. The stream must not deliver before it returns.
func (e *Endpoint) open(s stream, p Peer, generation uint64) *conn {
	c := &conn{e: e, stream: s, peer: p, generation: generation, plain: true, proven: p.Vouched, reading: true}
	e.conns = append(e.conns, c)
	if len(e.conns) >= MaxConns {
		e.hub.net.accepting(e, false)
	}
	return c
}

// received takes bytes of the stream.
func (c *conn) received(p []byte) {
	if c.ending {
		return
	}
	if err := c.frames.Feed(p, c.line); err != nil {
		return
	}
	if c.frames.Held() > 0 && c.e.held() > MaxHeld {
		c.kick("too many unfinished lines of this process wait for their ends")
		return
	}
	c.throttle()
	c.flush()
}

// finished is called when the worker has half-closed, or is gone (err).
func (c *conn) finished(err error) {
	if c.ending {
		return
	}
	if rest := c.frames.End(); rest != nil {
		c.invalid(&wire.InvalidError{Reason: wire.ReasonCutOff, Detail: "the connection ended within a line"}, rest, len(rest), 0)
	}
	switch {
	case c.reason != "":
	case err != nil:
		c.reason = err.Error()
	default:
		c.reason = "closed"
	}
	c.end()
	if err != nil {
		c.hangUp()
		return
	}
	c.settled()
}

// end stops reading and tells of the end.
func (c *conn) end() {
	if c.ending {
		return
	}
	c.ending = true
	c.throttle()
	for id, p := range c.e.asked {
		if p.conn == c {
			p.done <- reply{err: ErrOutcomeUnknown}
			delete(c.e.asked, id)
		}
	}
	if c.introduced {
		data := appendText([]byte(`{"reason":`), c.reason)
		if c.mark != nil {
			data = appendText(append(data, `,"instance":`...), c.mark.instance)
		}
		c.e.enqueue(Report{Type: "process.worker_disconnected", Data: append(data, '}'), from: c})
	}
}

// kick hangs up for a reason. What was read before is still made durable.
func (c *conn) kick(reason string) {
	if !c.ending {
		c.reason = reason
		c.end()
	}
	c.hangUp()
}

// hangUp closes the stream at once.
func (c *conn) hangUp() {
	c.ending = true
	if c.stream == nil {
		return
	}
	c.stream.close()
	c.stream, c.out = nil, nil
	c.frames.End()
	if c.mark != nil && c.mark.conn == c {
		c.mark.conn = nil
	}
	full := len(c.e.conns) >= MaxConns
	c.e.conns = slices.DeleteFunc(c.e.conns, func(x *conn) bool { return x == c })
	if full && !c.e.closed {
		c.e.hub.net.accepting(c.e, true)
	}
}

// settled is called when reports of the connection have become durable. One
// that the worker has ended is closed when all are, and all that it is to be
// told is sent.
func (c *conn) settled() {
	if c.ending && c.waiting == 0 && c.stream != nil {
		if c.flush(); len(c.out) == 0 {
			c.hangUp()
		}
		return
	}
	c.throttle()
	c.flush()
}

// throttle reads on or does not, as what waits allows.
func (c *conn) throttle() {
	if c.stream == nil {
		return
	}
	read := !c.ending && c.waiting < MaxWaiting
	if read != c.reading {
		c.reading = read
		c.stream.watch(read, len(c.out) > 0)
	}
}

// sendNow queues a line and sends what goes.
func (c *conn) sendNow(line []byte) error {
	c.queueLine(line)
	c.flush()
	if c.stream == nil {
		return ErrNoWorker
	}
	return nil
}

// queueLine puts a line behind what waits to be sent.
func (c *conn) queueLine(line []byte) {
	if c.stream != nil {
		c.out = append(c.out, line...)
	}
}

// flush sends what goes without waiting. A worker that does not read is hung up on.
func (c *conn) flush() {
	if c.stream == nil || len(c.out) == 0 {
		return
	}
	n, err := c.stream.write(c.out)
	if err != nil {
		c.kick(err.Error())
		return
	}
	if c.out = c.out[n:]; len(c.out) == 0 {
		c.out = nil
	}
	if len(c.out) > MaxUnsent {
		c.kick("it does not read what it is sent")
		return
	}
	c.stream.watch(c.reading, len(c.out) > 0)
}

// writable is called by a stream that takes bytes again.
func (c *conn) writable() {
	c.flush()
	if c.ending {
		c.settled()
	}
}

// line takes one line.
func (c *conn) line(l wire.Line) error {
	if l.Over > 0 {
		if !c.proven {
			return c.deny("the first message must be a hello with the token")
		}
		c.invalid(&wire.InvalidError{Reason: wire.ReasonTooLong, Detail: "the line is longer than 1048576 bytes"}, l.Text, l.Over, 0)
		return nil
	}
	var m wire.Message
	err := wire.Decode(l.Text, c.plain, &m)
	if !c.proven && (err != nil || m.Kind != wire.Hello) {
		return c.deny("the first message must be a hello with the token")
	}
	if err != nil {
		var ie *wire.InvalidError
		if errors.As(err, &ie) {
			c.invalid(ie, m.Raw, len(m.Raw), m.ID)
		}
		return nil
	}
	c.message(&m)
	if c.ending {
		return errHungUp
	}
	return nil
}

// invalid reports a line that is not taken.
func (c *conn) invalid(why *wire.InvalidError, raw []byte, length int, id uint64) {
	if c.duplicate(id) {
		return
	}
	data := appendText([]byte(`{"reason":`), string(why.Reason))
	data = appendText(append(data, `,"error":`...), why.Detail)
	data = appendText(append(data, `,"raw":`...), string(raw))
	if length > len(raw) {
		data = appendInt(data, "length", length)
	}
	r := Report{Type: "process.event_invalid", from: c}
	data = c.identify(data, id, &r)
	r.Data = append(data, '}')
	if !c.plain {
		code := wire.CodeInvalid
		if why.Reason == wire.ReasonTooLong {
			code = wire.CodeTooLong
		}
		r.answer, _ = wire.AppendRefusal(nil, wire.Refusal{Code: code, Message: why.Detail, ID: id}) // texts and a number: it cannot fail
	}
	c.e.enqueue(r)
}

// duplicate says whether a message with the id was taken before, and acks it if
// it is settled.
func (c *conn) duplicate(id uint64) bool {
	if id == 0 || c.mark == nil || id > c.mark.taken {
		return false
	}
	if c.mark.settled > 0 && id <= c.mark.settled {
		c.queueLine(wire.AppendAck(nil, c.mark.settled))
	}
	return true
}

// identify adds the instance and the id to the data of a report, and the mark to
// the report.
func (c *conn) identify(data []byte, id uint64, r *Report) []byte {
	if c.mark == nil {
		return data
	}
	data = appendText(append(data, `,"instance":`...), c.mark.instance)
	if id > 0 {
		data = appendUint(data, "id", id)
		c.mark.taken = id
		r.Mark = Mark{Instance: c.mark.instance, ID: id}
	}
	return data
}

// deny hangs up on who may not speak.
func (c *conn) deny(why string) error {
	if line, err := wire.AppendRefusal(nil, wire.Refusal{Code: wire.CodeDenied, Message: why}); err == nil {
		c.queueLine(line)
	}
	p := c.peer
	p.Foreign = why
	c.e.reject(p)
	c.end()
	c.settled()
	return errHungUp
}

// appendText appends a JSON string.
func appendText(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // it cannot fail for a string
		return append(b, `""`...)
	}
	return append(b, quoted...)
}
