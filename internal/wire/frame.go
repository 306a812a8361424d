package wire

import "bytes"

// Framer cuts a stream into lines. It belongs to one goroutine. The zero value
// takes lines of up to MaxLine bytes.
//
// It holds bytes only between two calls of Feed and only those of a line whose
// end has not come: at most Max.
type Framer struct {
	// Max is the longest line without its end. Default: MaxLine.
	Max int

	held    []byte
	skipped int // of a line that is too long, everything but what is held
}

// Line is one line without its end, "\n" or "\r\n".
type Line struct {
	// Text is valid until the function that it was given to returns.
	Text []byte
	// Over is 0, or the length (a "\r" at its end included) of a line that is
	// longer than allowed; Text is then its first Kept bytes.
	Over int
}

// Held is how many bytes are held of a line whose end has not come.
func (f *Framer) Held() int { return len(f.held) }

// Feed cuts p, which follows on what was fed before, and gives each line that
// has something else than blanks to take, in order. Of the rest it keeps a copy.
// It ends early, with what take returns, when that is not nil: then the stream
// is given up.
func (f *Framer) Feed(p []byte, take func(Line) error) error {
	limit := f.Max
	if limit <= 0 {
		limit = MaxLine
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			f.hold(p, limit)
			return nil
		}
		part := p[:i]
		p = p[i+1:]
		if err := f.end(part, limit, take); err != nil {
			return err
		}
	}
	return nil
}

// end gives the line whose last bytes are part to take.
func (f *Framer) end(part []byte, limit int, take func(Line) error) error {
	text, skipped := part, 0
	if len(f.held) > 0 || f.skipped > 0 {
		f.hold(part, limit)
		text, skipped = f.held, f.skipped
		f.held, f.skipped = nil, 0
	}
	return give(text, skipped, limit, take)
}

func give(text []byte, skipped, limit int, take func(Line) error) error {
	all := len(text) + skipped
	if n := len(text); skipped == 0 && n > 0 && text[n-1] == '\r' {
		text = text[:n-1]
	}
	if len(text)+skipped > limit {
		return take(Line{Text: text[:min(len(text), Kept)], Over: all})
	}
	if blank(text) {
		return nil
	}
	return take(Line{Text: text})
}

// hold keeps part behind what is held; of a line that is too long only its
// beginning.
func (f *Framer) hold(part []byte, limit int) {
	// One byte more than the limit may be the '\r' of the line's end.
	if f.skipped > 0 || len(f.held)+len(part) > limit+1 {
		all := len(f.held) + f.skipped + len(part)
		if n := Kept - len(f.held); n > 0 {
			f.held = append(f.held, part[:min(n, len(part))]...)
		} else if cap(f.held) > Kept {
			f.held = append([]byte(nil), f.held[:Kept]...)
		}
		f.skipped = all - len(f.held)
		return
	}
	f.held = append(f.held, part...)
}

// End tells that the stream is over, and returns what came behind the last
// line's end: no line, but worth a report. Nil means that nothing was cut off.
func (f *Framer) End() []byte {
	rest := f.held
	f.held, f.skipped = nil, 0
	if blank(rest) {
		return nil
	}
	return rest[:min(len(rest), Kept)]
}

// blank says whether a line has nothing but JSON's blanks.
func blank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}
