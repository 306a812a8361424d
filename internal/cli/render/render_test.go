package render

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/api"
)

var update = flag.Bool("update", false, "rewrite the golden files") //ok: a flag of the tests

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); look at it, then run the test with -update:\n%s", path, diff)
	}
}

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func ago(d time.Duration) *time.Time { at := noon().Add(-d); return &at }

func code(n int) *int { return &n }

// stack is one process in each situation that people meet.
func stack() []api.Process {
	return []api.Process{
		{Name: "web", State: api.StateRunning, Ready: true, Health: api.HealthHealthy, PID: 4321, Uptime: api.Duration(3*time.Hour + 4*time.Minute),
			CPU: 0.034, Memory: 52 << 20, Restarts: 2, Detail: "running for 3h4m0s"},
		{Name: "データ取込", State: api.StateStarting, Health: api.HealthUnknown, PID: 99, Uptime: api.Duration(1200 * time.Millisecond),
			CPU: 1, Memory: 900, Detail: "waits to be ready until 12:00:59"},
		{Name: "flaky-é", State: api.StateBackoff, Restarts: 12, Detail: "exited with code 1; restart 13 in 8s", NextStart: ago(-6 * time.Second)},
		{Name: "worker", State: api.StateFailed, Reason: api.ReasonBreaker, Restarts: 104,
			Detail: "breaker open after 5 failures in 1m0s; start it again with `perdure reset worker`"},
		{Name: "migrate", State: api.StateExited, LastExit: &api.Exit{Code: code(0), Uptime: api.Duration(820 * time.Millisecond)}},
		{Name: "idle", State: api.StateIdle},
		{Name: "multi", State: api.StateWaiting, Detail: "waits for db\nand\x1b[31m more"},
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	for _, columns := range []int{0, 140, 80, 60, 40, 20} {
		var out bytes.Buffer
		if err := Processes(&out, Style{}, columns, noon(), stack()); err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("ps-%d", columns), out.String())
		for line := range strings.Lines(out.String()) {
			if n := Width(strings.TrimSuffix(line, "\n")); columns >= 60 && n > columns {
				t.Errorf("a line is %d columns wide on a terminal of %d: %q", n, columns, line)
			}
		}
	}
}

// The columns stand below each other whatever the names are made of, and colours
// change nothing about it.
func TestColoursKeepAlignment(t *testing.T) {
	t.Parallel()
	var plain, coloured bytes.Buffer
	if err := Processes(&plain, Style{}, 0, noon(), stack()); err != nil {
		t.Fatal(err)
	}
	if err := Processes(&coloured, Style{Colour: true}, 0, noon(), stack()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(coloured.String(), "\x1b[") {
		t.Fatal("no colours were written")
	}
	trim := func(s string) string {
		lines := strings.Split(s, "\n")
		for i := range lines {
			lines[i] = strings.TrimRight(lines[i], " ")
		}
		return strings.Join(lines, "\n")
	}
	if diff := cmp.Diff(trim(plain.String()), trim(cleanAll(coloured.String()))); diff != "" {
		t.Errorf("without its colours the coloured table is another (-plain +coloured):\n%s", diff)
	}
	var states []int
	for line := range strings.Lines(plain.String()) {
		for _, word := range append([]string{"STATE"}, stateNames()...) {
			if i := strings.Index(line, " "+word+" "); i >= 0 {
				states = append(states, Width(line[:i]))
				break
			}
		}
	}
	if len(states) != len(stack())+1 {
		t.Fatalf("found the column in %d of %d lines", len(states), len(stack())+1)
	}
	for _, at := range states {
		if at != states[0] {
			t.Errorf("the column STATE does not stand below itself: %v", states)
			break
		}
	}
}

// cleanAll takes all ANSI sequences out of several lines.
func cleanAll(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = Clean(lines[i], false)
	}
	return strings.Join(lines, "\n")
}

func stateNames() []string {
	var out []string
	for _, s := range api.States() {
		out = append(out, string(s))
	}
	return out
}

func event(seq uint64, name, typ string, data map[string]any) api.Event {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	return api.Event{Seq: seq, Time: noon().Add(-time.Minute), Type: typ, Name: name, Generation: 3, Data: text}
}

