package workers

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/supervise"
	"github.com/perdure/perdure/internal/wire"
)

// deskOf is a desk of the process "w", on which nobody listens.
func deskOf(def api.Definition, kept control.Worker) *Desk {
	d := New(Options{ID: "proc_1", Name: "w"}, kept)
	d.Define(&def)
	return d
}

// told are the types and data of the events of a batch.
func told(h *Heard) []string {
	var out []string
	for _, e := range h.Events {
		out = append(out, e.Type+" "+string(e.Data))
	}
	return out
}

func event(name, data string, plain bool) session.Report {
	r := session.Report{Type: typeEvent, Kind: wire.Event, Generation: 3, Text: name,
		Data: json.RawMessage(`{"event":"` + name + `","data":` + data + `}`)}
	if plain {
		r.Plain = json.RawMessage(`{"type":"event"}`)
	}
	return r
}

// An event has a type of its own; listeners of the plain protocol's server get
// theirs beside it.
func TestEvents(t *testing.T) {
	t.Parallel()
	d := deskOf(api.Definition{}, control.Worker{})
	h := d.Hear(session.Batch{Reports: []session.Report{event("step", `{"n":1}`, false), event("step", `{"n":2}`, true)}})
	if diff := cmp.Diff([]string{
		`process.w.step {"processId":"proc_1","name":"w","event":"step","data":{"n":1}}`,
		`process.w.step {"processId":"proc_1","name":"w","event":"step","data":{"n":2}}`,
		`process.event {"processId":"proc_1","name":"w","event":"step","data":{"n":2}}`,
		`process.message {"processId":"proc_1","name":"w","message":{"type":"event"}}`,
	}, told(&h)); diff != "" {
		t.Errorf("told (-want +have):\n%s", diff)
	}
}

// What does not fit its schema is told with its errors and all that was sent.
func TestEventThatDoesNotFit(t *testing.T) {
	t.Parallel()
	d := deskOf(api.Definition{Events: map[string]any{"step": map[string]any{"required": []any{"n"}}}}, control.Worker{})
	h := d.Hear(session.Batch{Reports: []session.Report{event("step", `{"m":1}`, false), event("other", `1`, false)}})
	if len(h.Events) != 2 || h.Events[0].Type != typeInvalid || h.Events[1].Type != "process.w.other" {
		t.Fatalf("told %v", told(&h))
	}
	var data struct {
		Reason, Error, Event string
		Data                 map[string]int
	}
	if err := json.Unmarshal(h.Events[0].Data, &data); err != nil || data.Reason != "schema" || data.Event != "step" || data.Data["m"] != 1 || !strings.Contains(data.Error, "n") {
		t.Errorf("told %s: %v", h.Events[0].Data, err)
	}
}

// Of the ways to say ready the one alone counts that the definition waits for.
func TestReady(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ready *api.Probe
		by    string
		is    bool
	}{
		{nil, "", false},
		{&api.Probe{Notify: "worker"}, "", true},
		{&api.Probe{Notify: "worker"}, "sd_notify", false},
		{&api.Probe{Notify: "sd_notify"}, "sd_notify", true},
		{&api.Probe{Notify: "sd_notify"}, "", false},
		{&api.Probe{FD: 3}, "newline", true},
	} {
		d := deskOf(api.Definition{Ready: c.ready}, control.Worker{})
		h := d.Hear(session.Batch{Reports: []session.Report{{Type: "process.worker_ready", Kind: wire.Ready, By: c.by, Generation: 2, Data: json.RawMessage("{}")}}})
		if is := len(h.Said) == 1 && h.Said[0].Said == supervise.SaidReady && h.Said[0].Generation == 2; is != c.is || len(h.Events) != 1 {
			t.Errorf("%+v by %q: %v, %v", c.ready, c.by, h.Said, told(&h))
		}
	}
}

// What is shown of a worker is its newest word, and nothing of a generation before;
// nothing is remembered of a batch that was not made durable.
func TestRemembered(t *testing.T) {
	t.Parallel()
	d := deskOf(api.Definition{}, control.Worker{Generation: 1, Status: "old", MainPID: 7})
	h := d.Hear(session.Batch{Reports: []session.Report{
		{Type: "process.progress", Kind: wire.Progress, Generation: 2, Percent: 40, Message: "half", Data: json.RawMessage("{}")},
		{Type: "process.progress", Kind: wire.Progress, Generation: 2, Percent: 50, Data: json.RawMessage("{}")},
	}, Marks: []session.Mark{{Instance: "a", ID: 9}}})
	if diff := cmp.Diff(control.Worker{Generation: 1, Status: "old", MainPID: 7}, d.Kept()); diff != "" {
		t.Errorf("before it is durable (-want +have):\n%s", diff)
	}
	d.Keep(&h)
	want := control.Worker{Generation: 2, Progress: &api.Progress{Percent: 50}, Marks: []session.Mark{{Instance: "a", ID: 9}}}
	if diff := cmp.Diff(want, d.Kept()); diff != "" {
		t.Errorf("after (-want +have):\n%s", diff)
	}
}

// The first worker that comes back to another supervisor is told, once.
func TestReconnected(t *testing.T) {
	t.Parallel()
	d := deskOf(api.Definition{}, control.Worker{})
	d.adopted = true
	d.sheet.Store(&sheet{ident: &proc.Identity{PID: 42}})
	connected := session.Report{Type: typeConnected, Generation: 1, Data: json.RawMessage(`{}`)}
	h := d.Hear(session.Batch{Reports: []session.Report{connected, connected}})
	want := []string{typeConnected + " {}", typeReconnected + ` {"processId":"proc_1","name":"w","pid":42}`, typeConnected + " {}"}
	if diff := cmp.Diff(want, told(&h)); diff != "" {
		t.Errorf("told (-want +have):\n%s", diff)
	}
	d.Keep(&h)
	if h = d.Hear(session.Batch{Reports: []session.Report{connected}}); len(h.Events) != 1 {
		t.Errorf("told again: %v", told(&h))
	}
}
