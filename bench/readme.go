//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// shown are the peers of the README's tables, and what they are called there.
var shown = []struct{ peer, title string }{
	{"perdure", "Perdure"}, {"pebble", "pebble"}, {"process-compose", "process-compose"}, {"pm2", "pm2"},
	{"supervisord", "supervisord"}, {"s6", "s6"}, {"runit", "runit"}, {"floor-go", "floor"},
}

// compare is one line of the README's table of figures.
type compare struct{ row, column, title, unit string }

var compared = []compare{
	{"restart", "paced p50", "from `kill -9` of a program to its next one running", " ms"},
	{"restart", "at once p50", "the same when it is killed again at once", " ms"},
	{"many", "start 100", "start of 100 programs", " s"},
	{"many", "start 1000", "start of 1000 programs", " s"},
	{"many", "stop 1000", "stop of 1000 programs", " s"},
	{"many", "MB at 10", "memory of all of its processes at 10 programs", " MB"},
	{"many", "MB at 100", "the same at 100 programs", " MB"},
	{"many", "MB at 1000", "the same at 1000 programs", " MB"},
	{"many", "idle at 1000", "CPU time a second with 1000 idle programs", " ms"},
	{"logs", "MB/s", "output captured, in lines of 100 bytes", " MB/s"},
	{"logs", "lost", "lines of it lost", ""},
	{"stop", "survivors of 4", "of 4 descendants of a program, alive after its stop", ""},
	{"checks", "µs at 10 x 10/s", "CPU time of one HTTP check, 100 a second", " µs"},
}

// readme puts the tables between their markers and leaves the rest.
func (r results) readme(old string) (string, error) {
	text, err := between(old, "bench", r.compared())
	if err != nil {
		return "", err
	}
	return between(text, "survival", r.survival())
}

// between replaces what stands between two markers.
func between(text, name, new string) (string, error) {
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->"
	before, rest, ok := strings.Cut(text, begin)
	if !ok {
		return "", fmt.Errorf("%s has no line %q", readmeFile, strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("%s has no %q after its beginning", readmeFile, end)
	}
	return before + begin + new + end + after, nil
}

// compared is the table of figures. It shows only who was measured.
func (r results) compared() string {
	var b strings.Builder
	peers := shown[:0:0]
	for _, s := range shown {
		if slices.ContainsFunc(compared, func(l compare) bool {
			return len(r.row(l.row).Values[s.peer][l.column]) > 0
		}) {
			peers = append(peers, s)
		}
	}
	b.WriteString("| |")
	for _, s := range peers {
		b.WriteString(" " + s.title + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(peers)) + "\n")
	for _, l := range compared {
		t := r.row(l.row)
		if len(t.Values) == 0 {
			continue
		}
		c := column{Name: l.column}
		if i := slices.IndexFunc(t.Columns, func(c column) bool { return c.Name == l.column }); i >= 0 {
			c = t.Columns[i]
		}
		b.WriteString("| " + l.title + " |")
		for _, s := range peers {
			text := t.cell(s.peer, c)
			if text != unknown {
				text += l.unit
			}
			b.WriteString(" " + text + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n" + measured(r, "restart", "many", "logs", "stop", "checks"))
	return b.String()
}

// survival is the table of who survives what.
func (r results) survival() string {
	t, stop := r.row("survival"), r.row("stop")
	if len(t.Values) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("| killed with SIGKILL |")
	for _, c := range t.Columns {
		b.WriteString(" " + c.Name + " |")
	}
	b.WriteString(" alive after a stop, of 4 |\n|---|" + strings.Repeat("--:|", len(t.Columns)+1) + "\n")
	for _, label := range t.Order {
		b.WriteString("| " + label + " |")
		for _, c := range t.Columns {
			b.WriteString(" " + t.cell(label, c) + " |")
		}
		name, _, _ := strings.Cut(label, ", ")
		b.WriteString(" " + stop.cell(name, column{Name: "survivors of 4"}) + " |\n")
	}
	for _, name := range t.About.Missing {
		b.WriteString("| " + name + ", not installed |" + strings.Repeat(" "+unknown+" |", len(t.Columns)+1) + "\n")
	}
	b.WriteString("\n" + measured(r, "survival", "stop"))
	return b.String()
}

// measured says where the figures come from.
func measured(r results, rows ...string) string {
	var dates, names []string
	for _, name := range rows {
		t := r.row(name)
		if len(t.Values) == 0 {
			continue
		}
		names = append(names, name)
		date := t.About.Date + " at commit " + t.About.Commit
		if t.About.Quick {
			date += " (quick)"
		}
		if !slices.Contains(dates, date) {
			dates = append(dates, date)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("Measured %s by `go run ./bench -only %s`.\n", strings.Join(dates, " and "), strings.Join(names, ","))
}
