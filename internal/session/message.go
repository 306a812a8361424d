package session

import (
	"crypto/subtle"
	"slices"
	"strconv"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// message takes one message that is well formed.
func (c *conn) message(m *wire.Message) {
	if claim := m.ProcessID(); claim != nil && !c.claimed && string(claim) != c.e.spec.ProcessID {
		c.claim(string(claim))
	}
	if c.e.spec.AnyMessage && m.Kind != wire.Hello {
		c.e.beat()
	}
	switch m.Kind {
	case wire.Heartbeat:
		if !c.e.spec.AnyMessage {
			c.e.beat()
		}
	case wire.Stats:
		if s := m.Stats(); len(s) <= maxStats {
			c.e.stats = slices.Clone(s)
			if c.plain {
				// Programs that know the plain protocol's own server wait for them.
				data := fields(appendRaw([]byte(`{`), "stats", c.e.stats))
				c.e.keepLatest(Report{Type: "process.stats", Kind: wire.Stats, Data: data, from: c})
			}
			return
		}
		c.invalid(&wire.InvalidError{Reason: wire.ReasonField, Detail: "stats: longer than 16384 bytes"}, m.Raw[:wire.Kept], len(m.Raw), 0)
	case wire.Hello:
		c.hello(m)
	case wire.Connected:
		c.introduce(m, "")
	case wire.Disconnecting:
		c.reason = "disconnecting"
	default:
		c.durable(m)
	}
}

// claim tells once that the connection speaks of a process that it is not.
func (c *conn) claim(claimed string) {
	c.claimed = true
	data := appendText([]byte(`{"claimed":`), wire.Clip(claimed, wire.MaxName))
	c.e.enqueue(Report{Type: "process.worker_claim", Data: append(data, '}'), from: c})
}

// hello begins the extended protocol.
func (c *conn) hello(m *wire.Message) {
	g := m.Greeting()
	if c.mark != nil {
		c.invalid(&wire.InvalidError{Reason: wire.ReasonField, Detail: "type: hello has been said on this connection"}, m.Raw, len(m.Raw), 0)
		return
	}
	if !c.proven {
		if c.e.spec.Token == "" || subtle.ConstantTimeCompare([]byte(g.Token), []byte(c.e.spec.Token)) != 1 {
			_ = c.deny("the token is wrong or missing") // it hangs up
			return
		}
		c.proven = true
	}
	mk := c.e.markOf(g.Instance)
	if mk.conn != nil {
		mk.conn.kick("superseded")
	}
	mk.conn, c.mark, c.plain = c, mk, false
	c.commands = slices.Contains(g.Capabilities, "commands")
	c.introduce(m, g.SDK)
	w := c.e.handler.Welcome()
	w.Version, w.Last, w.MaxLine = min(g.Version, wire.Version), mk.settled, wire.MaxLine
	if c.commands {
		w.Capabilities = []string{"commands"}
	}
	line, err := wire.AppendWelcome(nil, w)
	if err != nil {
		c.kick(err.Error())
		return
	}
	c.queueLine(line)
}

// introduce tells that a worker is there.
func (c *conn) introduce(m *wire.Message, sdk string) {
	c.introduced = true
	data := append([]byte(`{"plain":`), strconv.FormatBool(c.plain)...)
	if c.peer.PID > 0 {
		data = appendInt(data, "pid", c.peer.PID)
	}
	if sdk != "" {
		data = appendText(append(data, `,"sdk":`...), sdk)
	}
	if c.mark != nil {
		data = appendText(append(data, `,"instance":`...), c.mark.instance)
	}
	data = appendTimestamp(data, m)
	r := Report{Type: "process.worker_connected", Data: append(data, '}'), from: c}
	if c.plain {
		r.Plain = slices.Clone(m.Raw)
	}
	c.e.enqueue(r)
}

// durable reports what is made durable.
func (c *conn) durable(m *wire.Message) {
	if c.duplicate(m.ID) {
		return
	}
	r := Report{Kind: m.Kind, from: c}
	var data []byte
	switch m.Kind {
	case wire.Event:
		r.Text = m.Name()
		r.Type, data = "process.event", appendRaw(appendText([]byte(`{"event":`), m.Name()), "data", orEmpty(m.Data()))
	case wire.Ready:
		r.Type, data = "process.worker_ready", []byte("{")
	case wire.Status:
		r.Text = m.Status()
		r.Type, data = "process.status", appendText([]byte(`{"status":`), r.Text)
	case wire.Progress:
		r.Percent, r.Message = m.Percent(), m.Text()
		r.Type, data = "process.progress", strconv.AppendFloat([]byte(`{"percent":`), m.Percent(), 'g', -1, 64)
		if text := m.Text(); text != "" {
			data = appendText(append(data, `,"message":`...), text)
		}
		data = appendRaw(data, "data", m.Data())
	case wire.Log:
		r.Type, data = "process.log", appendText([]byte(`{"level":`), m.Level())
		data = appendRaw(appendText(append(data, `,"message":`...), m.Text()), "data", m.Data())
	case wire.Reloading:
		r.Type, data = "process.worker_reloading", []byte("{")
	case wire.Stopping:
		r.Type, data = "process.worker_stopping", []byte("{")
	case wire.Extend:
		r.Timeout = time.Duration(min(m.TimeoutMs(), maxExtend.Milliseconds())) * time.Millisecond
		r.Type, data = "process.worker_extend", strconv.AppendInt([]byte(`{"timeout_ms":`), r.Timeout.Milliseconds(), 10)
	case wire.Unhealthy:
		r.Text = m.Text()
		r.Type, data = "process.worker_unhealthy", appendText([]byte(`{"message":`), r.Text)
	case wire.Reply:
		r.Type, data = "process.reply", c.reply(m)
	default:
		r.Type, data = "process.message", append([]byte(`{"message":`), m.Raw...)
	}
	if m.ID > 0 {
		data = c.identify(data, m.ID, &r)
	} else if m.Kind == wire.Event && c.mark != nil {
		data = c.identify(data, 0, &r)
	}
	data = appendTimestamp(data, m)
	if m.Repaired {
		data = append(data, `,"repaired":true`...)
	}
	r.Data = fields(data)
	if c.plain && m.Kind != wire.Other {
		r.Plain = slices.Clone(m.Raw)
	}
	if m.Kind.Latest() && m.ID == 0 {
		c.e.keepLatest(r)
		return
	}
	c.e.enqueue(r)
}

// maxExtend bounds what an Extend can ask for.
const maxExtend = 24 * time.Hour

// fields closes an object; behind its "{" a comma may stand where no field came first.
func fields(data []byte) []byte {
	if len(data) > 1 && data[1] == ',' {
		data = append(data[:1], data[2:]...)
	}
	return append(data, '}')
}

// reply gives the answer of a command to whoever waits for it.
func (c *conn) reply(m *wire.Message) []byte {
	data := appendText([]byte(`{"to":`), wire.Clip(m.To(), wire.MaxName))
	text, failed := m.Error()
	answer := m.Data()
	if answer == nil {
		answer = []byte("{}")
	}
	if failed {
		data = appendText(append(data, `,"error":`...), text)
	} else {
		data = appendRaw(data, "data", answer)
	}
	p := c.e.asked[m.To()]
	if p == nil || p.conn != c {
		return data // it comes too late, or from somebody else
	}
	delete(c.e.asked, m.To())
	if failed {
		p.done <- reply{err: &RepliedError{Text: text}}
	} else {
		p.done <- reply{data: slices.Clone(answer)}
	}
	return data
}

// orEmpty is {} in place of nothing and of null.
func orEmpty(data []byte) []byte {
	if data == nil || string(data) == "null" {
		return []byte("{}")
	}
	return data
}

// appendRaw appends a field whose value is JSON; none for nil.
func appendRaw(b []byte, key string, value []byte) []byte {
	if value == nil {
		return b
	}
	b = append(append(append(b, `,"`...), key...), `":`...)
	return append(b, value...)
}

func appendUint(b []byte, key string, n uint64) []byte {
	b = append(append(append(b, `,"`...), key...), `":`...)
	return strconv.AppendUint(b, n, 10)
}

// appendTimestamp appends the worker's own time as it was sent.
func appendTimestamp(b []byte, m *wire.Message) []byte {
	return appendRaw(b, "timestamp", m.RawTimestamp())
}
