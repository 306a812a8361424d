package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
)

// descriptionsJSON holds the comments of the types of api, by "Type" and
// "Type.Field". It is generated; see the package comment.
//
//go:embed descriptions.json
var descriptionsJSON []byte

// shape knows the types that a file is made of.
type shape struct {
	comments map[string]string
	defaults map[string]reflect.Value
	fields   *decoder
}

func newShape() shape {
	s := shape{fields: newDecoder(nil, nil), defaults: map[string]reflect.Value{}}
	if err := json.Unmarshal(descriptionsJSON, &s.comments); err != nil {
		//ok: the file is embedded and TestGenerated holds it
		panic("config: descriptions.json is broken: " + err.Error())
	}
	d, err := definition.Preset("default")
	if err != nil {
		//ok: TestEveryPresetIsSound holds it
		panic("config: there is no default preset: " + err.Error())
	}
	for _, v := range []any{d, d.Backoff, d.Backoff.Jitter, d.Breaker, d.Stable, d.Stop, d.Logs, d.EnvReload} {
		s.defaults[reflect.TypeOf(v).Name()] = reflect.ValueOf(v)
	}
	return s
}

// types are the types that have keys, in the order of the reference.
func types() []reflect.Type {
	return []reflect.Type{reflect.TypeFor[document](), reflect.TypeFor[api.Definition](), reflect.TypeFor[api.Backoff](),
		reflect.TypeFor[api.Jitter](), reflect.TypeFor[api.Breaker](), reflect.TypeFor[api.Stable](), reflect.TypeFor[api.Probe](),
		reflect.TypeFor[api.HTTPProbe](), reflect.TypeFor[api.TCPProbe](), reflect.TypeFor[api.ExecProbe](),
		reflect.TypeFor[api.StopPolicy](), reflect.TypeFor[api.Logs](), reflect.TypeFor[api.Dependency](),
		reflect.TypeFor[api.EnvReload](), reflect.TypeFor[api.Heartbeat](), reflect.TypeFor[api.Limits](),
		reflect.TypeFor[api.Settings](), reflect.TypeFor[api.Retention](), reflect.TypeFor[api.Watchdog]()}
}

// Schema returns the JSON Schema (draft 2020-12) of perdure.yaml, indented. It
// is looser than Load: it does not know what keys mean together, and values
// with variables ("${PORT}") pass it where a number is wanted.
func Schema() []byte {
	s := newShape()
	defs := map[string]any{}
	for _, t := range types()[1:] {
		defs[t.Name()] = s.object(t)
	}
	root := s.object(types()[0])
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "perdure.yaml"
	root["patternProperties"] = map[string]any{"^x-": true}
	root["required"] = []string{"processes"}
	root["$defs"] = defs
	data, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		//ok: maps of strings and numbers always have a JSON form
		panic("config: cannot write the schema: " + err.Error())
	}
	return append(data, '\n')
}

func (s shape) object(t reflect.Type) map[string]any {
	props := map[string]any{}
	for _, f := range s.fields.fieldsOf(t) {
		prop := s.property(t.Field(f.index).Type, f.name)
		if c := s.comments[f.name]; c != "" {
			prop["description"] = c
		}
		if v, ok := s.value(t, f); ok {
			prop["default"] = v
		}
		props[f.key] = prop
	}
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if c := s.comments[t.Name()]; c != "" {
		out["description"] = c
	}
	return out
}

// value is the default of a key, as a file would have it.
func (s shape) value(t reflect.Type, f field) (any, bool) {
	d, ok := s.defaults[t.Name()]
	if !ok || d.Field(f.index).IsZero() {
		return nil, false
	}
	v := d.Field(f.index)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.Struct {
		return nil, false
	}
	if size, ok := v.Interface().(api.Size); ok {
		return fmt.Sprintf("%dMiB", size>>20), true
	}
	return v.Interface(), true
}

// variable matches text that Load puts a variable into.
const variable = `\$\{`

