package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/internal/wire/wiretest"
)

// lines feeds a stream in pieces of the given lengths, over and over.
func lines(limit int, stream []byte, pieces ...int) (out []string, rest string) {
	f := Framer{Max: limit}
	for i := 0; len(stream) > 0; i++ {
		n := min(len(stream), pieces[i%len(pieces)])
		_ = f.Feed(stream[:n], func(l Line) error {
			s := string(l.Text)
			if l.Over > 0 {
				s = fmt.Sprintf("%s… of %d", s[:min(3, len(s))], l.Over)
			}
			out = append(out, s)
			return nil
		})
		stream = stream[n:]
	}
	return out, string(f.End())
}

// Keeps out Q22.
func TestFramerCutsTheSameInAnyPieces(t *testing.T) {
	t.Parallel()
	const limit = 20
	stream := "a\nbb\r\n\r\n \t \n" + strings.Repeat("x", limit) + "\n" + strings.Repeat("y", limit) + "\r\n" +
		strings.Repeat("z", limit+1) + "\n" + strings.Repeat("w", 300) + "\r\n\rq\nlast"
	want := []string{"a", "bb", strings.Repeat("x", limit), strings.Repeat("y", limit), "zzz… of 21", "www… of 301", "\rq"}
	for _, pieces := range [][]int{{1}, {2}, {3}, {7, 1}, {19}, {20}, {21}, {22}, {1000}, {1, 50, 3}} {
		got, rest := lines(limit, []byte(stream), pieces...)
		if diff := cmp.Diff(want, got); diff != "" || rest != "last" {
			t.Errorf("in pieces of %v: rest %q, lines differ (-want +got):\n%s", pieces, rest, diff)
		}
	}
}

