package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// Told decodes a frame but for its record, which it passes over: of an entry
// that a newer one has overtaken, nobody needs it. The data of events is passed
// on as it stands, and is not checked.
func (f Frame) Told() (Entry, error) {
	var e Entry
	err := members(f.Payload, func(key, value []byte) error {
		switch string(key) {
		case "removed":
			return json.Unmarshal(value, &e.Removed)
		case "exit":
			return json.Unmarshal(value, &e.Exit)
		case "events":
			return elements(value, func(b []byte) error {
				ev, err := readEvent(b)
				e.Events = append(e.Events, ev)
				return err
			})
		}
		return nil
	})
	return f.complete(e, err)
}

func readEvent(b []byte) (ev Event, err error) {
	err = members(b, func(key, value []byte) error {
		switch string(key) {
		case "type":
			return text(&ev.Type, value)
		case "time":
			return json.Unmarshal(value, &ev.Time)
		case "process_id":
			return text(&ev.ProcessID, value)
		case "name":
			return text(&ev.Name, value)
		case "generation":
			n, err := strconv.ParseUint(string(value), 10, 64)
			ev.Generation = n
			return err
		case "data":
			ev.Data = bytes.Clone(value) // it is kept longer than the payload
		}
		return nil
	})
	return ev, err
}

// text reads a string; nearly none has an escape in it.
func text(to *string, value []byte) error {
	if len(value) >= 2 && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		*to = string(value[1 : len(value)-1])
		return nil
	}
	return json.Unmarshal(value, to)
}

var errNoJSON = errors.New("it is not JSON")

// members calls do for each member of a JSON object, with the key as it is
// written between its quotes. It checks no more than it needs to find them.
func members(b []byte, do func(key, value []byte) error) error {
	return each(b, '{', '}', func(b []byte) ([]byte, error) {
		key, rest := cutValue(b)
		if len(key) < 2 || key[0] != '"' {
			return nil, errNoJSON
		}
		rest = space(rest)
		if len(rest) == 0 || rest[0] != ':' {
			return nil, errNoJSON
		}
		value, rest := cutValue(space(rest[1:]))
		if len(value) == 0 {
			return nil, errNoJSON
		}
		return rest, do(key[1:len(key)-1], value)
	})
}

// elements calls do for each element of a JSON array, or none for null.
func elements(b []byte, do func(value []byte) error) error {
	if string(b) == "null" {
		return nil
	}
	return each(b, '[', ']', func(b []byte) ([]byte, error) {
		value, rest := cutValue(b)
		if len(value) == 0 {
			return nil, errNoJSON
		}
		return rest, do(value)
	})
}

// each takes what stands between two brackets apart; one takes a piece off the
// front and returns the rest.
func each(b []byte, begin, end byte, one func(b []byte) ([]byte, error)) (err error) {
	b = space(b)
	if len(b) == 0 || b[0] != begin {
		return errNoJSON
	}
	for b = space(b[1:]); len(b) > 0 && b[0] != end; b = space(b) {
		if b, err = one(b); err != nil {
			return err
		}
		if b = space(b); len(b) > 0 && b[0] == ',' {
			b = space(b[1:])
		} else if len(b) == 0 || b[0] != end {
			return errNoJSON
		}
	}
	if len(b) == 0 || len(space(b[1:])) > 0 {
		return errNoJSON
	}
	return nil
}

func space(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// cutValue splits off the JSON value that b begins with; it is empty when there
// is none, or when it has no end.
func cutValue(b []byte) (value, rest []byte) {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := quoted(b[i:])
			if n == 0 {
				return nil, b
			}
			if i += n - 1; depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return b[:i], b[i:] // the end of a number or word, and of what it is in
			}
			if depth--; depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case ',', ':', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return b[:i], b[i:]
			}
		}
	}
	if depth > 0 {
		return nil, b
	}
	return b, nil
}

// quoted is the length of the string that b begins with, 0 if it has no end.
func quoted(b []byte) int {
	for i := 1; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return 0
		}
		i += n
		escapes := 0
		for b[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
	return 0
}
