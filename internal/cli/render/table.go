package render

import (
	"bufio"
	"io"
	"strings"
)

// Column is one column of a table.
type Column struct {
	Title string
	// Right aligns to the right, for numbers.
	Right bool
	// Drop is the place in the order in which columns are left out when the
	// terminal is too narrow, from 1; 0 means never.
	Drop int
}

// Cell is one cell: its text, and how it is painted (nil: as it is).
type Cell struct {
	Text  string
	Paint func(string) string
}

// Table is text in columns. The last column takes what room is left and is cut
// when that is not enough.
type Table struct {
	Columns []Column
	Rows    [][]Cell
}

// minLast is the least room that the last column shall have before other
// columns are left out.
const minLast = 24

// gap stands between columns.
const gap = "  "

// Write writes the table to w. columns is the width of the terminal; 0 means
// unlimited: nothing is cut or left out.
func (t *Table) Write(w io.Writer, style Style, columns int) error {
	widths := t.widths()
	shown := t.choose(widths, columns)
	out := bufio.NewWriter(w)
	head := make([]Cell, len(t.Columns))
	for i, c := range t.Columns {
		head[i] = Cell{Text: c.Title, Paint: style.Dim}
	}
	t.line(out, head, widths, shown, columns)
	for _, row := range t.Rows {
		t.line(out, row, widths, shown, columns)
	}
	return out.Flush()
}

func (t *Table) widths() []int {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = Width(c.Title)
		for _, row := range t.Rows {
			widths[i] = max(widths[i], Width(row[i].Text))
		}
	}
	return widths
}

// choose returns which columns are shown.
func (t *Table) choose(widths []int, columns int) []bool {
	shown := make([]bool, len(t.Columns))
	for i := range shown {
		shown[i] = true
	}
	if columns <= 0 {
		return shown
	}
	last := len(t.Columns) - 1
	for drop := 1; drop <= len(t.Columns); drop++ {
		used := min(widths[last], minLast)
		for i := range last {
			if shown[i] {
				used += widths[i] + len(gap)
			}
		}
		if used <= columns {
			break
		}
		for i, c := range t.Columns {
			if c.Drop == drop {
				shown[i] = false
			}
		}
	}
	return shown
}

func (t *Table) line(out *bufio.Writer, row []Cell, widths []int, shown []bool, columns int) {
	var b strings.Builder
	used := 0
	last := len(row) - 1
	for i, cell := range row {
		if !shown[i] {
			continue
		}
		text := cell.Text
		if i == last {
			if columns > 0 {
				text = Truncate(text, max(columns-used, 1))
			}
		} else if t.Columns[i].Right {
			text = padLeft(text, widths[i])
		} else {
			text = Pad(text, widths[i])
		}
		used += Width(text) + len(gap)
		if cell.Paint != nil {
			text = cell.Paint(text)
		}
		b.WriteString(text)
		if i != last {
			b.WriteString(gap)
		}
	}
	// Errors of a bufio.Writer stay until Flush returns them.
	_, _ = out.WriteString(strings.TrimRight(b.String(), " "))
	_ = out.WriteByte('\n')
}