func (s shape) property(t reflect.Type, name string) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[api.Duration]():
		return map[string]any{"type": []string{"string", "null"},
			"pattern": `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$|^0$|` + variable}
	case reflect.TypeFor[api.Size]():
		return map[string]any{"type": []string{"integer", "string", "null"}, "minimum": 0,
			"pattern": `^[0-9.]+ *([kKmMgGtT]?[iI]?[bB]?)$|` + variable}
	case reflect.TypeFor[api.Command]():
		return map[string]any{"oneOf": []any{map[string]any{"type": "string", "minLength": 1},
			map[string]any{"type": "array", "minItems": 1, "items": scalar()}}}
	case reflect.TypeFor[api.Strings]():
		return map[string]any{"oneOf": []any{map[string]any{"type": []string{"string", "number", "null"}},
			map[string]any{"type": "array", "items": scalar()}}}
	case reflect.TypeFor[[]api.Dependency]():
		return dependencies()
	}
	switch t.Kind() {
	case reflect.Struct:
		return map[string]any{"$ref": "#/$defs/" + t.Name()}
	case reflect.Map:
		return s.dict(t, name)
	case reflect.Slice:
		return map[string]any{"type": []string{"array", "null"}, "items": s.property(t.Elem(), name)}
	case reflect.Bool:
		return loose("boolean")
	case reflect.Int, reflect.Int64:
		return bounded(loose("integer"), name)
	case reflect.Float64:
		return bounded(loose("number"), name)
	case reflect.Interface:
		return map[string]any{}
	}
	if words := definition.Words(name); words != nil {
		return map[string]any{"anyOf": []any{map[string]any{"enum": words}, map[string]any{"type": "null"},
			map[string]any{"type": "string", "pattern": variable}}}
	}
	out := map[string]any{"type": []string{"string", "number", "null"}}
	switch name {
	case "Settings.Sync":
		out["pattern"] = `^off$|^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$|^0$|` + variable
	case "HTTPProbe.URL":
		out["pattern"] = `^https?://.|` + variable
	case "TCPProbe.Address":
		out["pattern"] = `^unix:/.|:[0-9]{1,5}$|` + variable
	case "Definition.Umask":
		out["pattern"] = `^0?[0-7]{1,3}$|` + variable
	case "StopPolicy.Signal", "Definition.NoRestartSignals":
		out["pattern"] = `^(SIG|sig)?(` + strings.Join(definition.Signals(), "|") + "|" + strings.ToLower(strings.Join(definition.Signals(), "|")) + `)$|` + variable
	}
	return out
}

// bounded adds the least and the most that definition allows.
func bounded(prop map[string]any, name string) map[string]any {
	for _, b := range []struct {
		name     string
		min, max any
	}{{"document.Version", 1, 1}, {"Definition.Nice", -20, 19}, {"Definition.OOMScoreAdj", -1000, 1000},
		{"Definition.MaxRestarts", -1, nil}, {"Definition.NoRestartCodeMin", 0, 127}, {"Definition.NoRestartCodes", 0, 255},
		{"Backoff.FirstExponent", 0, 1}, {"Backoff.Multiplier", 0, 1000}, {"Jitter.Frac", 0, 10}, {"Jitter.Lo", 0, 100},
		{"Jitter.Hi", 0, 100}, {"Breaker.Failures", -1, nil}, {"Breaker.ExitCode", 0, 255}, {"Probe.Failures", 0, nil},
		{"Probe.Successes", 0, nil}, {"Probe.Port", 0, 65535}, {"Probe.FD", 0, 9}, {"Limits.CPU", 0, nil}, {"Limits.PIDs", 0, nil},
		{"Limits.OpenFiles", 0, nil}, {"Logs.MaxFiles", 0, nil}, {"Retention.MaxCount", 0, nil}} {
		if b.name != name {
			continue
		}
		prop["minimum"] = b.min
		if b.max != nil {
			prop["maximum"] = b.max
		}
	}
	return prop
}

func (s shape) dict(t reflect.Type, name string) map[string]any {
	switch {
	case t.Elem() == reflect.TypeFor[api.Definition]():
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": false,
			"patternProperties": map[string]any{definition.NamePattern: map[string]any{"$ref": "#/$defs/Definition"}}}
	case name == "Definition.Rlimits":
		props := map[string]any{}
		for _, limit := range definition.Rlimits() {
			props[limit] = map[string]any{"type": []string{"integer", "string"}, "pattern": `^([0-9]+|unlimited)(:([0-9]+|unlimited))?$|` + variable}
		}
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": false, "properties": props}
	case declares(name):
		// A schema, true, nothing, or the path of a file with the schema.
		return map[string]any{"type": []string{"object", "null"},
			"additionalProperties": map[string]any{"type": []string{"object", "boolean", "null", "string"}}}
	case t.Elem().Kind() == reflect.String:
		return map[string]any{"type": []string{"object", "null"},
			"additionalProperties": map[string]any{"type": []string{"string", "number", "boolean", "null"}}}
	}
	return map[string]any{"type": []string{"object", "null"}}
}

