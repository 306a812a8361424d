// Command term2svg draws what a program wrote to a terminal as an SVG picture,
// so that the README can show a real run. It reads the bytes from standard
// input:
//
//	script -qec "timeout -s INT 14 bin/perdure up -f examples/hello/perdure.yaml" /tmp/up.raw
//	go run ./scripts/term2svg -title "perdure up" < /tmp/up.raw > docs/assets/up.svg
package main

import (
	"bufio"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// cell is one character and how it looks.
type cell struct {
	r    rune
	fg   string
	bold bool
	dim  bool
}

// screen is the lines written so far; a line is never wider than columns.
type screen struct {
	lines [][]cell
	col   int
	pen   cell
}

// The measures of the picture, in pixels.
const (
	charWidth  = 7.85
	lineHeight = 18.0
	padding    = 16.0
	titleBar   = 30.0
)

// palette is the sixteen colours of terminals, chosen to read on dark ground.
var palette = [16]string{ //ok: a table, never written
	"#3b4252", "#ff6b6b", "#7bd88f", "#e5c07b", "#6cb6ff", "#c792ea", "#56c8d8", "#d8dee9",
	"#6b7489", "#ff8787", "#a3e8b0", "#f0d58c", "#93caff", "#d9b3f5", "#85dbe6", "#ffffff",
}

func main() {
	title := flag.String("title", "terminal", "the window's title")
	columns := flag.Int("columns", 110, "the width of the picture in characters")
	last := flag.Int("lines", 40, "how many lines are shown at the most, from the first")
	flag.Parse()
	raw, err := io.ReadAll(bufio.NewReader(os.Stdin))
	if err != nil {
		fmt.Fprintln(os.Stderr, "term2svg:", err)
		os.Exit(1)
	}
	s := &screen{lines: [][]cell{nil}}
	s.write(raw)
	fmt.Print(s.svg(*title, *columns, *last))
}

// write plays bytes on the screen.
func (s *screen) write(raw []byte) {
	for len(raw) > 0 {
		if raw[0] == 0x1b {
			raw = s.escape(raw[1:])
			continue
		}
		r, n := utf8.DecodeRune(raw)
		raw = raw[n:]
		switch {
		case r == '\n':
			s.lines = append(s.lines, nil)
			s.col = 0
		case r == '\r':
			s.col = 0
		case r >= ' ':
			s.put(r)
		}
	}
}

func (s *screen) put(r rune) {
	line := &s.lines[len(s.lines)-1]
	for len(*line) <= s.col {
		*line = append(*line, cell{r: ' '})
	}
	c := s.pen
	c.r = r
	(*line)[s.col] = c
	s.col++
}

// escape plays one control sequence and returns what follows it.
func (s *screen) escape(raw []byte) []byte {
	if len(raw) == 0 || raw[0] != '[' {
		return raw
	}
	end := 1
	for end < len(raw) && (raw[end] < 0x40 || raw[end] > 0x7e) {
		end++
	}
	if end == len(raw) {
		return nil
	}
	args := string(raw[1:end])
	switch raw[end] {
	case 'm':
		s.style(strings.Split(args, ";"))
	case 'K':
		line := &s.lines[len(s.lines)-1]
		*line = (*line)[:min(s.col, len(*line))]
	}
	return raw[end+1:]
}

// style plays the parameters of SGR (ECMA-48, 8.3.117).
func (s *screen) style(args []string) {
	for i := 0; i < len(args); i++ {
		n, err := strconv.Atoi(args[i])
		switch {
		case err != nil || n == 0:
			s.pen = cell{}
		case n == 1:
			s.pen.bold = true
		case n == 2:
			s.pen.dim = true
		case n == 22:
			s.pen.bold, s.pen.dim = false, false
		case n >= 30 && n <= 37:
			s.pen.fg = palette[n-30]
		case n >= 90 && n <= 97:
			s.pen.fg = palette[n-90+8]
		case n == 39:
			s.pen.fg = ""
		case n == 38 && i+2 < len(args) && args[i+1] == "5":
			s.pen.fg = indexed(args[i+2])
			i += 2
		case n == 38 && i+4 < len(args) && args[i+1] == "2":
			s.pen.fg = fmt.Sprintf("rgb(%s,%s,%s)", args[i+2], args[i+3], args[i+4])
			i += 4
		}
	}
}

// indexed is a colour of the 256 of xterm.
func indexed(arg string) string {
	n, err := strconv.Atoi(arg)
	switch {
	case err != nil || n < 0 || n > 255:
		return ""
	case n < 16:
		return palette[n]
	case n >= 232:
		v := 8 + 10*(n-232)
		return fmt.Sprintf("rgb(%d,%d,%d)", v, v, v)
	}
	level := func(v int) int {
		if v == 0 {
			return 0
		}
		return 55 + 40*v
	}
	n -= 16
	return fmt.Sprintf("rgb(%d,%d,%d)", level(n/36), level(n/6%6), level(n%6))
}

// svg draws the first lines.
func (s *screen) svg(title string, columns, most int) string {
	lines := s.lines
	for len(lines) > 0 && len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	if len(lines) > most {
		lines = lines[:most]
	}
	w := 2*padding + float64(columns)*charWidth
	h := titleBar + 2*padding + float64(len(lines))*lineHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`+"\n",
		w, h, w, h, html.EscapeString(title))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="10" fill="#15181f"/>`+"\n")
	for i, c := range []string{"#ff6b6b", "#e5c07b", "#7bd88f"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="17" r="5.5" fill="%s"/>`+"\n", 20+i*18, c)
	}
	fmt.Fprintf(&b, `<text x="%.0f" y="21" text-anchor="middle" fill="#8b93a7" font-family="ui-sans-serif,system-ui,sans-serif" font-size="12">%s</text>`+"\n",
		w/2, html.EscapeString(title))
	b.WriteString(`<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13" fill="#d8dee9" xml:space="preserve">` + "\n")
	for i, line := range lines {
		fmt.Fprintf(&b, `<text y="%.1f">`, titleBar+padding+float64(i+1)*lineHeight-5)
		s.spans(&b, line[:min(len(line), columns)])
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

// spans writes runs of cells that look the same, each at its own place.
func (s *screen) spans(b *strings.Builder, line []cell) {
	for from := 0; from < len(line); {
		to := from
		var text strings.Builder
		for to < len(line) && line[to].fg == line[from].fg && line[to].bold == line[from].bold && line[to].dim == line[from].dim {
			text.WriteRune(line[to].r)
			to++
		}
		fmt.Fprintf(b, `<tspan x="%.2f"`, padding+float64(from)*charWidth)
		if c := line[from]; c.fg != "" {
			fmt.Fprintf(b, ` fill="%s"`, c.fg)
		}
		if line[from].bold {
			b.WriteString(` font-weight="bold"`)
		}
		if line[from].dim {
			b.WriteString(` fill-opacity="0.55"`)
		}
		fmt.Fprintf(b, ` textLength="%.2f">%s</tspan>`, float64(to-from)*charWidth, html.EscapeString(text.String()))
		from = to
	}
}
