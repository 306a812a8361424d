// Package render turns what Perdure says into text for people: tables, lines
// with a prefix per process, sentences for events, durations and sizes.
//
// It holds no connection and starts nothing: every function takes the values
// and returns or writes text. Colours are decided once, by Style, so that the
// same text without colours is what a pipe gets.
package render

import (
	"hash/fnv"
	"strconv"

	"github.com/perdure/perdure/api"
)

// Style says whether text is coloured. The zero value is plain.
type Style struct {
	// Colour says that ANSI colours are written (ECMA-48, SGR).
	Colour bool
}

// The SGR parameters that are used. Only the default foreground, bold, dim and
// colours of middle lightness are, so that both light and dark terminals show them.
const (
	sgrBold   = "1"
	sgrDim    = "2"
	sgrRed    = "38;5;167"
	sgrGreen  = "38;5;28"
	sgrYellow = "38;5;136"
	sgrBlue   = "38;5;68"
)

func (s Style) paint(sgr, text string) string {
	if !s.Colour || text == "" || sgr == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// Bold returns text in bold.
func (s Style) Bold(text string) string { return s.paint(sgrBold, text) }

// Dim returns text in a faint style.
func (s Style) Dim(text string) string { return s.paint(sgrDim, text) }

// Bad returns text in the colour of failures.
func (s Style) Bad(text string) string { return s.paint(sgrRed, text) }

// Good returns text in the colour of success.
func (s Style) Good(text string) string { return s.paint(sgrGreen, text) }

// Warn returns text in the colour of things that want attention.
func (s Style) Warn(text string) string { return s.paint(sgrYellow, text) }

// State returns text in the colour of a process state.
func (s Style) State(state api.State, text string) string {
	return s.paint(stateSGR(state), text)
}

func stateSGR(state api.State) string {
	switch state {
	case api.StateRunning:
		return sgrGreen
	case api.StateStarting, api.StateStopping, api.StateOrphaned:
		return sgrBlue
	case api.StateBackoff, api.StateWaiting:
		return sgrYellow
	case api.StateFailed, api.StateCrashLoop, api.StateDependencyFailed:
		return sgrRed
	case api.StateIdle, api.StateStopped, api.StateExited:
		return sgrDim
	default:
		return ""
	}
}

// nameColours returns numbers of the 256-colour palette (xterm). Each has a
// contrast of at least 3:1 to black and to white.
func nameColours() []int {
	return []int{33, 29, 133, 136, 166, 68, 169, 31, 98, 131, 65, 130}
}

// Names gives each process name a colour of its own for as long as there are
// enough. The same names given in the same order get the same colours, and a
// name alone always gets the same one. It is not safe for concurrent use.
type Names struct {
	style Style
	sgr   map[string]string
	used  map[int]bool
}

// NewNames returns a palette for names; the names given here are taken first.
func NewNames(style Style, names ...string) *Names {
	n := &Names{style: style, sgr: make(map[string]string), used: make(map[int]bool)}
	for _, name := range names {
		n.pick(name)
	}
	return n
}

// Paint returns text in the colour of name.
func (n *Names) Paint(name, text string) string {
	if !n.style.Colour {
		return text
	}
	return n.style.paint(n.pick(name), text)
}

func (n *Names) pick(name string) string {
	if sgr, ok := n.sgr[name]; ok {
		return sgr
	}
	colours := nameColours()
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // cannot fail (hash.Hash)
	first := int(h.Sum32() % uint32(len(colours)))
	at := first
	for n.used[at] && len(n.used) < len(colours) {
		at = (at + 1) % len(colours)
	}
	n.used[at] = true
	n.sgr[name] = "38;5;" + strconv.Itoa(colours[at])
	return n.sgr[name]
}