func scalar() map[string]any { return map[string]any{"type": []string{"string", "number"}} }

// loose allows a type, nothing, and text with a variable in it.
func loose(name string) map[string]any {
	return map[string]any{"type": []string{name, "string", "null"}, "pattern": variable}
}

func dependencies() map[string]any {
	one := map[string]any{"$ref": "#/$defs/Dependency"}
	return map[string]any{"oneOf": []any{
		map[string]any{"type": "array", "items": map[string]any{"oneOf": []any{map[string]any{"type": "string"}, one}}},
		map[string]any{"type": "object", "additionalProperties": map[string]any{"oneOf": []any{one, map[string]any{"type": "null"}}}},
		map[string]any{"type": "null"},
	}}
}

// Reference returns the page docs/reference/config.md.
func Reference() string {
	s := newShape()
	var b strings.Builder
	b.WriteString(referenceIntro)
	for _, t := range types() {
		title := t.Name()
		if title == "document" {
			title = "The file"
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		if c := s.comments[t.Name()]; c != "" && t.Name() != "document" {
			fmt.Fprintf(&b, "%s\n\n", c)
		}
		b.WriteString("| key | what it is | default | meaning |\n|---|---|---|---|\n")
		for _, f := range s.fields.fieldsOf(t) {
			def := ""
			if v, ok := s.value(t, f); ok {
				def = "`" + text(v) + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.key, s.what(t.Field(f.index).Type, f.name), def,
				strings.ReplaceAll(s.comments[f.name], "|", "\\|"))
		}
	}
	return b.String()
}

func text(v any) string {
	if list, ok := v.([]string); ok {
		return "[" + strings.Join(list, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// what says for people what a key takes.
func (s shape) what(t reflect.Type, name string) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if words := definition.Words(name); words != nil {
		list := "`" + strings.Join(words, "` `") + "`"
		if t.Kind() == reflect.Slice {
			return "list of " + list
		}
		return list
	}
	switch t {
	case reflect.TypeFor[api.Duration]():
		return "duration"
	case reflect.TypeFor[api.Size]():
		return "size"
	case reflect.TypeFor[api.Command]():
		return "list of words, or text"
	case reflect.TypeFor[api.Strings]():
		return "text, or list of texts"
	case reflect.TypeFor[[]api.Dependency]():
		return "list of names, list of [Dependency](#dependency), or map of names to them"
	case reflect.TypeFor[map[string]api.Definition]():
		return "map of names to [Definition](#definition)"
	}
	switch t.Kind() {
	case reflect.Struct:
		return "[" + t.Name() + "](#" + strings.ToLower(t.Name()) + ")"
	case reflect.Map:
		return "map"
	case reflect.Slice:
		return "list of " + s.what(t.Elem(), "") + "s"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "whole number"
	case reflect.Float64:
		return "number"
	}
	return "text"
}

// PresetsReference returns the page docs/reference/presets.md.
func PresetsReference() string {
	var b strings.Builder
	b.WriteString(presetsIntro)
	for _, name := range definition.Presets() {
		d, err := definition.Preset(name)
		if err != nil {
			//ok: Presets lists what Preset knows; TestEveryPresetIsSound holds it
			panic("config: a preset is missing: " + err.Error())
		}
		fmt.Fprintf(&b, "\n## %s\n\n| key | value |\n|---|---|\n", name)
		data, err := json.Marshal(d)
		if err != nil {
			//ok: a preset always has a JSON form
			panic("config: cannot write a preset: " + err.Error())
		}
		var tree map[string]any
		numbers := json.NewDecoder(bytes.NewReader(data))
		numbers.UseNumber() // else 10485760 is 1.048576e+07
		if err := numbers.Decode(&tree); err != nil {
			//ok: it was written by the lines above
			panic("config: cannot read a preset: " + err.Error())
		}
		delete(tree, "command")
		rows(&b, "", tree)
	}
	return b.String()
}

func rows(b *strings.Builder, path string, tree map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		at := join(path, key)
		if sub, ok := tree[key].(map[string]any); ok {
			rows(b, at, sub)
			continue
		}
		value := fmt.Sprint(tree[key])
		if list, ok := tree[key].([]any); ok { // as it is written in a file
			value = "[" + strings.Join(strings.Fields(strings.Trim(fmt.Sprint(list), "[]")), ", ") + "]"
		}
		fmt.Fprintf(b, "| `%s` | `%s` |\n", at, value)
	}
}
