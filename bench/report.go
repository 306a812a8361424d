//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// table collects the values of one row: peers downward, columns across.
type table struct {
	title string
	// text says what is measured and how.
	text    string
	columns []string
	// ratio is the column whose medians are told as a ratio to base, too.
	ratio, base string
	order       []string
	values      map[string]map[string][]float64
	notes       []string
}

func newTable(title, text string, columns ...string) *table {
	return &table{title: title, text: text, columns: columns, values: map[string]map[string][]float64{}}
}

func (t *table) add(peer, column string, v ...float64) {
	if t.values[peer] == nil {
		t.values[peer] = map[string][]float64{}
		t.order = append(t.order, peer)
	}
	t.values[peer][column] = append(t.values[peer][column], v...)
}

// note keeps a sentence once, and says it at once.
func (t *table) note(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if !slices.Contains(t.notes, s) {
		t.notes = append(t.notes, s)
		fmt.Fprintln(os.Stderr, s)
	}
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile is the value below which a share q of v lies, by the nearest rank.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	slices.Sort(s)
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func (t *table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| |", t.title, t.text)
	for _, c := range t.columns {
		b.WriteString(" " + c + " |")
	}
	if t.ratio != "" {
		fmt.Fprintf(&b, " ratio to %s |", t.base)
	}
	b.WriteString("\n|---|" + strings.Repeat("--:|", len(t.columns)))
	if t.ratio != "" {
		b.WriteString("--:|")
	}
	b.WriteString("\n")
	for _, p := range t.order {
		b.WriteString("| " + p + " |")
		for _, c := range t.columns {
			if v := t.values[p][c]; len(v) > 0 {
				fmt.Fprintf(&b, " %s |", figure(median(v)))
			} else {
				b.WriteString(" – |")
			}
		}
		if t.ratio != "" {
			own, base := t.values[p][t.ratio], t.values[t.base][t.ratio]
			if len(own) > 0 && len(base) > 0 && median(base) > 0 {
				fmt.Fprintf(&b, " %.2f |", median(own)/median(base))
			} else {
				b.WriteString(" – |")
			}
		}
		b.WriteString("\n")
	}
	for _, n := range t.notes {
		b.WriteString("\n- " + n)
	}
	if len(t.notes) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

// report is the whole of a run.
type report struct {
	quick             bool
	versions, missing []string
	tables            []*table
}

func newReport(quick bool) *report { return &report{quick: quick} }

func (r *report) add(t *table) { r.tables = append(r.tables, t) }

func (r *report) markdown() string {
	var b strings.Builder
	command := "go run ./bench"
	if r.quick {
		command += " -quick"
	}
	b.WriteString("# Results\n\nWritten by the harness in this folder; do not edit. All that stands in one table was measured in one run,\n" +
		"interleaved; a figure is the median of its rounds. Run it again with `" + command + "`.\n\n")
	fmt.Fprintf(&b, "- date: %s\n- kernel: %s, %d CPUs (%s)\n- Go: %s\n", time.Now().UTC().Format(time.DateOnly), kernel(), runtime.NumCPU(), model(), runtime.Version())
	fmt.Fprintf(&b, "- measured: %s\n", strings.Join(r.versions, ", "))
	if len(r.missing) > 0 {
		fmt.Fprintf(&b, "- not installed: %s\n", strings.Join(r.missing, ", "))
	}
	for _, t := range r.tables {
		b.WriteString(t.markdown())
	}
	return b.String()
}

func kernel() string {
	text, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return "unknown"
	}
	return string(bytes.TrimSpace(text))
}

func model() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
