// Package appendjson appends JSON objects member by member, for what is written so
// often that the reflection of encoding/json would be a good part of its cost.
// It writes what encoding/json reads; a test of each type that uses it holds
// the two together.
package appendjson

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Object is an object under way. Begin makes one; each method but End adds a
// member, unless its value is the zero value, as with omitempty.
type Object struct {
	b     []byte
	empty bool
}

// Begin opens an object at the end of b.
func Begin(b []byte) Object { return Object{append(b, '{'), true} }

// End closes the object and returns all that was appended to.
func (o *Object) End() []byte { return append(o.b, '}') }

// Key adds a member whose value the caller appends to what it returns, and then
// gives back with Set.
func (o *Object) Key(key string) []byte {
	if !o.empty {
		o.b = append(o.b, ',')
	}
	o.empty = false
	o.b = append(o.b, '"')
	o.b = append(o.b, key...)
	return append(o.b, '"', ':')
}

// Set takes back what Key has returned, with a value appended.
func (o *Object) Set(b []byte) { o.b = b }

// Text adds a string.
func (o *Object) Text(key, v string) {
	if v != "" {
		o.b = String(o.Key(key), v)
	}
}

// Int adds a number.
func (o *Object) Int(key string, v int64) {
	if v != 0 {
		o.b = strconv.AppendInt(o.Key(key), v, 10)
	}
}

// Uint adds a number.
func (o *Object) Uint(key string, v uint64) {
	if v != 0 {
		o.b = strconv.AppendUint(o.Key(key), v, 10)
	}
}

// Bool adds true.
func (o *Object) Bool(key string, v bool) {
	if v {
		o.b = append(o.Key(key), "true"...)
	}
}

// Time adds a time as RFC 3339.
func (o *Object) Time(key string, v time.Time) {
	if !v.IsZero() {
		b := append(o.Key(key), '"')
		o.b = append(v.AppendFormat(b, time.RFC3339Nano), '"')
	}
}

// Raw adds JSON as it stands.
func (o *Object) Raw(key string, v []byte) {
	if len(v) > 0 {
		o.b = append(o.Key(key), v...)
	}
}

// Map appends an object of such values as events have: texts, numbers and
// booleans. Others are left to encoding/json, whose error it returns.
func Map(b []byte, m map[string]any) ([]byte, error) {
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(String(b, key), ':')
		switch v := m[key].(type) {
		case string:
			b = String(b, v)
		case int:
			b = strconv.AppendInt(b, int64(v), 10)
		case int64:
			b = strconv.AppendInt(b, v, 10)
		case uint64:
			b = strconv.AppendUint(b, v, 10)
		case bool:
			b = strconv.AppendBool(b, v)
		default:
			text, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			b = append(b, text...)
		}
	}
	return append(b, '}'), nil
}

// String appends a JSON string.
func String(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // a string cannot fail
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
