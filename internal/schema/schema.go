// Package schema holds data against JSON Schemas (draft 2020-12 unless a schema
// names another): those by which a definition declares the events of its
// process and the commands that it takes. Schemas come from the user, so nothing
// outside of them is ever read: a reference to another document is an error.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// MaxProblems is how many problems of one value are told.
const MaxProblems = 16

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct{ compiled *jsonschema.Schema }

// Problem is one thing that is wrong with a value.
type Problem struct {
	// Path says where, as a JSON pointer (RFC 6901); empty for the value itself.
	Path    string `json:"path"`
	Message string `json:"message"`
}

// where is the address of the schema itself; it is never fetched.
const where = "perdure:///schema"

// Compile reads a schema as encoding/json gives it: a map, a boolean, or nil for
// one that everything fits.
func Compile(doc any) (*Schema, error) {
	if doc == nil {
		doc = true
	}
	// The compiler wants numbers as they were written.
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("cannot read the schema: %w", err)
	}
	if doc, err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("cannot read the schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(refuse{})
	if err := c.AddResource(where, doc); err != nil {
		return nil, explain(err)
	}
	compiled, err := c.Compile(where)
	if err != nil {
		return nil, explain(err)
	}
	return &Schema{compiled}, nil
}

// refuse loads nothing.
type refuse struct{}

func (refuse) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is another document; write what it says under $defs", strings.TrimPrefix(url, "perdure:///"))
}

// explain makes a sentence of an error of the compiler.
func explain(err error) error {
	var invalid *jsonschema.SchemaValidationError
	if errors.As(err, &invalid) {
		var v *jsonschema.ValidationError
		if errors.As(invalid.Err, &v) {
			p := problems(v)
			return fmt.Errorf("this is no JSON Schema: %s", p[0])
		}
	}
	return fmt.Errorf("cannot use the schema: %s", strings.ReplaceAll(err.Error(), where+"#", ""))
}

// Check returns what is wrong with a value, at most MaxProblems; nil when it fits.
func (s *Schema) Check(value json.RawMessage) []Problem {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return []Problem{{Message: "this is no JSON: " + err.Error()}}
	}
	err = s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	var ve *jsonschema.ValidationError
	if !errors.As(err, &ve) {
		return []Problem{{Message: err.Error()}}
	}
	return problems(ve)
}

// String returns a sentence for people.
func (p Problem) String() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// Join makes one sentence of problems.
func Join(list []Problem) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, "; ")
}

// problems are the leaves of the tree of errors: what is above them only says
// that something beneath is wrong.
func problems(top *jsonschema.ValidationError) []Problem {
	var out []Problem
	printer := message.NewPrinter(language.English)
	var visit func(*jsonschema.ValidationError)
	visit = func(v *jsonschema.ValidationError) {
		if len(out) >= MaxProblems {
			return
		}
		if len(v.Causes) > 0 {
			for _, c := range v.Causes {
				visit(c)
			}
			return
		}
		var path strings.Builder
		for _, part := range v.InstanceLocation {
			path.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
		}
		out = append(out, Problem{Path: clip(path.String()), Message: clip(v.ErrorKind.LocalizedString(printer))})
	}
	visit(top)
	return out
}

// maxText bounds a text that may hold a part of the value.
const maxText = 400

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
