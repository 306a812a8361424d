package render

import (
	"bufio"
	"io"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// maxPrefix is the widest column of names; longer names are cut.
const maxPrefix = 24

// LinesOptions say how Lines writes.
type LinesOptions struct {
	Style Style
	// Prefix says that each line begins with its process's name.
	Prefix bool
	// Timestamps says that each line has the time of day before it, in Zone.
	Timestamps bool
	Zone       *time.Location
	// Raw leaves the text of lines as it is; otherwise it is made safe for a
	// terminal (see Clean).
	Raw bool
	// Live says that w is a terminal, so that a status line can stand at the end.
	Live bool
}

// Lines writes the output of several processes and their events below each
// other, with names in a column. It is buffered: Flush when nothing more is at
// hand. It keeps nothing of what it has written. It is not safe for concurrent use.
type Lines struct {
	o      LinesOptions
	out    *bufio.Writer
	names  *Names
	column int
	// heads are the painted names at the present width of the column.
	heads          map[string]string
	stdout, stderr string // the painted signs
	status         string
	drawn          bool // the status line is on the screen
}

// NewLines returns Lines that writes to w. The names give the width of the
// column; a longer one that comes later widens it.
func NewLines(w io.Writer, o LinesOptions, names ...string) *Lines {
	if o.Zone == nil {
		o.Zone = time.Local
	}
	l := &Lines{o: o, out: bufio.NewWriterSize(w, 32<<10), names: NewNames(o.Style, names...),
		heads: make(map[string]string), stdout: bar(o.Style, "stdout"), stderr: bar(o.Style, "stderr")}
	for _, name := range names {
		l.widen(name)
	}
	return l
}

func (l *Lines) widen(name string) {
	if n := min(Width(name), maxPrefix); n > l.column {
		l.column = n
		clear(l.heads)
	}
}

// Line writes one line of output.
func (l *Lines) Line(line api.LogLine) {
	l.eraseStatus()
	sign := l.stdout
	if line.Stream == "stderr" {
		sign = l.stderr
	}
	l.prefix(line.Name, line.Time, sign)
	text := line.Text
	if !l.o.Raw {
		text = Clean(text, l.o.Style.Colour)
	}
	l.put(text)
	l.put("\n")
}

// Event writes an event as a sentence, faint, on a line of its own.
func (l *Lines) Event(e api.Event) {
	l.eraseStatus()
	who := e.Name
	if who == "" {
		who = "perdure"
	}
	l.prefix(who, e.Time, l.o.Style.Dim("·"))
	l.put(l.o.Style.Dim(Sentence(e)))
	l.put("\n")
}

// Note writes a line of Perdure's own.
func (l *Lines) Note(text string) {
	l.eraseStatus()
	l.put(l.o.Style.Dim(text))
	l.put("\n")
}

// Status sets the line that stands below all others on a terminal until it is
// set anew; empty removes it. Elsewhere (see LinesOptions.Live) it does nothing.
func (l *Lines) Status(text string) {
	if !l.o.Live {
		return
	}
	l.eraseStatus()
	l.status = text
}

// Flush writes what is buffered, then the status line.
func (l *Lines) Flush() error {
	if l.status != "" && !l.drawn {
		l.put(l.status)
		l.drawn = true
	}
	return l.out.Flush()
}

// eraseStatus takes the status line off the screen; Flush draws it again.
func (l *Lines) eraseStatus() {
	if l.drawn {
		l.put("\r\x1b[K")
		l.drawn = false
	}
}

func (l *Lines) prefix(name string, at time.Time, sign string) {
	if l.o.Timestamps {
		l.put(l.o.Style.Dim(Clock(at.In(l.o.Zone))))
		l.put(" ")
	}
	if !l.o.Prefix {
		return
	}
	l.put(l.head(name))
	l.put(sign)
	l.put(" ")
}

func (l *Lines) head(name string) string {
	if head, ok := l.heads[name]; ok {
		return head
	}
	l.widen(name)
	head := l.names.Paint(name, Pad(Truncate(name, maxPrefix), l.column)) + " "
	l.heads[name] = head
	return head
}

// put relies on bufio.Writer keeping its error until Flush returns it.
func (l *Lines) put(s string) { _, _ = l.out.WriteString(s) }

// bar returns the sign between prefix and text; that of stderr is another one,
// so that it can be told apart without colours too.
func bar(style Style, stream string) string {
	if stream == "stderr" {
		return style.Bad("!")
	}
	return style.Dim("│")
}

// Waiting returns the progress line of a shutdown: whom it still waits for and
// for how long already. Names beyond the first few are counted.
func Waiting(names []string, elapsed time.Duration, hint string) string {
	const shown = 4
	more := ""
	if len(names) > shown {
		more = ", and " + count(len(names)-shown, "other")
		names = names[:shown]
	}
	return "stopping: waiting for " + strings.Join(names, ", ") + more + " (" + Duration(elapsed) + ")" + hint
}
