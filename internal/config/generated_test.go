package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated files anew")

// TestGenerated compares what is made from the types of api with the files
// that are committed. With -update it writes them, and the test of the schema
// must then be run once more, because the comments are embedded.
func TestGenerated(t *testing.T) {
	t.Parallel()
	compare(t, "descriptions.json", comments(t))
	// With -update in one run, the pages are made from what was just written.
	if *update {
		descriptionsJSON = comments(t)
	}
	compare(t, "../../docs/perdure.schema.json", Schema())
	compare(t, "../../docs/reference/config.md", []byte(Reference()))
	compare(t, "../../docs/reference/presets.md", []byte(PresetsReference()))
}

func compare(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(have)); diff != "" {
		t.Errorf("%s is stale; run go generate ./internal/config (-want +committed):\n%s", path, diff)
	}
}

// comments reads the comments of the types that a file is made of.
func comments(t *testing.T) []byte {
	t.Helper()
	wanted := map[string]bool{}
	for _, typ := range types() {
		wanted[typ.Name()] = true
	}
	files, err := filepath.Glob("../../api/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("cannot find the sources of api", err)
	}
	out := map[string]string{}
	for _, file := range append(files, "load.go") {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok {
				return true
			}
			for _, spec := range decl.Specs {
				if ts, ok := spec.(*ast.TypeSpec); ok && wanted[ts.Name.Name] {
					typeComments(out, ts, decl.Doc)
				}
			}
			return true
		})
	}
	for name := range wanted {
		if out[name] == "" {
			t.Errorf("the type %s has no comment", name)
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func typeComments(out map[string]string, ts *ast.TypeSpec, doc *ast.CommentGroup) {
	if _, ok := ts.Type.(*ast.StructType); !ok {
		return
	}
	out[ts.Name.Name] = oneLine(doc)
	for _, f := range ts.Type.(*ast.StructType).Fields.List {
		for _, name := range f.Names {
			out[ts.Name.Name+"."+name.Name] = oneLine(f.Doc)
		}
	}
}

func oneLine(c *ast.CommentGroup) string {
	return strings.Join(strings.Fields(c.Text()), " ")
}
