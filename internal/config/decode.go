package config

import (
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
)

// decoder fills the types of api from nodes. It goes on after a mistake, so
// that one run finds all of them.
type decoder struct {
	out  *findings
	find lookup
	// at says where the value of each field path stands, bad which paths have
	// been refused already.
	at     map[string]place
	bad    map[string]bool
	fields map[reflect.Type][]field
}

// field is one key of a struct.
type field struct {
	key   string
	index int
	// name is "Type.Field", as definition.Words wants it.
	name string
}

func newDecoder(out *findings, find lookup) *decoder {
	return &decoder{out: out, find: find, at: map[string]place{}, bad: map[string]bool{}, fields: map[reflect.Type][]field{}}
}

func (d *decoder) fail(at place, path, hint, format string, args ...any) {
	d.bad[path] = true
	d.out.fail(at, path, hint, fmt.Sprintf(format, args...))
}

func (d *decoder) fieldsOf(t reflect.Type) []field {
	if f, ok := d.fields[t]; ok {
		return f
	}
	var list []field
	for i := range t.NumField() {
		key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if key != "" && key != "-" {
			list = append(list, field{key: key, index: i, name: t.Name() + "." + t.Field(i).Name})
		}
	}
	d.fields[t] = list
	return list
}

// value decodes n into v. A value of nothing leaves v at its default.
func (d *decoder) value(n *node, v reflect.Value, path, name string) {
	d.at[path] = n.at
	if n.kind == kindNull {
		return
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		d.value(n, p.Elem(), path, name)
		v.Set(p)
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *api.Duration:
		d.duration(n, target, path)
	case *api.Size:
		d.size(n, target, path)
	case *api.Command:
		d.command(n, target, path)
	case *api.Strings:
		d.strings(n, target, path, name)
	case *[]api.Dependency:
		d.dependsOn(n, target, path)
	default:
		d.plain(n, v, path, name)
	}
}

func (d *decoder) plain(n *node, v reflect.Value, path, name string) {
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.dict(n, v, path, name)
	case reflect.Slice:
		d.list(n, v, path, name)
	case reflect.Interface:
		if declares(name) && n.kind == kindMap {
			n = n.literal() // "${" is nothing special in a schema
		}
		if x := d.anything(n, path); x != nil {
			v.Set(reflect.ValueOf(x))
		}
	case reflect.String:
		if s, ok := d.text(n, path, name); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if s, ok := d.scalar(n, path, kindBool); ok {
			b, err := strconv.ParseBool(s)
			if err != nil {
				d.wrong(n, path, kindBool)
			}
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int64:
		if s, ok := d.scalar(n, path, kindInt); ok {
			i, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 0, v.Type().Bits())
			if err != nil {
				d.wrong(n, path, kindInt)
			}
			v.SetInt(i)
		}
	case reflect.Float64:
		if s, ok := d.scalar(n, path, kindFloat); ok {
			f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
			if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
				d.wrong(n, path, kindFloat)
				return
			}
			v.SetFloat(f)
		}
	default:
		//ok: a type of api without a rule here is caught by every test that loads
		panic("config: no rule for the type " + v.Type().String())
	}
}

// wrong tells that a value is of the wrong kind. It does not repeat a value
// that came from a variable: it may be secret.
func (d *decoder) wrong(n *node, path string, want kind) {
	what := n.kind.String()
	if n.kind != kindMap && n.kind != kindList && !strings.Contains(n.text, "$") {
		what = strconv.Quote(clip(n.text))
	}
	d.fail(n.at, path, "write "+want.String(), "cannot use %s here", what)
}

// scalar returns the text of a value that must be of kind want, or text with
// variables in it that becomes one.
func (d *decoder) scalar(n *node, path string, want kind) (string, bool) {
	switch {
	case n.kind == want, want == kindFloat && n.kind == kindInt:
		return n.text, true
	case n.kind == kindText && strings.Contains(n.text, "${"):
		return d.expand(n, path)
	}
	d.wrong(n, path, want)
	return "", false
}

