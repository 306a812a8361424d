package wire

import (
	"bytes"
	"encoding/json"
)

// bad is the place of what is no JSON.
const bad = -1

// skipBlank returns the place of the next byte that is no blank.
func skipBlank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the place behind the JSON value (RFC 8259) that begins at i,
// or bad. It checks the grammar, but not that strings are UTF-8.
func skipValue(b []byte, i, depth int) int {
	if i >= len(b) {
		return bad
	}
	switch c := b[i]; {
	case c == '"':
		return skipString(b, i)
	case c == '{':
		return skipObject(b, i, depth)
	case c == '[':
		return skipArray(b, i, depth)
	case c == '-' || c >= '0' && c <= '9':
		return skipNumber(b, i)
	case c == 't':
		return skipWord(b, i, "true")
	case c == 'f':
		return skipWord(b, i, "false")
	case c == 'n':
		return skipWord(b, i, "null")
	}
	return bad
}

func skipWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return bad
	}
	return i + len(word)
}

// skipString expects the opening quote at i.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return bad
		case c == '\\':
			i++
			if i >= len(b) {
				return bad
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(b)-i < 5 || !hex(b[i+1]) || !hex(b[i+2]) || !hex(b[i+3]) || !hex(b[i+4]) {
					return bad
				}
				i += 4
			default:
				return bad
			}
		}
	}
	return bad
}

func hex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func skipDigits(b []byte, i int) int {
	start := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	if i == start {
		return bad
	}
	return i
}

func skipNumber(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i == bad {
		return bad
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i == bad {
			return bad
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return skipDigits(b, i)
	}
	return i
}

// skipObject expects "{" at i.
func skipObject(b []byte, i, depth int) int {
	if depth++; depth > MaxDepth {
		return bad
	}
	if i = skipBlank(b, i+1); i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		_, _, next := member(b, i, depth)
		if next == bad {
			return bad
		}
		i = next
		switch {
		case i < len(b) && b[i] == ',':
			i = skipBlank(b, i+1)
		case i < len(b) && b[i] == '}':
			return i + 1
		default:
			return bad
		}
	}
}

// member returns the key of an object's member that begins at i, with its
// quotes, its value, and the place of what follows it but for blanks.
func member(b []byte, i, depth int) (key, value []byte, next int) {
	if i >= len(b) || b[i] != '"' {
		return nil, nil, bad
	}
	end := skipString(b, i)
	if end == bad {
		return nil, nil, bad
	}
	key = b[i:end]
	if i = skipBlank(b, end); i >= len(b) || b[i] != ':' {
		return nil, nil, bad
	}
	i = skipBlank(b, i+1)
	if end = skipValue(b, i, depth); end == bad {
		return nil, nil, bad
	}
	return key, b[i:end], skipBlank(b, end)
}

// skipArray expects "[" at i.
func skipArray(b []byte, i, depth int) int {
	if depth++; depth > MaxDepth {
		return bad
	}
	if i = skipBlank(b, i+1); i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = skipValue(b, i, depth); i == bad {
			return bad
		}
		i = skipBlank(b, i)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipBlank(b, i+1)
		case i < len(b) && b[i] == ']':
			return i + 1
		default:
			return bad
		}
	}
}

// text returns the bytes of a JSON string, which it expects to be sound. They
// are a slice of the string itself where it has no escapes.
func text(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil { // it cannot fail: skipString has passed it
		return inner
	}
	return []byte(s)
}
