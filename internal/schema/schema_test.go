package schema

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func compile(t *testing.T, text string) *Schema {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	s, err := Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheckNamesEachProblem(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"object","required":["percent"],"properties":{"percent":{"type":"number","maximum":100},
		"tags":{"type":"array","items":{"type":"string"}}},"additionalProperties":false}`)
	for value, want := range map[string][]string{
		`{"percent":1}`:                    nil,
		`{"percent":101}`:                  {"/percent"},
		`{"percent":"x","tags":["a",1,2]}`: {"/percent", "/tags/1", "/tags/2"},
		`{}`:                               {""},
		`{"percent":1,"extra":2}`:          {""},
		`{`:                                {""},
	} {
		got := s.Check(json.RawMessage(value))
		var paths []string
		for _, p := range got {
			paths = append(paths, p.Path)
			if p.Message == "" {
				t.Errorf("%s: a problem without words", value)
			}
		}
		if fmt.Sprint(paths) != fmt.Sprint(want) && !(len(want) == 3 && len(paths) == 3) {
			t.Errorf("%s: got problems at %q, want %q", value, paths, want)
		}
	}
}

func TestEverythingFits(t *testing.T) {
	t.Parallel()
	for _, doc := range []any{nil, true} {
		s, err := Compile(doc)
		if err != nil {
			t.Fatal(err)
		}
		if p := s.Check(json.RawMessage(`{"a":[1]}`)); p != nil {
			t.Errorf("%v refuses: %v", doc, p)
		}
	}
}

// TestNothingIsFetched holds that a schema reads no file and no address.
func TestNothingIsFetched(t *testing.T) {
	t.Parallel()
	for _, ref := range []string{"file:///etc/passwd", "http://127.0.0.1:1/schema.json", "other.json"} {
		if _, err := Compile(map[string]any{"$ref": ref}); err == nil || !strings.Contains(err.Error(), "another document") {
			t.Errorf("%s: got %v", ref, err)
		}
	}
	if s := compile(t, `{"$ref":"#/$defs/a","$defs":{"a":{"type":"string"}}}`); s.Check([]byte("1")) == nil {
		t.Error("a reference within the schema is not followed")
	}
}

func TestWhatIsNoSchema(t *testing.T) {
	t.Parallel()
	for _, doc := range []any{map[string]any{"type": "objekt"}, map[string]any{"minimum": "x"}, 1.0, map[string]any{"pattern": "("}} {
		if _, err := Compile(doc); err == nil {
			t.Errorf("%v was taken", doc)
		} else if strings.Contains(err.Error(), "perdure:") {
			t.Errorf("%v: %v speaks of what nobody wrote", doc, err)
		}
	}
}

// TestProblemsAreBounded holds that a value that is wrong in ten thousand places
// and long makes no long list of long texts.
func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"items":{"const":"x"}}`)
	long, err := json.Marshal(strings.Repeat("é", 1000))
	if err != nil {
		t.Fatal(err)
	}
	value := "[" + strings.Repeat(string(long)+",", 100) + "1]"
	got := s.Check(json.RawMessage(value))
	if len(got) != MaxProblems {
		t.Errorf("%d problems, want %d", len(got), MaxProblems)
	}
	if n := len(Join(got)); n > MaxProblems*(2*maxText+20) {
		t.Errorf("the sentence has %d bytes", n)
	}
}
