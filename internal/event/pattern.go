package event

import (
	"strings"

	"github.com/perdure/perdure/api"
)

// maxPattern bounds a pattern, and so the work of matching it.
const maxPattern = 4096

// Pattern selects types of events.
type Pattern struct {
	alternatives [][]string // literal pieces between stars; nil means all
}

// Compile reads a pattern: alternatives joined by commas, in each of which "*"
// stands for any text, dots included. The empty pattern means all. A pattern
// that could match no type is CodeInvalid.
func Compile(pattern string) (*Pattern, error) {
	p := &Pattern{}
	if pattern == "" {
		return p, nil
	}
	if len(pattern) > maxPattern {
		return nil, invalidPattern(pattern[:32]+"…", "it is longer than 4096 bytes")
	}
	for alt := range strings.SplitSeq(pattern, ",") {
		alt = strings.TrimSpace(alt)
		if alt == "" {
			return nil, invalidPattern(pattern, "nothing stands beside a comma")
		}
		if i := strings.IndexFunc(alt, func(r rune) bool { return r != '*' && !typeRune(r) }); i >= 0 {
			return nil, invalidPattern(pattern, "types have letters, digits, '.', '_', '-' and ':' only")
		}
		p.alternatives = append(p.alternatives, strings.Split(alt, "*"))
	}
	return p, nil
}

func invalidPattern(pattern, why string) error {
	e := api.Errorf(api.CodeInvalid, "cannot use %q as a pattern of event types: %s (write it like process.*.exited or process.*,server.*)", pattern, why)
	e.Field = "pattern"
	return e
}

// typeRune says whether r may stand in the type of an event.
func typeRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' ||
		r == '.' || r == '_' || r == '-' || r == ':'
}

// All says whether the pattern matches every type.
func (p *Pattern) All() bool { return len(p.alternatives) == 0 }

// Match says whether the pattern matches a type.
func (p *Pattern) Match(typ string) bool {
	if p.All() {
		return true
	}
	for _, pieces := range p.alternatives {
		if matchPieces(pieces, typ) {
			return true
		}
	}
	return false
}

// matchPieces matches greedily from the left, which is right because a star
// stands for any text: the earliest place of a piece leaves the most for the rest.
func matchPieces(pieces []string, s string) bool {
	last := len(pieces) - 1
	if last == 0 {
		return s == pieces[0]
	}
	s, ok := strings.CutPrefix(s, pieces[0])
	if !ok {
		return false
	}
	for _, piece := range pieces[1:last] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return strings.HasSuffix(s, pieces[last])
}
