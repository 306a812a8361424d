// Package wiretest reads the transcripts of internal/wire/testdata, whose format
// docs/reference/wire.md describes, and compares messages with them. Tests of
// the server's end and of the Go client play them.
package wiretest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Line is one line of a transcript.
type Line struct {
	// Number is its place in the file, from 1.
	Number int
	// Mark is "@", "=", ">", ">raw", ">fill", ">fin", "<", "<raw", "<fin", "*" or "!".
	Mark string
	// Rest is what stands behind the mark.
	Rest string
	// Bytes are what ">raw", ">fill" and "<raw" send.
	Bytes []byte
}

// Transcript is one conversation.
type Transcript struct {
	Name  string
	Lines []Line
}

// Has says whether a line has the mark and begins with the text.
func (t Transcript) Has(mark, begin string) bool {
	for _, l := range t.Lines {
		if l.Mark == mark && strings.HasPrefix(l.Rest, begin) {
			return true
		}
	}
	return false
}

// ClientsOnly says that the server's tests do not play it.
func (t Transcript) ClientsOnly() bool { return t.Has("@", "lost") || t.Has("<raw", "") }

// ForClients says that tests of clients play it.
func (t Transcript) ForClients() bool { return strings.HasPrefix(t.Name, "client-") }

// Load reads all transcripts of a folder.
func Load(dir string) ([]Transcript, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("cannot find transcripts in %s: %w", dir, err)
	}
	var out []Transcript
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		t := Transcript{Name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		for i, text := range strings.Split(string(b), "\n") {
			if text == "" || text[0] == '#' {
				continue
			}
			l, err := parse(text)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
			}
			l.Number = i + 1
			t.Lines = append(t.Lines, l)
		}
		out = append(out, t)
	}
	return out, nil
}

func parse(text string) (Line, error) {
	l := Line{}
	l.Mark, l.Rest, _ = strings.Cut(text, " ")
	switch l.Mark {
	case "@", "=", "!", "*":
		return l, nil
	case ">", "<":
		if !json.Valid([]byte(l.Rest)) {
			return l, fmt.Errorf("no JSON: %s", l.Rest)
		}
		return l, nil
	case ">fin", "<fin":
		return l, nil
	case ">raw", "<raw":
		var s string
		if err := json.Unmarshal([]byte(l.Rest), &s); err != nil {
			return l, err
		}
		for _, r := range s {
			if r > 0xff {
				return l, fmt.Errorf("%q is no byte: write its bytes as \\u00XX", r)
			}
			l.Bytes = append(l.Bytes, byte(r))
		}
		return l, nil
	case ">fill":
		count, char, _ := strings.Cut(l.Rest, " ")
		n, err := strconv.Atoi(count)
		if err != nil || len(char) != 1 {
			return l, fmt.Errorf("fill wants a number and a character: %s", l.Rest)
		}
		l.Bytes = bytes.Repeat([]byte(char), n)
		return l, nil
	}
	return l, fmt.Errorf("unknown mark %q", l.Mark)
}

// Bound are the texts that "<string:NAME>" stands for in one conversation.
type Bound map[string]string

// Match compares a received JSON value with one of a transcript and returns
// what differs, or nil.
func (b Bound) Match(want, got string) error {
	w, err := decode(want)
	if err != nil {
		return fmt.Errorf("the transcript: %w", err)
	}
	g, err := decode(got)
	if err != nil {
		return fmt.Errorf("what was received: %w: %s", err, got)
	}
	return b.match("", w, g)
}

func decode(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

func (b Bound) match(at string, want, got any) error {
	switch w := want.(type) {
	case map[string]any:
		return b.matchObject(at, w, got)
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Errorf("%s: want %v, got %v", at, want, got)
		}
		for i := range w {
			if err := b.match(at+"["+strconv.Itoa(i)+"]", w[i], g[i]); err != nil {
				return err
			}
		}
		return nil
	case string:
		return b.matchText(at, w, got)
	case json.Number:
		if g, ok := got.(json.Number); ok {
			x, err1 := w.Float64()
			y, err2 := g.Float64()
			if err1 == nil && err2 == nil && x == y {
				return nil
			}
		}
	default:
		if want == got {
			return nil
		}
	}
	return fmt.Errorf("%s: want %v, got %v", at, want, got)
}

func (b Bound) matchText(at, want string, got any) error {
	g, isText := got.(string)
	name, bound := strings.CutPrefix(strings.TrimSuffix(want, ">"), "<string:")
	switch {
	case want == "<number>":
		if _, ok := got.(json.Number); ok {
			return nil
		}
	case want == "<string>":
		if isText {
			return nil
		}
	case bound && isText:
		if was, known := b[name]; !known || was == g {
			b[name] = g
			return nil
		}
	case isText && want == g:
		return nil
	}
	return fmt.Errorf("%s: want %q, got %v", at, want, got)
}

func (b Bound) matchObject(at string, want map[string]any, got any) error {
	g, ok := got.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: want an object, got %v", at, got)
	}
	for k, v := range want {
		if k == "..." {
			continue
		}
		if _, there := g[k]; !there {
			return fmt.Errorf("%s.%s: is missing in %v", at, k, got)
		}
		if err := b.match(at+"."+k, v, g[k]); err != nil {
			return err
		}
	}
	if _, more := want["..."]; more {
		return nil
	}
	for k := range g {
		if _, there := want[k]; !there {
			return fmt.Errorf("%s.%s: is not in the transcript: %v", at, k, g[k])
		}
	}
	return nil
}

// Fill returns a message of a transcript with texts and numbers in place of
// its marks, to be sent. What "..." leaves open comes from more.
func (b Bound) Fill(line string, more map[string]any) (string, error) {
	if !strings.Contains(line, `"<string`) && !strings.Contains(line, `"<number>"`) && !strings.Contains(line, `"..."`) {
		return line, nil // word for word: the order of its fields may matter
	}
	v, err := decode(line)
	if err != nil {
		return "", err
	}
	if obj, is := v.(map[string]any); is {
		if _, open := obj["..."]; open {
			delete(obj, "...")
			for k, x := range more {
				if _, there := obj[k]; !there {
					obj[k] = x
				}
			}
		}
	}
	out, err := json.Marshal(b.fill(v))
	return string(out), err
}

func (b Bound) fill(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = b.fill(x[k])
		}
	case []any:
		for i := range x {
			x[i] = b.fill(x[i])
		}
	case string:
		name, bound := strings.CutPrefix(strings.TrimSuffix(x, ">"), "<string:")
		switch {
		case x == "<number>":
			return 1754000000000
		case x == "<string>":
			return "some-text"
		case bound:
			if _, known := b[name]; !known {
				b[name] = "text-" + name
			}
			return b[name]
		}
	}
	return v
}
