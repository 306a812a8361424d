package config

import (
	"maps"
	"slices"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/schema"
)

// declares says whether a key holds schemas by name.
func declares(name string) bool { return name == "Definition.Events" || name == "Definition.Commands" }

// maxSchemas bounds the files of schemas of one configuration together: each
// stands in the definition of its process from then on.
const maxSchemas = 4 << 20

// schemas reads the schemas that stand in files of their own, and has all of
// them checked.
func (c *Config) schemas(d *decoder) {
	left := maxSchemas
	for _, name := range slices.Sorted(maps.Keys(c.written)) {
		def := c.written[name]
		for _, m := range []struct {
			key  string
			list map[string]any
		}{{"events", def.Events}, {"commands", def.Commands}} {
			for _, of := range slices.Sorted(maps.Keys(m.list)) {
				at := "processes." + name + "." + m.key + "." + of
				if path, ok := m.list[of].(string); ok {
					m.list[of] = c.schemaFile(d, at, path, &left)
				}
				if _, err := schema.Compile(m.list[of]); err != nil && !told(d.bad, at) {
					d.fail(d.at[at], at, "see https://json-schema.org/understanding-json-schema", "%s", err)
				}
			}
		}
	}
}

// schemaFile reads a schema in JSON or YAML; nil when it cannot be read.
func (c *Config) schemaFile(d *decoder, at, path string, left *int) any {
	file := absolute(d.at[at].file, path)
	src, err := readFile(file)
	if err != nil {
		d.fail(d.at[at], at, "write the path of a file with a JSON Schema, or the schema itself", "%s", err)
		return nil
	}
	if *left -= len(src); *left < 0 {
		d.fail(d.at[at], at, "keep schemas small", "cannot keep more than %d bytes of schemas", maxSchemas)
		return nil
	}
	n := parseYAML(file, src, d.out)
	switch {
	case n == nil:
		d.bad[at] = true
		return nil
	case n.kind == kindMap:
		return d.anything(n.literal(), at)
	case n.kind == kindBool:
		return d.anything(n, at)
	}
	d.fail(n.at, at, "write a JSON Schema, such as type: object", "cannot use %s as a schema", n.kind)
	return nil
}

// CheckSchemas returns what is wrong with the schemas of one definition.
func CheckSchemas(d api.Definition) []api.Finding {
	var out []api.Finding
	for _, m := range []struct {
		key  string
		list map[string]any
	}{{"events", d.Events}, {"commands", d.Commands}} {
		for _, of := range slices.Sorted(maps.Keys(m.list)) {
			if _, err := schema.Compile(m.list[of]); err != nil {
				out = append(out, api.Finding{Level: "error", Field: m.key + "." + of, Message: err.Error()})
			}
		}
	}
	return out
}