func allEvents() []api.Event {
	type m = map[string]any
	return []api.Event{
		event(1, "web", "process.starting", nil),
		event(2, "web", "process.started", m{"pid": 77}),
		event(3, "web", "process.ready", nil),
		event(4, "web", "process.exited", m{"code": 1, "uptime_ms": 3210, "cause": "exit"}),
		event(5, "web", "process.exited", m{"code": 139, "signal": "SIGSEGV", "core_dumped": true, "cause": "exit"}),
		event(6, "web", "process.exited", m{"code": 143, "signal": "SIGTERM", "cause": "health"}),
		event(7, "web", "process.exited", m{"code": nil, "cause": "unknown"}),
		event(8, "web", "process.backoff", m{"delay_ms": 1000, "attempt": 1}),
		event(9, "web", "process.restarted", m{"attempt": 1}),
		event(10, "web", "process.breaker_open", m{"failures": 5, "window_ms": 60000, "on_open": "park"}),
		event(11, "web", "process.max_restarts", m{"restarts": 9}),
		event(12, "web", "process.error", m{"error": "cannot run \"x\":\n not found in PATH"}),
		event(13, "web", "process.health_failed", m{"failures": 2, "error": "connection refused"}),
		event(14, "web", "process.unhealthy", nil),
		event(15, "a-name-that-is-far-too-long-for-a-column", "process.waiting", m{"detail": "waits for db (ready)"}),
		event(16, "", "config.reloaded", m{"added": []string{"x"}}),
		{Seq: 17, Time: noon().AddDate(0, 0, -2), Type: "x.unknown"},
		{Seq: 18, Time: noon(), Type: "process.exited", Data: json.RawMessage(`"garbage \u001b[2J"`)},
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	for _, e := range allEvents() {
		Event(w, Style{}, noon(), 8, e)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "events", out.String())
	if strings.ContainsRune(out.String(), 0x1b) {
		t.Error("a control sequence out of an event has reached the terminal")
	}
}

func TestFindings(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Findings(&out, Style{}, []api.Finding{
		{Level: "error", File: "perdure.yaml", Line: 4, Column: 5, Field: "processes.web.restrt", Message: "unknown key", Hint: `did you mean "restart"?`},
		{Level: "warning", File: "perdure.yaml", Line: 9, Message: "a warning"},
		{Level: "ok", Message: "cgroup v2 is writable"},
		{Level: "info", File: "Procfile", Message: "no .env beside it"},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "findings", out.String())
}

func TestStatus(t *testing.T) {
	t.Parallel()
	p := stack()[0]
	p.ID, p.Desired, p.Generation, p.Starts, p.Failures, p.Processes = "proc_1_x", api.DesiredRunning, 3, 3, 1, 4
	p.StartedAt, p.HealthFailures = ago(3*time.Hour), 1
	p.LastExit = &api.Exit{Code: code(137), Signal: "SIGKILL", At: *ago(26 * time.Hour), Uptime: api.Duration(time.Minute)}
	p.Metadata = map[string]any{"team": "core", "a": 1}
	view := StatusView{Process: p,
		Definition: &api.Definition{Command: api.Command{"sh", "-c", "echo it's"}, Dir: "/srv/web", Preset: "pidnap", Restart: "always",
			DependsOn: []api.Dependency{{Process: "db", Condition: "healthy"}, {File: "/run/ok"}}, Description: "The front"},
		Exits: allEvents()[3:6],
		Lines: []api.LogLine{{Time: noon(), Stream: "stdout", Text: "hello"}, {Time: noon(), Stream: "stderr", Text: "50%\r100% \x1b[2Jdone"}}}
	for _, columns := range []int{0, 60} {
		var out bytes.Buffer
		if err := Status(&out, Style{}, columns, noon(), view); err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("status-%d", columns), out.String())
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	write := func(o LinesOptions) string {
		var out bytes.Buffer
		o.Zone = time.UTC
		l := NewLines(&out, o, "web", "データ")
		l.Line(api.LogLine{Name: "web", Time: noon(), Stream: "stdout", Text: "one"})
		l.Line(api.LogLine{Name: "データ", Time: noon(), Stream: "stderr", Text: "two \x1b[32mgreen"})
		l.Event(event(1, "web", "process.backoff", map[string]any{"delay_ms": 1500, "attempt": 2}))
		l.Line(api.LogLine{Name: "a-longer-name", Time: noon(), Stream: "stdout", Text: "three"})
		l.Line(api.LogLine{Name: "web", Time: noon(), Stream: "stdout", Text: "four"})
		l.Status("stopping")
		l.Note("a note")
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	golden(t, "lines-plain", write(LinesOptions{Prefix: true, Timestamps: true, Raw: true}))
	golden(t, "lines-terminal", strings.ReplaceAll(write(LinesOptions{Prefix: true, Live: true, Style: Style{Colour: true}}), "\x1b", "ESC"))
	if got := write(LinesOptions{Raw: true}); !strings.HasPrefix(got, "one\ntwo \x1b[32mgreen\n") {
		t.Errorf("without prefix a line does not stand as it was written: %q", got)
	}
}

// The status line is always the last on the screen, and never part of the text.
func TestStatusLineStaysBelow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var out bytes.Buffer
		l := NewLines(&out, LinesOptions{Live: true, Raw: true})
		var want []string
		status := ""
		for _, op := range rapid.SliceOfN(rapid.SampledFrom([]string{"line", "status", "none", "flush"}), 1, 30).Draw(rt, "ops") {
			switch op {
			case "line":
				want = append(want, fmt.Sprintf("line %d", len(want)))
				l.Line(api.LogLine{Text: want[len(want)-1]})
			case "status":
				status = "status"
				l.Status(status)
			case "none":
				status = ""
				l.Status(status)
			case "flush":
				if err := l.Flush(); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if err := l.Flush(); err != nil {
			rt.Fatal(err)
		}
		want = append(want, status)
		if diff := cmp.Diff(want, screen(out.String())); diff != "" {
			rt.Fatalf("the screen differs (-want +got):\n%s", diff)
		}
	})
}

// screen plays what a terminal does with newline, carriage return and
// "erase to the end of the line".
func screen(s string) []string {
	var rows []string
	for row := range strings.SplitSeq(s, "\n") {
		for {
			_, after, found := strings.Cut(row, "\r\x1b[K")
			if !found {
				break
			}
			row = after
		}
		rows = append(rows, row)
	}
	return rows
}

func TestNameColoursReadOnLightAndDark(t *testing.T) {
	t.Parallel()
	all := nameColours()
	for _, sgr := range []string{sgrRed, sgrGreen, sgrYellow, sgrBlue} {
		n, err := strconv.Atoi(strings.TrimPrefix(sgr, "38;5;"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	for _, n := range all {
		for _, background := range []float64{0, 1} {
			if c := contrast(luminance(n), background); c < 3 {
				t.Errorf("colour %d has a contrast of %.2f to a background of luminance %g, less than 3", n, c, background)
			}
		}
	}
}

// luminance of a colour of the 6x6x6 cube of xterm's palette (WCAG 2.2).
func luminance(n int) float64 {
	level := func(i int) float64 {
		v := 0.0
		if i > 0 {
			v = float64(55+40*i) / 255
		}
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	n -= 16
	return 0.2126*level(n/36) + 0.7152*level(n/6%6) + 0.0722*level(n%6)
}

func contrast(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }

func TestNamesGetTheirOwnColour(t *testing.T) {
	t.Parallel()
	names := []string{"web", "db", "cache", "worker", "a", "b", "c", "d", "e", "f", "g", "h"}
	n := NewNames(Style{Colour: true}, names...)
	seen := map[string]string{}
	for _, name := range names {
		colour := n.Paint(name, "x")
		if other, taken := seen[colour]; taken {
			t.Errorf("%s and %s have the same colour", name, other)
		}
		seen[colour] = name
	}
	if a, b := NewNames(Style{Colour: true}).Paint("web", "x"), NewNames(Style{Colour: true}).Paint("web", "x"); a != b {
		t.Errorf("the colour of a name is not stable: %q and %q", a, b)
	}
	if got := NewNames(Style{}, names...).Paint("web", "x"); got != "x" {
		t.Errorf("without colours a name is %q", got)
	}
}

func TestDurationAndBytes(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", time.Microsecond: "<1ms", 820 * time.Millisecond: "820ms", time.Second: "1s",
		4290 * time.Millisecond: "4.2s", 9999 * time.Millisecond: "9.9s", 59900 * time.Millisecond: "59s", 192 * time.Second: "3m12s", time.Minute: "1m",
		5*time.Hour + 4*time.Minute: "5h04m", 79 * time.Hour: "3d07h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{
		-1: "0 B", 0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1500000: "1.4 MiB", 200 << 20: "200 MiB", 1<<20 - 1: "1.0 MiB", 3 << 40: "3.0 TiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestTruncateNeverExceeds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.String().Draw(rt, "text")
		text = Clean(text, false)
		columns := rapid.IntRange(0, 40).Draw(rt, "columns")
		got := Truncate(text, columns)
		if Width(got) > columns {
			rt.Fatalf("%q is %d columns wide, more than %d", got, Width(got), columns)
		}
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			rt.Fatalf("%q was cut in the middle of a character: %q", text, got)
		}
		if Width(text) <= columns && got != text && columns > 0 {
			rt.Fatalf("%q was cut though it fits", text)
		}
	})
}

// Whatever a process writes, it cannot move the cursor, clear the screen or
// leave its colour to the lines of others.
func TestCleanLetsNothingThrough(t *testing.T) {
	t.Parallel()
	piece := rapid.SampledFrom([]string{"a", "é", "日", "\x1b[2J", "\x1b[31m", "\x1b[0m", "\x1b]0;title\x07", "\x1b]x", "\x1b", "\x1b[", "\r", "\x07", "\u009b2J", "\xff", "\t"})
	rapid.Check(t, func(rt *rapid.T) {
		line := strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(rt, "pieces"), "")
		if got := Clean(line, false); strings.ContainsFunc(got, func(r rune) bool { return isControl(r) && r != '\t' }) {
			rt.Fatalf("a control character is left in %q of %q", got, line)
		}
		got := Clean(line, true)
		if strings.Contains(got, "\x1b[31m") && !strings.HasSuffix(got, "\x1b[0m") {
			rt.Fatalf("a colour is left open in %q", got)
		}
		if strings.Contains(got, "\x1b[2J") || strings.Contains(got, "\x1b]") {
			rt.Fatalf("a control sequence is left in %q", got)
		}
	})
}

func BenchmarkLine(b *testing.B) {
	l := NewLines(discard{}, LinesOptions{Prefix: true, Style: Style{Colour: true}}, "web")
	line := api.LogLine{Name: "web", Stream: "stdout", Text: strings.Repeat("x", 100)}
	b.ReportAllocs()
	for b.Loop() {
		l.Line(line)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
