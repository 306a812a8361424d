package workers

import (
	"encoding/json"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/appendjson"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/schema"
	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/supervise"
	"github.com/perdure/perdure/internal/wire"
)

// Heard is what a batch becomes.
type Heard struct {
	// Events are what is told, in order.
	Events []control.Event
	// Said is what decides something, in order.
	Said []supervise.Input
	// Kept is what is to be remembered once all of it is durable; see Desk.Keep.
	Kept control.Worker
}

// Hear says what becomes of a batch. It changes nothing: a batch that could not
// be made durable comes once more.
func (d *Desk) Hear(b session.Batch) Heard {
	h := Heard{Kept: d.kept}
	if b.Marks != nil {
		h.Kept.Marks = clone(b.Marks)
	}
	for i := range b.Reports {
		r := &b.Reports[i]
		d.remember(&h.Kept, r)
		if in, decides := d.said(r); decides {
			h.Said = append(h.Said, in)
		}
		d.tell(&h, r)
	}
	return h
}

// Keep takes over what Hear has said, once it is durable.
func (d *Desk) Keep(h *Heard) {
	d.kept = h.Kept
	for i := range h.Events {
		if h.Events[i].Type == typeReconnected {
			d.adopted = false
		}
	}
}

// remember notes what is shown of the worker until it says something else.
func (d *Desk) remember(k *control.Worker, r *session.Report) {
	if r.Generation != k.Generation && (r.Kind == wire.Status || r.Kind == wire.Progress || r.PID != 0) {
		k.Generation, k.Status, k.Progress, k.MainPID = r.Generation, "", nil, 0
	}
	switch {
	case r.Kind == wire.Status:
		k.Status = r.Text
	case r.Kind == wire.Progress:
		k.Progress = &api.Progress{Percent: r.Percent, Message: r.Message}
	case r.PID != 0:
		k.MainPID = r.PID
	}
}

// said is what a report means for the decisions about the process.
func (d *Desk) said(r *session.Report) (supervise.Input, bool) {
	in := supervise.Input{Kind: supervise.WorkerSaid, Generation: r.Generation, Span: r.Timeout, Detail: r.Text}
	switch {
	case r.Kind == wire.Ready && d.waitsFor(r.By):
		in.Said = supervise.SaidReady
	case r.Kind == wire.Unhealthy:
		in.Said = supervise.SaidUnhealthy
	case r.Kind == wire.Extend:
		in.Said = supervise.SaidExtend
	case r.Type == typeWatchdog:
		in.Said = supervise.SaidWatchdog
	default:
		return in, false
	}
	return in, true
}

// waitsFor says whether the definition waits for a word of readiness that comes
// in this way: of several that a program may have, one alone is meant.
func (d *Desk) waitsFor(by string) bool {
	p := d.def.Ready
	switch {
	case p == nil:
		return false
	case by == "":
		return p.Notify == "worker"
	case by == "newline":
		return p.FD != 0
	}
	return p.Notify == by
}

// The types that mean something here.
const (
	typeEvent       = "process.event"
	typeInvalid     = "process.event_invalid"
	typeMessage     = "process.message"
	typeStats       = "process.stats"
	typeConnected   = "process.worker_connected"
	typeWatchdog    = "process.worker_watchdog"
	typeReconnected = "process.reconnected"
)

// tell adds the events of a report.
func (d *Desk) tell(h *Heard, r *session.Report) {
	add := func(typ string, data json.RawMessage) {
		h.Events = append(h.Events, control.Event{Type: typ, ProcessID: d.o.ID, Name: d.o.Name, Generation: r.Generation, Data: data})
	}
	switch r.Type {
	case typeEvent:
		if bad := d.check(r); bad != nil {
			add(typeInvalid, misfit(r, bad))
			return
		}
		data := d.named(r.Data)
		add("process."+d.o.Name+"."+r.Text, data)
		if r.Plain != nil {
			add(typeEvent, data)
		}
	case typeStats:
		data := d.named(r.Data)
		add(typeStats, data)
		add("process."+d.o.Name+".stats", data)
		return // it is no message for those who listen to messages
	case typeMessage:
		add(typeMessage, d.named(r.Data))
	case typeConnected:
		add(r.Type, r.Data)
		if d.adopted && !d.told(h, typeReconnected) {
			add(typeReconnected, d.reconnected())
		}
	default:
		add(r.Type, r.Data)
	}
	if r.Plain != nil && r.Type != typeMessage {
		add(typeMessage, d.named(appendField(nil, "message", r.Plain)))
	}
}

func (d *Desk) told(h *Heard, typ string) bool {
	for i := range h.Events {
		if h.Events[i].Type == typ {
			return true
		}
	}
	return false
}

// named is data with the names by which listeners of the plain protocol's own
// server know the process. Data is an object.
func (d *Desk) named(data json.RawMessage) json.RawMessage {
	b := append(make([]byte, 0, len(data)+len(d.o.ID)+len(d.o.Name)+32), `{"processId":`...)
	b = appendjson.String(b, d.o.ID)
	b = append(b, `,"name":`...)
	b = appendjson.String(b, d.o.Name)
	if len(data) > 2 {
		b = append(b, ',')
		return append(b, data[1:]...)
	}
	return append(b, '}')
}

func (d *Desk) reconnected() json.RawMessage {
	pid := 0
	if id := d.sheet.Load().ident; id != nil {
		pid = id.PID
	}
	o := appendjson.Begin(nil)
	o.Int("pid", int64(pid))
	return d.named(o.End())
}

// appendField makes an object of one field.
func appendField(b []byte, key string, value json.RawMessage) json.RawMessage {
	o := appendjson.Begin(b)
	o.Raw(key, value)
	return o.End()
}

// check says what is wrong with the data of an event.
func (d *Desk) check(r *session.Report) []schema.Problem {
	s := d.reads[r.Text]
	if s == nil {
		return nil
	}
	var event struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(r.Data, &event); err != nil {
		return []schema.Problem{{Message: err.Error()}}
	}
	return s.Check(event.Data)
}

// misfit is the data of an event that says that the data of another one do not
// fit: with the errors, and with all that was sent.
func misfit(r *session.Report, bad []schema.Problem) json.RawMessage {
	texts := make([]string, len(bad))
	for i, p := range bad {
		texts[i] = p.String()
	}
	o := appendjson.Begin(nil)
	o.Text("reason", "schema")
	o.Text("error", strings.Join(texts, "; "))
	list, err := json.Marshal(bad)
	if err == nil { // texts alone: it cannot fail
		o.Raw("errors", list)
	}
	b := o.End()
	if len(r.Data) > 2 {
		b = append(append(b[:len(b)-1], ','), r.Data[1:]...)
	}
	return b
}
