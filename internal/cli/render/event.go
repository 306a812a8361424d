package render

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// eventData are the fields of all events that sentences are made of; each event
// has some of them.
type eventData struct {
	PID       int     `json:"pid"`
	Code      *int    `json:"code"`
	Signal    string  `json:"signal"`
	Expected  bool    `json:"expected"`
	Cause     string  `json:"cause"`
	Reason    string  `json:"reason"`
	Detail    string  `json:"detail"`
	Error     string  `json:"error"`
	UptimeMS  float64 `json:"uptime_ms"`
	DelayMS   float64 `json:"delay_ms"`
	WindowMS  float64 `json:"window_ms"`
	Attempt   int     `json:"attempt"`
	Failures  int     `json:"failures"`
	Restarts  int     `json:"restarts"`
	OnOpen    string  `json:"on_open"`
	CoreDump  bool    `json:"core_dumped"`
	Condition string  `json:"condition"`
	Kind      string  `json:"kind"`
	Effect    string  `json:"effect"`
	LostBytes int64   `json:"lost_bytes"`
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// Sentence says in words what an event tells, without the name of the process.
// An event that it does not know is shown as its type and its fields.
func Sentence(e api.Event) string {
	var d eventData
	if len(e.Data) > 0 && json.Unmarshal(e.Data, &d) != nil {
		return raw(e)
	}
	switch e.Type {
	case "process.exited":
		exit := api.Exit{Code: d.Code, Signal: d.Signal, Cause: d.Cause, CoreDumped: d.CoreDump,
			Uptime: api.Duration(millis(d.UptimeMS))}
		return ExitText(&exit) + because(&d)
	case "process.started":
		if d.PID != 0 {
			return "started, pid " + strconv.Itoa(d.PID)
		}
		return "started"
	case "process.backoff":
		return backoffSentence(&d)
	case "process.breaker_open":
		return breakerSentence(&d)
	case "process.max_restarts":
		return "has used up its " + count(d.Restarts, "restart") + " and stays failed; see `perdure reset`"
	case "process.restarted":
		return "restarted" + numbered(", attempt ", d.Attempt)
	case "process.health_failed":
		return join("health check failed"+numbered(", in a row: ", d.Failures), d.Error)
	}
	return plainSentence(e, &d)
}

func backoffSentence(d *eventData) string {
	text := "restart" + numbered(" ", d.Attempt)
	if d.DelayMS <= 0 {
		return text + " now"
	}
	return text + " in " + Duration(millis(d.DelayMS))
}

func breakerSentence(d *eventData) string {
	text := "breaker open after " + count(d.Failures, "failure")
	if d.WindowMS > 0 {
		text += " in " + Duration(millis(d.WindowMS))
	}
	switch d.OnOpen {
	case "park":
		text += "; it stays failed until `perdure reset`"
	case "exit":
		text += "; everything is stopped for it"
	}
	return text
}

// plainSentence is for events whose sentence is fixed, but for a reason.
func plainSentence(e api.Event, d *eventData) string {
	text := map[string]string{
		"process.starting":          "starting",
		"process.ready":             "is ready",
		"process.stopping":          "stopping",
		"process.stopped":           "stopped",
		"process.restarting":        "restarting",
		"process.waiting":           "waiting",
		"process.health_ok":         "is healthy",
		"process.unhealthy":         "is unhealthy",
		"process.breaker_reset":     "breaker closed",
		"process.reset":             "set back to idle",
		"process.dependency_failed": "is not started: something that it depends on has failed",
		"process.error":             "error",
		"process.registered":        "registered",
		"process.redefined":         "definition changed",
		"process.removed":           "removed",
		"supervisor.started":        "supervisor started" + numbered(", pid ", d.PID),
		"supervisor.shutdown":       "stopping everything",
		"supervisor.exit":           "everything is stopped, as was asked",
		"supervisor.lost":           "the supervisor died, and there is another",
		"supervisor.upgraded":       "the supervisor is another program now",
		"supervisor.upgrade_failed": "the supervisor could not become another program",
		"server.upgraded":           "the server is another program now",
		"server.upgrade_failed":     "the upgrade has failed",
		"supervisor.breaker_open":   "the supervisor dies again and again; it is tried more rarely now",
		"server.started":            "server started" + numbered(", pid ", d.PID),
		"server.lost":               "the server died" + numbered(", pid ", d.PID),
		"server.breaker_open":       "the server dies again and again; it is started more rarely now",
		"server.stopping":           "asked to stop everything",
		"server.stopped":            "server stopped",
		"config.reloaded":           "configuration reloaded",
		"config.rejected":           "configuration refused",
		"config.env_changed":        "env files changed",
		"storage.failed":            troubleSentence(d),
		"storage.recovered":         "can write " + written(d.Kind) + " again" + lostSentence(d.LostBytes),
	}[e.Type]
	if text == "" {
		return raw(e)
	}
	why := d.Detail
	if e.Type == "process.waiting" && why != "" {
		return oneLine(why)
	}
	if why == "" {
		why = d.Error
	}
	if why == "" && d.Reason != "" {
		why = strings.ReplaceAll(d.Reason, "_", " ")
	}
	return join(text, why)
}

// troubleSentence says what cannot be written; why is told behind it.
func troubleSentence(d *eventData) string {
	return "cannot write " + written(d.Kind) + " (" + d.Effect + ")"
}

// written names what is written to the disk.
func written(kind string) string {
	switch api.TroubleKind(kind) {
	case api.TroubleOutput:
		return "its output"
	case api.TroubleDatabase:
		return "the event log"
	case api.TroubleSync:
		return "the journal to the disk itself"
	default:
		return "the " + kind
	}
}

func lostSentence(n int64) string {
	if n == 0 {
		return ""
	}
	return "; " + Bytes(n) + " of output are lost"
}

func because(d *eventData) string {
	switch d.Cause {
	case "health":
		return " (it was unhealthy)"
	case "boot_timeout":
		return " (it was not ready in time)"
	case "request", "restart", "shutdown":
		return " (on " + d.Cause + ")"
	case "limit":
		return " (it was over a limit)"
	default:
		return ""
	}
}

func numbered(before string, n int) string {
	if n == 0 {
		return ""
	}
	return before + strconv.Itoa(n)
}

func join(text, why string) string {
	if why = oneLine(why); why == "" {
		return text
	}
	return text + ": " + why
}

func raw(e api.Event) string {
	if len(e.Data) == 0 || string(e.Data) == "{}" || string(e.Data) == "null" {
		return e.Type
	}
	return e.Type + " " + Clean(string(e.Data), false)
}

// eventSGR returns the colour of an event's sentence.
func eventPaint(style Style, e api.Event) func(string) string {
	switch e.Type {
	case "process.unhealthy", "process.breaker_open", "process.max_restarts", "process.error", "process.dependency_failed", "storage.failed":
		return style.Bad
	case "process.backoff", "process.health_failed", "process.waiting":
		return style.Warn
	case "process.ready", "process.health_ok", "storage.recovered":
		return style.Good
	default:
		return func(s string) string { return s }
	}
}

// Event writes one line of `perdure events`: number, time, process, type and sentence.
func Event(w *bufio.Writer, style Style, now time.Time, nameWidth int, e api.Event) {
	who := e.Name
	if who == "" {
		who = "-"
	}
	sentence := Sentence(e)
	if sentence == e.Type {
		sentence = ""
	}
	line := fmt.Sprintf("%s  %s  %s  %s  %s", style.Dim(padLeft(strconv.FormatUint(e.Seq, 10), 6)),
		style.Dim(Stamp(now, e.Time)+e.Time.Format(".000")), Pad(Truncate(who, 24), nameWidth),
		Pad(e.Type, 22), eventPaint(style, e)(strings.TrimPrefix(sentence, e.Type+" ")))
	// Errors of a bufio.Writer stay until Flush returns them.
	_, _ = w.WriteString(strings.TrimRight(line, " ") + "\n")
}

// Findings writes what validate or doctor found, one a line, with its place
// and below it what to do.
func Findings(w io.Writer, style Style, list []api.Finding) error {
	out := bufio.NewWriter(w)
	for _, f := range list {
		place := f.File
		if f.Line > 0 {
			place += ":" + strconv.Itoa(f.Line)
			if f.Column > 0 {
				place += ":" + strconv.Itoa(f.Column)
			}
		}
		if place != "" {
			place += ": "
		}
		text := f.Message
		if f.Field != "" {
			text = f.Field + ": " + text
		}
		fmt.Fprintf(out, "%s %s%s\n", level(style, f.Level), place, text)
		if f.Hint != "" {
			fmt.Fprintf(out, "%s %s\n", strings.Repeat(" ", 7), style.Dim(f.Hint))
		}
	}
	return out.Flush()
}

func level(style Style, l string) string {
	text := Pad(l, 7)
	switch l {
	case "error":
		return style.Bad(text)
	case "warning":
		return style.Warn(text)
	case "ok":
		return style.Good(text)
	default:
		return style.Dim(text)
	}
}
