package config

import (
	"slices"

	"github.com/perdure/perdure/api"
)

// kind is the kind of a node.
type kind uint8

const (
	kindNull kind = iota
	kindText
	kindInt
	kindFloat
	kindBool
	kindMap
	kindList
)

// String names the kind for people.
func (k kind) String() string {
	return [...]string{"nothing", "text", "a whole number", "a number", "true or false", "a map", "a list"}[k]
}

// place is where something stands.
type place struct {
	file      string
	line, col int
}

// node is a piece of a file: aliases followed, merge keys expanded, places kept.
type node struct {
	kind kind
	at   place
	// text is the scalar as it was written, without quotes.
	text string
	// quoted says that a scalar was text by its quotes.
	quoted bool
	// raw says that "$" in it is not ours to expand.
	raw     bool
	entries []entry
	items   []*node
}

// entry is a key of a map and its value.
type entry struct {
	key   string
	at    place
	value *node
}

func (n *node) get(key string) *node {
	for i := range n.entries {
		if n.entries[i].key == key {
			return n.entries[i].value
		}
	}
	return nil
}

// literal is a copy of n in which "$" is nothing special.
func (n *node) literal() *node {
	out := *n
	out.raw = true
	out.entries, out.items = slices.Clone(n.entries), slices.Clone(n.items)
	for i := range out.entries {
		out.entries[i].value = out.entries[i].value.literal()
	}
	for i := range out.items {
		out.items[i] = out.items[i].literal()
	}
	return &out
}

// overlay lays over on top of n: maps deep, everything else replaced. It
// changes neither.
func (n *node) overlay(over *node) *node {
	if n == nil || n.kind != kindMap || over.kind != kindMap {
		return over
	}
	out := *n
	out.entries = slices.Clone(n.entries)
	at := make(map[string]int, len(out.entries))
	for i := range out.entries {
		at[out.entries[i].key] = i
	}
	for _, e := range over.entries {
		if i, ok := at[e.key]; ok {
			// A map that goes on in a later file stands where it began.
			if out.entries[i].value.kind != kindMap || e.value.kind != kindMap {
				out.entries[i].at = e.at
			}
			out.entries[i].value = out.entries[i].value.overlay(e.value)
			continue
		}
		at[e.key] = len(out.entries)
		out.entries = append(out.entries, e)
	}
	return &out
}

// findings collects what is wrong, with places.
type findings struct {
	list []api.Finding
}

func (f *findings) fail(at place, field, hint, message string) {
	f.list = append(f.list, api.Finding{Level: "error", File: at.file, Line: at.line, Column: at.col, Field: field,
		Message: message, Hint: hint})
}

func (f *findings) failed() bool { return HasErrors(f.list) }

// HasErrors says whether one of the findings is an error.
func HasErrors(list []api.Finding) bool {
	return slices.ContainsFunc(list, func(x api.Finding) bool { return x.Level == "error" })
}
