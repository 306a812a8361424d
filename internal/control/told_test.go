package control

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/supervise"
)

// A record that is overtaken need not be readable, and what is told is read
// without it.
func TestToldLeavesTheRecord(t *testing.T) {
	t.Parallel()
	f := Frame{Seq: 7, Payload: []byte(` { "record":{"name":5,"x":"}\\\""},"removed":true , "events":[ {"type":"x","name":"a","generation":2,"data":{"n":1}} ],"exit":3}
`)}
	e, err := f.Told()
	if err != nil || e.Record != nil || !e.Removed || *e.Exit != 3 || e.Seq != 7 || len(e.Events) != 1 || string(e.Events[0].Data) != `{"n":1}` {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := f.Entry(); err == nil {
		t.Error("a record that is none was read")
	}
}

// What is told is what a whole decoding finds.
func TestToldIsWhatTheEntrySays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z"\\{}\[\],:\x00 ]*`))
		e := Entry{Removed: rapid.Bool().Draw(t, "removed")}
		if rapid.Bool().Draw(t, "has a record") {
			e.Record = &Record{ID: text.Draw(t, "id"), Name: text.Draw(t, "name"), State: supervise.State{Detail: text.Draw(t, "detail")}}
		}
		if rapid.Bool().Draw(t, "has an exit") {
			code := rapid.Int().Draw(t, "exit")
			e.Exit = &code
		}
		for range rapid.IntRange(0, 3).Draw(t, "events") {
			ev := Event{Type: text.Draw(t, "type"), ProcessID: text.Draw(t, "process"), Name: text.Draw(t, "name"), Generation: rapid.Uint64().Draw(t, "generation")}
			if rapid.Bool().Draw(t, "has data") {
				ev.Data, _ = json.Marshal(map[string]any{text.Draw(t, "key"): text.Draw(t, "value"), "n": []any{1, nil, map[string]any{}}})
			}
			e.Events = append(e.Events, ev)
		}
		payload, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		f := Frame{Seq: 9, Time: time.Unix(1, 2).UTC(), Payload: payload}
		want, err := f.Entry()
		if err != nil {
			t.Fatal(err)
		}
		want.Record = nil
		got, err := f.Told()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

// FuzzTold reads anything. What it cannot take apart it refuses.
func FuzzTold(f *testing.F) {
	f.Add([]byte(`{"events":[{"type":"x","data":{"a":[1,2,"]"]}}],"exit":null,"removed":false}`))
	f.Add([]byte(`{"a":"\\","b":[[[{}]]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Frame{Payload: data}.Told()
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil || object == nil {
			return // it may be taken for more than it is, since it is not checked
		}
		if _, has := object["events"]; err == nil && !has && len(e.Events) > 0 {
			t.Errorf("%d events out of none", len(e.Events))
		}
		if len(object) == 0 && err != nil {
			t.Error(err)
		}
	})
}

func sample() Entry {
	code := 1
	return Entry{Exit: &code, Events: []Event{
		{Type: "process.started", ProcessID: "proc_1763900000_abcdefg", Name: "web", Generation: 12, Data: json.RawMessage(`{"generation":12,"pid":12345}`)},
		{Type: "process.restarted", ProcessID: "proc_1763900000_abcdefg", Name: "web", Generation: 12, Data: json.RawMessage(`{"attempt":11}`)},
		{Type: "process.ready", ProcessID: "proc_1763900000_abcdefg", Name: "web", Generation: 12}},
		Record: &Record{ID: "proc_1763900000_abcdefg", Name: "web", Source: "file", State: supervise.State{Detail: "running", PID: 5, Generation: 12}}}
}

func BenchmarkTold(b *testing.B) {
	payload, err := json.Marshal(sample())
	if err != nil {
		b.Fatal(err)
	}
	f := Frame{Payload: payload}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Told(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEntry(b *testing.B) {
	payload, err := json.Marshal(sample())
	if err != nil {
		b.Fatal(err)
	}
	f := Frame{Payload: payload}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Entry(); err != nil {
			b.Fatal(err)
		}
	}
}
