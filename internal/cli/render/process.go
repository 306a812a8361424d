package render

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// Processes writes the table of `perdure ps`. columns is the width of the
// terminal, 0 for no limit; now is what waits and ages are counted from.
func Processes(w io.Writer, style Style, columns int, now time.Time, list []api.Process) error {
	t := Table{Columns: []Column{
		{Title: "NAME"}, {Title: "STATE"}, {Title: "HEALTH", Drop: 5}, {Title: "PID", Right: true, Drop: 4},
		{Title: "UPTIME", Right: true, Drop: 6}, {Title: "RESTARTS", Right: true, Drop: 3},
		{Title: "CPU", Right: true, Drop: 1}, {Title: "MEM", Right: true, Drop: 2}, {Title: "WHY"},
	}}
	for _, p := range list {
		t.Rows = append(t.Rows, processRow(style, now, &p))
	}
	return t.Write(w, style, columns)
}

// Troubles writes one line about what cannot be written now: the gravest, and how
// many there are besides. Without any it writes nothing.
func Troubles(w io.Writer, style Style, columns int, now time.Time, list []api.Trouble) error {
	if len(list) == 0 {
		return nil
	}
	t := list[0]
	line := "! " + oneLine(t.Text()) + ", for " + Duration(now.Sub(t.Since))
	if more := len(list) - 1; more > 0 {
		line += fmt.Sprintf(" (and %d more)", more)
	}
	line += "; see `perdure doctor`"
	if columns > 0 {
		line = Truncate(line, columns)
	}
	_, err := fmt.Fprintln(w, style.Bad(line))
	return err
}

func processRow(style Style, now time.Time, p *api.Process) []Cell {
	health, paint := healthText(style, p)
	pid, up, cpu, mem := "-", "-", "-", "-"
	if p.PID != 0 {
		pid = strconv.Itoa(p.PID)
		up = Duration(p.Uptime.D())
		cpu = Percent(p.CPU)
		if p.Memory > 0 {
			mem = Bytes(p.Memory)
		}
	}
	return []Cell{
		{Text: p.Name, Paint: style.Bold},
		{Text: string(p.State), Paint: func(s string) string { return style.State(p.State, s) }},
		{Text: health, Paint: paint},
		{Text: pid}, {Text: up}, {Text: strconv.Itoa(p.Restarts)}, {Text: cpu}, {Text: mem},
		{Text: Why(now, p), Paint: style.Dim},
	}
}

func healthText(style Style, p *api.Process) (string, func(string) string) {
	switch {
	case p.PID == 0:
		return "-", nil
	case p.Health == api.HealthUnhealthy:
		return "unhealthy", style.Bad
	case p.Health == api.HealthHealthy:
		return "healthy", style.Good
	case p.Ready:
		return "ready", style.Good
	default:
		return "not ready", style.Warn
	}
}

// Why says in one line why the process is in its state, and when it will be
// started again if that is known.
func Why(now time.Time, p *api.Process) string {
	why := p.Detail
	if why == "" {
		why = lastWhy(p)
	}
	why = oneLine(why)
	if p.NextStart == nil {
		return why
	}
	left := p.NextStart.Sub(now)
	next := "next start in " + Duration(left)
	if left <= 0 {
		next = "next start now"
	}
	if why == "" {
		return next
	}
	return why + " (" + next + ")"
}

// oneLine makes text of any origin one line that is safe for a terminal.
func oneLine(text string) string { return Clean(strings.Join(strings.Fields(text), " "), false) }

// lastWhy is for a record without a sentence of its own.
func lastWhy(p *api.Process) string {
	switch {
	case p.LastError != "" && p.PID == 0:
		return p.LastError
	case p.LastExit != nil && p.PID == 0:
		return ExitText(p.LastExit)
	default:
		return strings.ReplaceAll(string(p.Reason), "_", " ")
	}
}

// ExitText says how a generation ended: "exited with code 1 after 3.2s",
// "killed by SIGKILL after 2m10s", "ended, how is not known".
func ExitText(e *api.Exit) string {
	text := "ended; how is not known, because it died while nobody was its parent"
	switch {
	case e.Cause == "spawn_error":
		return "could not be started"
	case e.Signal != "":
		text = "killed by " + e.Signal
		if e.CoreDumped {
			text += " (core dumped)"
		}
	case e.Code != nil:
		text = "exited with code " + strconv.Itoa(*e.Code)
	}
	if e.Uptime > 0 {
		text += " after " + Duration(e.Uptime.D())
	}
	return text
}

// StatusView is what `perdure status` shows of one process.
type StatusView struct {
	Process api.Process `json:"process"`
	// Definition may be nil when it could not be read.
	Definition *api.Definition `json:"definition,omitempty"`
	// Exits are its last exit events, oldest first.
	Exits []api.Event `json:"exits"`
	// Lines are its last log lines, oldest first.
	Lines []api.LogLine `json:"lines"`
}

