//go:build linux

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// fold is how a table tells the values of several rounds as one.
type fold string

const (
	// middle is the median.
	middle fold = ""
	// worst is the greatest: of what must not happen at all, no median is told.
	worst fold = "worst"
	// yesNo tells how often 1 was measured, in words.
	yesNo fold = "yes or no"
)

// column is one thing that is told of each peer.
type column struct {
	Name string `json:"name"`
	Fold fold   `json:"fold,omitempty"`
}

// table collects the values of one row: peers downward, columns across. It is
// what results.json keeps.
type table struct {
	Row   string `json:"row"`
	Title string `json:"title"`
	// Text says what is measured and how.
	Text string `json:"text"`
	// Why says what a figure that is not what we want is made of.
	Why     string   `json:"why,omitempty"`
	Columns []column `json:"columns"`
	// Ratio is the column whose medians are told as a ratio to Base, too; its
	// values are counted as rounds.
	Ratio  string                          `json:"ratio,omitempty"`
	Base   string                          `json:"base,omitempty"`
	Order  []string                        `json:"order"`
	Values map[string]map[string][]float64 `json:"values"`
	Notes  []string                        `json:"notes,omitempty"`
	About  about                           `json:"about"`
}

func newTable(row string, about about) *table {
	return &table{Row: row, Values: map[string]map[string][]float64{}, About: about}
}

// describe says what the table shows.
func (t *table) describe(title, text string, columns ...column) {
	t.Title, t.Text, t.Columns = title, text, columns
}

// explain says below the table why our figures are no better.
func (t *table) explain(text string) { t.Why = text }

// medians are columns that tell the median.
func medians(names ...string) []column {
	var out []column
	for _, n := range names {
		out = append(out, column{n, middle})
	}
	return out
}

func (t *table) add(peer, column string, v ...float64) {
	if t.Values[peer] == nil {
		t.Values[peer] = map[string][]float64{}
		t.Order = append(t.Order, peer)
	}
	t.Values[peer][column] = append(t.Values[peer][column], v...)
}

// note keeps a sentence once, and says it at once.
func (t *table) note(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if !slices.Contains(t.Notes, s) {
		t.Notes = append(t.Notes, s)
		fmt.Fprintln(os.Stderr, s)
	}
}

// sortLike orders the lines of the table as the peers are.
func (t *table) sortLike(peers []peer) {
	var order []string
	for _, p := range peers {
		if t.Values[p.name()] != nil {
			order = append(order, p.name())
		}
	}
	t.Order = order
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

// figure writes three digits that say something.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v == float64(int(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// cell is what a column tells of a peer; unknown without a value.
func (t *table) cell(peer string, c column) string {
	v := t.Values[peer][c.Name]
	if len(v) == 0 {
		return unknown
	}
	switch c.Fold {
	case worst:
		return figure(slices.Max(v))
	case yesNo:
		n := 0
		for _, x := range v {
			n += int(x)
		}
		switch n {
		case 0:
			return "no"
		case len(v):
			return "yes"
		}
		return fmt.Sprintf("%d of %d times", n, len(v))
	}
	return figure(median(v))
}

const unknown = "–"

// rounds is how often a peer was measured.
func (t *table) rounds(peer string) int {
	if t.Ratio != "" {
		return len(t.Values[peer][t.Ratio])
	}
	n := 0
	for _, c := range t.Columns {
		n = max(n, len(t.Values[peer][c.Name]))
	}
	return n
}

// ratio is the peer's median to that of the base.
func (t *table) ratio(peer string) string {
	own, base := t.Values[peer][t.Ratio], t.Values[t.Base][t.Ratio]
	if len(own) == 0 || len(base) == 0 || median(base) == 0 {
		return unknown
	}
	return fmt.Sprintf("%.2f", median(own)/median(base))
}

func (t *table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s\n\n| |", t.Title, t.Text, t.About.line(t.Row))
	for _, c := range t.Columns {
		b.WriteString(" " + c.Name + " |")
	}
	if t.Ratio != "" {
		fmt.Fprintf(&b, " ratio to %s |", t.Base)
	}
	b.WriteString(" rounds |\n|---|" + strings.Repeat("--:|", len(t.Columns)+1))
	if t.Ratio != "" {
		b.WriteString("--:|")
	}
	b.WriteString("\n")
	for _, p := range t.Order {
		b.WriteString("| " + t.About.named(p) + " |")
		for _, c := range t.Columns {
			b.WriteString(" " + t.cell(p, c) + " |")
		}
		if t.Ratio != "" {
			b.WriteString(" " + t.ratio(p) + " |")
		}
		fmt.Fprintf(&b, " %d |\n", t.rounds(p))
	}
	if t.Why != "" {
		b.WriteString("\n" + t.Why + "\n")
	}
	for _, n := range t.Notes {
		b.WriteString("\n- " + n)
	}
	if len(t.Notes) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}