func TestFramerHoldsNoMoreThanItsBound(t *testing.T) {
	t.Parallel()
	var f Framer
	piece := bytes.Repeat([]byte("x"), 64<<10)
	for range 100 << 20 / len(piece) {
		if err := f.Feed(piece, func(Line) error { return errors.New("there is no line") }); err != nil {
			t.Fatal(err)
		}
		if cap(f.held) > 2*(MaxLine+2) {
			t.Fatalf("holds %d bytes", cap(f.held))
		}
	}
	if f.Held() > Kept {
		t.Errorf("holds %d bytes of a line that is too long", f.Held())
	}
	var over int
	if err := f.Feed([]byte("\n"), func(l Line) error { over = l.Over; return nil }); err != nil || over != 100<<20 {
		t.Errorf("length %d, %v", over, err)
	}
	if f.Held() != 0 || f.held != nil {
		t.Error("holds something between two lines")
	}
	gone := errors.New("given up")
	if err := f.Feed([]byte("a\nb\n"), func(Line) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"type":"heartbeat"}`: "heartbeat",
		`{"type":"heartbeat","timestamp":1.5e3,"processId":"p"}`:                "heartbeat at 1500 by p",
		`{"type":"heartbeat","timestamp":"x","processId":5}`:                    "heartbeat",
		`{"type":"heartbeat","id":3}`:                                           "heartbeat",
		`{"type":"event","event":"a","id":3}`:                                   "event 3",
		`{"type":"event","event":"a","id":3.0}`:                                 "field",
		`{"type":"event","event":"a","id":-3}`:                                  "field",
		`{"type":"event","event":"a","id":"3"}`:                                 "field",
		`{"type":"event","event":"a","id":9007199254740991}`:                    "event 9007199254740991",
		`{"type":"event","event":"a","id":9007199254740992}`:                    "field",
		`{"type":"event","event":""}`:                                           "field",
		`{"type":"event","event":".a"}`:                                         "name",
		`{"type":"event","event":"a*"}`:                                         "name",
		`{"type":"event","event":"` + strings.Repeat("n", 129) + `"}`:           "name",
		`{"type":"stats","stats":[]}`:                                           "field",
		`{"type":"stats","stats":{}}`:                                           "stats",
		`{"type":"ready"}`:                                                      "ready",
		`{"type":"status","status":null}`:                                       "field",
		`{"type":"progress","percent":-1}`:                                      "progress",
		`{"type":"progress","percent":true}`:                                    "field",
		`{"type":"progress","percent":1,"data":[]}`:                             "field",
		`{"type":"log","level":"info","message":"m"}`:                           "log",
		`{"type":"log","level":"info"}`:                                         "field",
		`{"type":"extend","timeoutMs":0}`:                                       "field",
		`{"type":"extend","timeoutMs":1.5}`:                                     "field",
		`{"type":"extend","timeoutMs":15}`:                                      "extend",
		`{"type":"reply","to":"c","error":5}`:                                   "field",
		`{"type":"reply","to":"c"}`:                                             "reply",
		`{"type":"hello","version":0,"instance":"12345678"}`:                    "field",
		`{"type":"hello","version":1,"instance":"1234567"}`:                     "field",
		`{"type":"hello","version":1,"instance":"12345678 "}`:                   "field",
		`{"type":"hello","version":1,"instance":"12345678","capabilities":"x"}`: "field",
		`{"type":"hello","version":2,"instance":"12345678","capabilities":[]}`:  "hello",
		`{"type":"connected"}`:                                                  "connected",
		`{"type":"disconnecting"}`:                                              "disconnecting",
		`{"type":"x","id":4}`:                                                   "other 4",
		`{"TYPE":"x"}`:                                                          "type",
		`{"type":null}`:                                                         "type",
		``:                                                                      "json",
		`{`:                                                                     "json",
		`{"type":"x"}}`:                                                         "json",
		`{"type":"x",}`:                                                         "json",
		`{,"type":"x"}`:                                                         "json",
		`{"type":"x" "a":1}`:                                                    "json",
		`{"type":"\x"}`:                                                         "json",
		`{"type":"\u12g4"}`:                                                     "json",
		`{"type":"x","n":01}`:                                                   "json",
		`{"type":"x","n":1.}`:                                                   "json",
		`{"type":"x","n":.5}`:                                                   "json",
		`{"type":"x","n":1e}`:                                                   "json",
		`{"type":"x","n":-}`:                                                    "json",
		`{"type":"x","n":nul}`:                                                  "json",
		`{"type":"x","n":` + strings.Repeat("[", 199) + strings.Repeat("]", 199) + `}`: "other",
		`{"type":"x","n":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`: "json",
	} {
		if got := describe([]byte(line), false); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func describe(line []byte, plain bool) string {
	var m Message
	var ie *InvalidError
	if err := Decode(line, plain, &m); errors.As(err, &ie) {
		return string(ie.Reason)
	} else if err != nil {
		return err.Error()
	}
	s := m.Kind.String()
	if m.ID > 0 {
		s += fmt.Sprintf(" %d", m.ID)
	}
	if m.Timestamp() != 0 {
		s += fmt.Sprintf(" at %v", m.Timestamp())
	}
	if id := m.ProcessID(); id != nil {
		s += fmt.Sprintf(" by %s", id)
	}
	return s
}

func TestPlainMessagesOfOurTypes(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"type":"event","event":"a","id":"mine"}`: "event",
		`{"type":"event","event":"a","id":5}`:      "event",
		`{"type":"event","event":"a b"}`:           "name",
		`{"type":"event","event":5}`:               "other",
		`{"type":"stats"}`:                         "other",
		`{"type":"hello"}`:                         "other",
		`{"type":"status","status":5,"id":5}`:      "other",
		`{"type":5}`:                               "type",
	} {
		if got := describe([]byte(line), true); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func TestDecodeFields(t *testing.T) {
	t.Parallel()
	var m Message
	line := `{"type":"progress","percent":140,"message":"\u00e9 \"x\"","data":{"a":[1]},"to":"t"}`
	if err := Decode([]byte(line), false, &m); err != nil {
		t.Fatal(err)
	}
	if m.Percent() != 100 || m.Text() != `é "x"` || string(m.Data()) != `{"a":[1]}` || m.Status() != "" || m.Stats() != nil {
		t.Errorf("%v %q %s", m.Percent(), m.Text(), m.Data())
	}
	if err := Decode([]byte(`{"type":"hello","version":3,"instance":"abcdefgh","sdk":"x","capabilities":["commands"],"token":"t"}`), true, &m); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Greeting{Version: 3, Instance: "abcdefgh", SDK: "x", Capabilities: []string{"commands"}, Token: "t"}, m.Greeting()); diff != "" {
		t.Error(diff)
	}
	if err := Decode([]byte("{\"type\":\"event\",\"event\":\"e\",\"data\":\"a\xff\xfeb\"}"), false, &m); err != nil || !m.Repaired || string(m.Data()) != "\"a\uFFFDb\"" {
		t.Errorf("%v %v %s", err, m.Repaired, m.Data())
	}
	if err := Decode([]byte(`{"type":"status","status":"`+strings.Repeat("é", 4000)+`"}`), false, &m); err != nil || len(m.Status()) != 4096 {
		t.Errorf("%v %d", err, len(m.Status()))
	}
	if Clip("aéb", 2) != "a" || Clip("aéb", 3) != "aé" {
		t.Error("a rune is cut in two")
	}
}

// TestTranscripts holds the transcripts to the decoder: what a worker sends in
// them can be read, and what Perdure sends as well.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	all, err := wiretest.Load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range all {
		for _, l := range tr.Lines {
			b := wiretest.Bound{}
			text := l.Rest
			if l.Mark == ">" || l.Mark == "<" {
				if text, err = b.Fill(l.Rest, map[string]any{"processId": "p"}); err != nil {
					t.Fatalf("%s:%d: %v", tr.Name, l.Number, err)
				}
			}
			switch l.Mark {
			case ">":
				if got := describe([]byte(text), true); got == "json" || got == "type" {
					t.Errorf("%s:%d: %s", tr.Name, l.Number, got)
				}
			case "<":
				if _, err := DecodeReceived([]byte(text)); err != nil && text[0] == '{' {
					t.Errorf("%s:%d: %v", tr.Name, l.Number, err)
				}
			}
		}
	}
}