// Status writes everything that is known of one process.
func Status(w io.Writer, style Style, columns int, now time.Time, v StatusView) error {
	out := bufio.NewWriter(w)
	p := &v.Process
	f := fields{out: out, style: style, columns: columns}
	fmt.Fprintf(out, "%s  %s\n", style.Bold(p.Name), style.State(p.State, string(p.State)))
	f.row("why", Why(now, p))
	statusNow(&f, now, p)
	statusWorker(&f, now, p.Worker)
	if v.Definition != nil {
		statusDefinition(&f, v.Definition)
	}
	f.row("id", p.ID)
	for _, key := range sortedKeys(p.Metadata) {
		f.row("metadata", fmt.Sprintf("%s = %v", key, p.Metadata[key]))
	}
	if len(v.Exits) > 0 {
		fmt.Fprintf(out, "\n%s\n", style.Dim("last exits"))
		for _, e := range v.Exits {
			fmt.Fprintf(out, "  %s  #%-4d %s\n", Stamp(now, e.Time), e.Generation, Sentence(e))
		}
	}
	if len(v.Lines) > 0 {
		fmt.Fprintf(out, "\n%s\n", style.Dim("last lines"))
		for _, l := range v.Lines {
			fmt.Fprintf(out, "  %s %s %s\n", Stamp(now, l.Time), bar(style, l.Stream), Clean(l.Text, style.Colour))
		}
	}
	return out.Flush()
}

func statusNow(f *fields, now time.Time, p *api.Process) {
	f.row("desired", string(p.Desired))
	if p.PID != 0 {
		pid := strconv.Itoa(p.PID)
		if p.Processes > 1 {
			pid += fmt.Sprintf(" (%d processes in its tree)", p.Processes)
		}
		f.row("pid", pid)
		health, _ := healthText(Style{}, p)
		if p.HealthFailures > 0 {
			health += fmt.Sprintf(" (%d failed checks in a row)", p.HealthFailures)
		}
		f.row("health", health)
		f.row("uptime", Duration(p.Uptime.D()))
		f.row("uses", fmt.Sprintf("%s CPU, %s", Percent(p.CPU), Bytes(p.Memory)))
	}
	f.row("generation", strconv.FormatUint(p.Generation, 10))
	f.row("counts", fmt.Sprintf("%s, %s, %s in a row", count(p.Starts, "start"),
		count(p.Restarts, "automatic restart"), count(p.Failures, "failure")))
	if p.StartedAt != nil {
		f.row("started", Stamp(now, *p.StartedAt))
	}
	if p.LastExit != nil {
		asked := "nobody asked for it"
		if p.LastExit.Expected {
			asked = "on request"
		}
		f.row("last exit", fmt.Sprintf("%s, %s, at %s", ExitText(p.LastExit), asked, Stamp(now, p.LastExit.At)))
	}
	f.row("last error", p.LastError)
}

// statusWorker shows what a program has said of itself.
func statusWorker(f *fields, now time.Time, w *api.Worker) {
	if w == nil {
		return
	}
	about := []string{count(w.Connections, "connection")}
	if w.LastHeartbeat != nil {
		about = append(about, "last heartbeat "+Duration(now.Sub(*w.LastHeartbeat))+" ago")
	}
	if w.Stale {
		about = append(about, "overdue")
	}
	f.row("worker", strings.Join(about, ", "))
	if w.Status != "" {
		f.row("says", w.Status)
	}
	if w.Progress != nil {
		f.row("progress", strings.TrimSpace(fmt.Sprintf("%.4g%% %s", w.Progress.Percent, w.Progress.Message)))
	}
}

func statusDefinition(f *fields, d *api.Definition) {
	f.row("about", d.Description)
	f.row("command", Words(d.Command))
	f.row("directory", d.Dir)
	restart := string(d.Restart)
	if d.Preset != "" && restart != "" {
		restart += " (preset " + d.Preset + ")"
	}
	f.row("restart", restart)
	var deps []string
	for _, dep := range d.DependsOn {
		text := dep.Process
		if dep.File != "" {
			text = "file " + dep.File
		}
		if dep.Condition != "" {
			text += " (" + dep.Condition + ")"
		}
		deps = append(deps, text)
	}
	f.row("depends on", strings.Join(deps, ", "))
}

// fields writes aligned "key  value" lines; an empty value is left out.
type fields struct {
	out     *bufio.Writer
	style   Style
	columns int
}

const keyWidth = 12

func (f *fields) row(key, value string) {
	if value == "" {
		return
	}
	value = Clean(value, false)
	if f.columns > keyWidth+8 {
		value = wrap(value, f.columns-keyWidth-2)
	}
	// Errors of a bufio.Writer stay until Flush returns them.
	_, _ = fmt.Fprintf(f.out, "  %s%s\n", f.style.Dim(Pad(key, keyWidth)), value)
}

// wrap breaks value at spaces so that no line is wider than columns, and
// indents the lines after the first below the values.
func wrap(value string, columns int) string {
	var b strings.Builder
	used := 0
	for i, word := range strings.Split(value, " ") {
		n := Width(word)
		switch {
		case i == 0:
		case used+1+n > columns:
			b.WriteString("\n" + strings.Repeat(" ", keyWidth+2))
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}

// Stamp returns a time for people: the time of day, with the date when it is
// not now's day. It is shown in now's zone.
func Stamp(now, t time.Time) string {
	t = t.In(now.Location())
	if y, d := t.Year(), t.YearDay(); y == now.Year() && d == now.YearDay() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// Words returns a command as it could be typed into a shell.
func Words(command []string) string {
	quoted := make([]string, len(command))
	for i, word := range command {
		quoted[i] = word
		if word == "" || strings.ContainsAny(word, " \t\n'\"\\$`&|;<>()*?[]{}~#!") {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