func (d *decoder) expand(n *node, path string) (string, bool) {
	if n.raw {
		return n.text, true
	}
	s, err := expand(n.text, d.find)
	if err != nil {
		d.fail(n.at, path, "", "%s", err)
		return "", false
	}
	return s, true
}

// text returns a value that must be text. Numbers are taken as they are
// written: a user of 1000, a umask of 027, a status of 200.
func (d *decoder) text(n *node, path, name string) (string, bool) {
	switch n.kind {
	case kindText:
		s, ok := d.expand(n, path)
		if ok && s != "" && isPath(name) {
			s = absolute(n.at.file, s)
		}
		return s, ok
	case kindInt, kindFloat:
		return n.text, true
	case kindBool:
		if name == "Definition.Env" || name == "HTTPProbe.Headers" || name == "document.Env" {
			return n.text, true
		}
	}
	if words := definition.Words(name); words != nil && n.kind == kindBool {
		d.fail(n.at, path, "write one of "+strings.Join(words, ", "), "cannot use %q here", n.text)
		return "", false
	}
	d.wrong(n, path, kindText)
	return "", false
}

func isPath(name string) bool {
	switch name {
	case "Definition.Dir", "Definition.EnvFile", "Settings.TokenFile", "Dependency.File", "document.EnvFile":
		return true
	}
	return false
}

// absolute resolves a path against the directory of the file that names it. A
// leading "?" stays.
func absolute(file, path string) string {
	rest, optional := strings.CutPrefix(path, "?")
	if rest == "" {
		return path
	}
	if !filepath.IsAbs(rest) {
		rest = filepath.Join(filepath.Dir(file), rest)
	}
	rest = filepath.Clean(rest)
	if optional {
		return "?" + rest
	}
	return rest
}

func (d *decoder) duration(n *node, v *api.Duration, path string) {
	if n.kind == kindInt || n.kind == kindFloat {
		d.fail(n.at, path, fmt.Sprintf("write a unit: %ss, or %sms", n.text, n.text), "cannot use %s as a duration: its unit could only be guessed", n.text)
		return
	}
	s, ok := d.scalar(n, path, kindText)
	if !ok {
		return
	}
	if n.kind == kindText && strings.Contains(s, "${") {
		if s, ok = d.expand(n, path); !ok {
			return
		}
	}
	if err := v.UnmarshalText([]byte(s)); err != nil {
		if s != n.text {
			err = fmt.Errorf("cannot read the value of %s as a duration (write it like 500ms, 30s or 1h30m)", clip(n.text))
		}
		d.fail(n.at, path, "", "%s", err)
	}
}

func (d *decoder) size(n *node, v *api.Size, path string) {
	if n.kind != kindInt && n.kind != kindText {
		d.fail(n.at, path, "write it like 512K, 10MiB or 1GB", "cannot use %s as a size", n.kind)
		return
	}
	s, ok := d.expand(n, path)
	if !ok {
		return
	}
	size, err := ParseSize(s)
	if err != nil {
		d.fail(n.at, path, "", "%s", err)
	}
	*v = size
}

func (d *decoder) command(n *node, v *api.Command, path string) {
	if n.kind == kindList {
		var words api.Strings
		d.strings(n, &words, path, "")
		*v = api.Command(words)
		return
	}
	s, ok := d.text(n, path, "")
	if !ok {
		return
	}
	words, err := command(s)
	if err != nil {
		d.fail(n.at, path, "", "%s", err)
	}
	*v = words
}

func (d *decoder) strings(n *node, v *api.Strings, path, name string) {
	if n.kind != kindList {
		if s, ok := d.text(n, path, name); ok {
			*v = api.Strings{s}
		}
		return
	}
	out := make(api.Strings, 0, len(n.items))
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.at[at] = item.at
		if item.kind == kindNull {
			d.fail(item.at, at, "write \"\" for an empty text", "cannot use nothing here")
			continue
		}
		if s, ok := d.text(item, at, name); ok {
			out = append(out, s)
		}
	}
	*v = out
}

func (d *decoder) list(n *node, v reflect.Value, path, name string) {
	if n.kind != kindList {
		d.wrong(n, path, kindList)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		d.value(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i), name)
	}
	v.Set(out)
}

