package control

import (
	"encoding/json"
	"strconv"

	"github.com/perdure/perdure/internal/appendjson"
)

// payloadSize is room for the payload of nearly every entry.
const payloadSize = 1536

// Payload returns the entry as the payload of a journal entry. Its number and
// time are not in it: they are the frame's. Frame.Entry reads it.
func (e *Entry) Payload() ([]byte, error) { return e.AppendJSON(make([]byte, 0, payloadSize)) }

// AppendJSON appends the payload. It is written at each decision, so it is not
// left to encoding/json.
func (e *Entry) AppendJSON(b []byte) ([]byte, error) {
	o := appendjson.Begin(b)
	if len(e.Events) > 0 {
		b := append(o.Key("events"), '[')
		for i := range e.Events {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.Events[i].appendJSON(b)
		}
		o.Set(append(b, ']'))
	}
	o.Bool("removed", e.Removed)
	o.Text("journal", e.Journal)
	if e.Exit != nil {
		o.Set(strconv.AppendInt(o.Key("exit"), int64(*e.Exit), 10))
	}
	for _, part := range []struct {
		key   string
		value any
		there bool
	}{{"boot", e.Boot, e.Boot != nil}, {"settings", e.Settings, e.Settings != nil}} {
		if !part.there {
			continue
		}
		b, err := json.Marshal(part.value)
		if err != nil {
			return nil, err
		}
		o.Raw(part.key, b)
	}
	if e.Worker != nil {
		b, err := json.Marshal(e.Worker)
		if err != nil {
			return nil, err
		}
		o.Raw("worker", b)
	}
	if e.Record != nil {
		b, err := e.Record.appendJSON(o.Key("record"))
		if err != nil {
			return nil, err
		}
		o.Set(b)
	}
	return o.End(), nil
}

func (e *Event) appendJSON(b []byte) []byte {
	o := appendjson.Begin(b)
	o.Text("type", e.Type)
	if !e.Time.IsZero() {
		o.Time("time", e.Time)
	}
	o.Text("process_id", e.ProcessID)
	o.Text("name", e.Name)
	o.Uint("generation", e.Generation)
	o.Raw("data", e.Data)
	return o.End()
}

func (r *Record) appendJSON(b []byte) ([]byte, error) {
	o := appendjson.Begin(b)
	o.Text("id", r.ID)
	o.Text("name", r.Name)
	if r.Definition != nil {
		def, err := json.Marshal(r.Definition)
		if err != nil {
			return nil, err
		}
		o.Raw("definition", def)
	}
	o.Text("source", r.Source)
	o.Time("created_at", r.CreatedAt)
	o.Set(r.State.AppendJSON(o.Key("state")))
	o.Text("boot_id", r.BootID)
	o.Uint("boot", r.Boot)
	if i := r.Identity; i != nil {
		one := appendjson.Begin(o.Key("identity"))
		one.Text("boot_id", i.BootID)
		one.Int("pid", int64(i.PID))
		one.Uint("start_time", i.StartTime)
		one.Text("cgroup", i.Cgroup)
		one.Text("marker", i.Marker)
		o.Set(one.End())
	}
	return o.End(), nil
}
