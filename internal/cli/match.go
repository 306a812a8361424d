package cli

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// ffmpegPatterns are what FFmpeg writes of its progress: the length of the input
// once, then where it is in the output.
var ffmpegPatterns = []string{ //ok: a table
	`^\s*Duration: (?P<total>\d+:\d+:[\d.]+)`,
	`^frame=\s*(?P<frame>\d+) fps=\s*(?P<fps>[\d.]+) .*time=(?P<value>\d+:\d+:[\d.]+) .*speed=\s*(?P<speed>[\d.]+x)`,
}

// namedPattern turns lines that match into an event.
type namedPattern struct {
	name    string
	pattern *regexp.Regexp
}

// saying is what is to be said of one line.
type saying struct {
	event   string
	data    map[string]any
	percent float64
	message string // of a progress, or of a status when there is no percentage
	what    sayingKind
}

type sayingKind int

const (
	sayEvent sayingKind = iota
	sayReady
	sayProgress
	sayStatus
)

// matcher makes of lines what is to be said.
type matcher struct {
	events   []namedPattern
	progress []*regexp.Regexp
	ready    *regexp.Regexp
	total    float64 // 0: not known
}

// match returns what a line says.
func (m *matcher) match(line string) []saying {
	var out []saying
	for _, e := range m.events {
		found := e.pattern.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		data := map[string]any{"line": line}
		for i, name := range e.pattern.SubexpNames() {
			if name != "" {
				data[name] = number(found[i])
			}
		}
		out = append(out, saying{what: sayEvent, event: e.name, data: data})
	}
	for _, p := range m.progress {
		if found := p.FindStringSubmatch(line); found != nil {
			out = m.advance(out, p.SubexpNames(), found)
			break
		}
	}
	if m.ready != nil && m.ready.MatchString(line) {
		m.ready = nil
		out = append(out, saying{what: sayReady})
	}
	return out
}

// advance reads the groups of a match: percent, or value and total; all others
// are for people.
func (m *matcher) advance(out []saying, names, found []string) []saying {
	var words []string
	percent, value := -1.0, -1.0
	for i, name := range names {
		if name == "" {
			continue
		}
		n, ok := amount(found[i])
		switch {
		case name == "message":
			words = append(words, found[i])
		case name == "percent" && ok:
			percent = n
		case name == "value" && ok:
			value = n
		case name == "total" && ok:
			m.total = n
		case name != "percent" && name != "value" && name != "total":
			words = append(words, name+" "+found[i])
		}
	}
	if percent < 0 && value >= 0 && m.total > 0 {
		percent = min(100, 100*value/m.total)
	}
	message := strings.Join(words, ", ")
	switch {
	case percent >= 0:
		return append(out, saying{what: sayProgress, percent: percent, message: message})
	case message != "":
		return append(out, saying{what: sayStatus, message: message})
	}
	return out
}

// number is text as a number where it is one.
func number(text string) any {
	if n, err := strconv.ParseFloat(text, 64); err == nil && n-n == 0 { // neither NaN nor infinite
		return n
	}
	return text
}

// amount reads a number, or a time like 01:02:03.5 in seconds.
func amount(text string) (float64, bool) {
	sum := 0.0
	for part := range strings.SplitSeq(text, ":") {
		n, ok := number(part).(float64)
		if !ok || n < 0 {
			return 0, false
		}
		sum = 60*sum + n
	}
	return sum, true
}

// maxMatched is the longest line that is looked at whole; of a longer one each
// piece is a line.
const maxMatched = 64 << 10

// lineCutter is a writer that hands on lines, which end at \n or, as those that a
// terminal shows over each other, at \r.
type lineCutter struct {
	rest []byte
	line func(string)
}

// Write takes a part of the output. It never fails.
func (c *lineCutter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexAny(p, "\r\n")
		if end < 0 {
			end = len(p)
		}
		take := min(end, maxMatched-len(c.rest))
		c.rest = append(c.rest, p[:take]...)
		if take < end {
			c.flush()
			p = p[take:]
			continue
		}
		if end < len(p) {
			c.flush()
			end++
		}
		p = p[end:]
	}
	return n, nil
}

func (c *lineCutter) flush() {
	if len(c.rest) > 0 {
		c.line(string(c.rest))
	}
	c.rest = c.rest[:0]
}