func (d *decoder) dict(n *node, v reflect.Value, path, name string) {
	if n.kind == kindList && name != "" && strings.HasSuffix(name, ".Env") {
		d.fail(n.at, path, "write KEY: value, one to a line", "cannot use a list of variables here")
		return
	}
	if n.kind != kindMap {
		d.wrong(n, path, kindMap)
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.entries))
	for _, e := range n.entries {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(e.value, item, path+"."+e.key, name)
		out.SetMapIndex(reflect.ValueOf(e.key), item)
	}
	v.Set(out)
}

func (d *decoder) anything(n *node, path string) any {
	switch n.kind {
	case kindMap:
		out := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			out[e.key] = d.anything(e.value, path+"."+e.key)
		}
		return out
	case kindList:
		out := make([]any, 0, len(n.items))
		for i, item := range n.items {
			out = append(out, d.anything(item, fmt.Sprintf("%s[%d]", path, i)))
		}
		return out
	case kindText:
		s, _ := d.expand(n, path)
		return s
	case kindBool:
		b, _ := strconv.ParseBool(n.text)
		return b
	case kindInt, kindFloat:
		// As encoding/json reads it, so that a value is the same after a
		// passage through the API.
		f, err := strconv.ParseFloat(strings.ReplaceAll(n.text, "_", ""), 64)
		if i, e := strconv.ParseInt(strings.ReplaceAll(n.text, "_", ""), 0, 64); e == nil {
			f, err = float64(i), nil
		}
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.wrong(n, path, kindFloat)
			return nil
		}
		return f
	}
	return nil
}

func (d *decoder) structure(n *node, v reflect.Value, path string) {
	if n.kind != kindMap {
		d.fail(n.at, path, "write it as a map with some of: "+keyList(d.fieldsOf(v.Type())), "cannot use %s here", n.kind)
		return
	}
	fields := d.fieldsOf(v.Type())
	for _, e := range n.entries {
		at := join(path, e.key)
		f := find(fields, e.key)
		if f == nil {
			d.unknown(e, at, fields)
			continue
		}
		d.value(e.value, v.Field(f.index), at, f.name)
	}
}

func find(fields []field, key string) *field {
	for i := range fields {
		if fields[i].key == key {
			return &fields[i]
		}
	}
	return nil
}

func (d *decoder) unknown(e entry, path string, fields []field) {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	hint := "the keys here are: " + keyList(fields)
	if s := definition.Suggest(e.key, keys); s != "" {
		hint = "did you mean " + strconv.Quote(s) + "?"
	}
	d.fail(e.at, path, hint, "unknown key %q", clip(e.key))
}

func keyList(fields []field) string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return strings.Join(keys, ", ")
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// dependsOn reads the three forms: a list of names, a list of maps, and a map
// from names to conditions.
func (d *decoder) dependsOn(n *node, v *[]api.Dependency, path string) {
	var out []api.Dependency
	switch n.kind {
	case kindText:
		d.fail(n.at, path, "write depends_on: ["+clip(n.text)+"]", "cannot use text here")
		return
	case kindList:
		for i, item := range n.items {
			var dep api.Dependency
			at := fmt.Sprintf("%s[%d]", path, i)
			d.at[at] = item.at
			if item.kind == kindMap {
				d.structure(item, reflect.ValueOf(&dep).Elem(), at)
			} else if s, ok := d.text(item, at, ""); ok {
				dep.Process = s
			}
			out = append(out, dep)
		}
	case kindMap:
		for i, e := range n.entries {
			var dep api.Dependency
			at := fmt.Sprintf("%s[%d]", path, i)
			d.at[at] = e.at
			if e.value.kind != kindNull {
				d.structure(e.value, reflect.ValueOf(&dep).Elem(), at)
			}
			if dep.Process != "" || dep.File != "" {
				d.fail(e.at, at, "write it in a list", "cannot name the process twice")
			}
			dep.Process = e.key
			out = append(out, dep)
		}
	default:
		d.wrong(n, path, kindList)
	}
	*v = out
}