func TestEncodeWhatIsDecoded(t *testing.T) {
	t.Parallel()
	ok := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(b, []byte("\n")) != 1 || b[len(b)-1] != '\n' {
			t.Fatalf("no single line: %q", b)
		}
		return b
	}
	text, pct := "<a & b>\n", 12.5
	for _, c := range []struct {
		kind Kind
		sent Sent
		want string
	}{
		{Event, Sent{Event: "e", Data: []byte("{\n \"a\": \"<&>\" }"), ID: 4, Timestamp: 7}, `{"type":"event","event":"e","data":{"a":"<&>"},"id":4,"timestamp":7}`},
		{Progress, Sent{Percent: &pct, Message: &text}, `{"type":"progress","percent":12.5,"message":"<a & b>\n"}`},
		{Ready, Sent{}, `{"type":"ready"}`},
		{Reply, Sent{To: "c", Error: &text}, `{"type":"reply","to":"c","error":"<a & b>\n"}`},
		{Heartbeat, Sent{Timestamp: 5}, `{"type":"heartbeat","timestamp":5}`},
		{Heartbeat, Sent{}, `{"type":"heartbeat"}`},
	} {
		line := ok(AppendSentBy(nil, c.kind, c.sent))
		if got := string(bytes.TrimSpace(line)); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
		var m Message
		if err := Decode(line[:len(line)-1], false, &m); err != nil || m.Kind != c.kind || m.ID != c.sent.ID {
			t.Errorf("%s: %v %v", line, err, m.Kind)
		}
	}
	for want, line := range map[string][]byte{
		`{"type":"ack","id":7}`: AppendAck(nil, 7),
		`{"type":"welcome","version":1,"processId":"p","name":"n","generation":2,"last":5,"maxLine":9,"heartbeat":{"intervalMs":1,"timeoutMs":2},"metadata":{"a":1},"capabilities":[]}`: ok(AppendWelcome(nil, Welcome{Version: 1,
			ProcessID: "p", Name: "n", Generation: 2, Last: 5, MaxLine: 9, Heartbeat: &Beat{1, 2}, Metadata: []byte("{\"a\":\n1}")})),
		`{"type":"error","code":"invalid","message":"m","id":3}`:              ok(AppendRefusal(nil, Refusal{CodeInvalid, "m", 3})),
		`{"type":"command","id":"c","command":"x","data":null,"timeoutMs":5}`: ok(AppendCommand(nil, Command{ID: "c", Command: "x", TimeoutMs: 5})),
		`{"type":"x","a":1}`:            ok(AppendPlainCommand(nil, "x", []byte(" { \"a\":\n1 } "))),
		`{"type":"x"}`:                  ok(AppendPlainCommand(nil, "x", []byte("{ }"))),
		`{"a":1}`:                       ok(AppendSent(nil, true, []byte("{\"a\" : 1}"))),
		`{"type":"message","data":"t"}`: ok(AppendSent(nil, false, []byte(`"t"`))),
		`{"type":"hello","version":1,"instance":"abcdefgh"}`: ok(AppendHello(nil, Greeting{Version: 1, Instance: "abcdefgh"})),
	} {
		if got := string(bytes.TrimSpace(line)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if _, err := DecodeReceived(line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, err := AppendPlainCommand(nil, "x", []byte("[1]")); err == nil {
		t.Error("a plain command with a list")
	}
	if _, err := AppendSent(nil, true, []byte("{")); err == nil {
		t.Error("half an object is sent")
	}
}

// TestKindsHaveTexts holds the table of kinds together.
func TestKindsHaveTexts(t *testing.T) {
	t.Parallel()
	for k := Hello; k < NumKinds; k++ {
		if k.String() == "" || kindOf([]byte(k.String())) != k {
			t.Errorf("kind %d has the text %q", k, k)
		}
	}
}

// FuzzDecode compares the scanner with encoding/json.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"type":"heartbeat","timestamp":1}`, `{"type":"event","event":"a","data":{"a":[1,2,{"b":null}]},"id":1}`,
		`{"type":"\ud800\u0041"}`, `{"a":-0.5e+10,"type":"x"}`, "{\"type\":\"\xff\"}", `[]`, `{"type":"hello","version":1,"instance":"12345678"}`} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, line []byte, plain bool) {
		var m Message
		err := Decode(line, plain, &m)
		var obj map[string]json.RawMessage
		sound := json.Valid(m.Raw) && json.Unmarshal(m.Raw, &obj) == nil && obj != nil
		var ie *InvalidError
		isJSON := !errors.As(err, &ie) || ie.Reason != ReasonJSON
		if sound != isJSON && !deep(m.Raw) {
			t.Fatalf("%q: encoding/json says %v, Decode says %v", line, sound, err)
		}
		if err == nil && m.Kind == 0 {
			t.Fatalf("%q: no kind", line)
		}
		if err == nil {
			var typ string
			if json.Unmarshal(obj["type"], &typ) != nil || typ != m.Type() {
				t.Fatalf("%q: type %q, want %q", line, m.Type(), typ)
			}
			_, _ = m.Error()
			_, _ = m.Greeting(), m.TimeoutMs()
			if d := m.Data(); d != nil && !json.Valid(d) {
				t.Fatalf("%q: data %q", line, d)
			}
		}
	})
}

func deep(b []byte) bool { return bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > MaxDepth }

// FuzzFramer compares any cutting into pieces with the whole.
func FuzzFramer(f *testing.F) {
	f.Add([]byte("a\n\r\nbbbbbbbbbbbbbbbbbbbbbbbbb\ncc\r\nx"), uint64(1))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		whole, rest := lines(16, stream, len(stream)+1)
		r := rand.New(rand.NewPCG(seed, 0))
		pieces := make([]int, 16)
		for i := range pieces {
			pieces[i] = 1 + r.IntN(20)
		}
		got, gotRest := lines(16, stream, pieces...)
		if diff := cmp.Diff(whole, got); diff != "" || rest != gotRest {
			t.Fatalf("%q in pieces of %v: rest %q and %q, lines differ:\n%s", stream, pieces, rest, gotRest, diff)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for name, line := range map[string]string{
		"heartbeat": `{"type":"heartbeat","processId":"proc_1754000000000_abc1234","timestamp":1754000000003}`,
		"event":     `{"type":"event","event":"progress","data":{"percent":40,"frame":1200,"fps":29.97,"note":"hello"},"id":4711,"timestamp":1754000000003}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			l := []byte(line)
			var m Message
			for b.Loop() {
				if err := Decode(l, false, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
