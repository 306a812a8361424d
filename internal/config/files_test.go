package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/perdure/perdure/api"
)

func files(t *testing.T, pattern string, least int) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	if err != nil || len(list) < least {
		t.Fatalf("%s: %d files, want %d at least: %v", pattern, len(list), least, err)
	}
	return list
}

// lines writes findings with base names, one a line.
func lines(list []api.Finding) string {
	var b strings.Builder
	for _, f := range list {
		if f.File != "" {
			f.Message = strings.ReplaceAll(f.Message, filepath.Dir(f.File)+string(filepath.Separator), "")
			f.File = filepath.Base(f.File)
		}
		b.WriteString(Text(f) + "\n")
	}
	return b.String()
}

// TestBadFiles holds that each broken file is refused, with all that is wrong
// with it and where.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	for _, file := range files(t, "testdata/bad/*.yaml", 50) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			c, list, err := Load([]string{file}, LoadOptions{Env: []string{"HOME=/home/somebody"}})
			if err != nil {
				t.Fatal(err)
			}
			if c != nil || !HasErrors(list) {
				t.Errorf("the file was taken: %s", lines(list))
			}
			for _, f := range list {
				if f.Line < 1 || f.Column < 1 || f.File == "" || f.Message == "" {
					t.Errorf("a finding without a place or a message: %+v", f)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(lines(list)), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), lines(list)); diff != "" {
				t.Errorf("findings (-want +have):\n%s", diff)
			}
		})
	}
}

func TestGoodFiles(t *testing.T) {
	t.Parallel()
	for _, file := range files(t, "testdata/good/*.yaml", 4) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			c, list, err := Load([]string{file}, LoadOptions{Env: []string{"WHO=me"}})
			if err != nil || c == nil {
				t.Fatalf("refused: %v\n%s", err, lines(list))
			}
			dir, err := filepath.Abs("testdata/good")
			if err != nil {
				t.Fatal(err)
			}
			have, err := json.MarshalIndent(map[string]any{"name": c.Name, "definitions": c.Definitions, "settings": c.Settings,
				"findings": strings.Split(strings.TrimSpace(lines(list)), "\n")}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(have), dir, "DIR") + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text); diff != "" {
				t.Errorf("configuration (-want +have):\n%s", diff)
			}
		})
	}
}

// TestSchemaAgrees holds the schema against the same files: it takes all good
// ones, and refuses a bad one when its mistake is one of form.
func TestSchemaAgrees(t *testing.T) {
	t.Parallel()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Schema())))
	if err != nil {
		t.Fatal(err)
	}
	comp := jsonschema.NewCompiler()
	if err := comp.AddResource("perdure.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := comp.Compile("perdure.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(file string) error {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data, err := yaml.YAMLToJSON(src)
		if err != nil {
			return err
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
	for _, file := range files(t, "testdata/good/*.yaml", 4) {
		if err := check(file); err != nil {
			t.Errorf("the schema refuses %s: %v", file, err)
		}
	}
	refused := 0
	bad := files(t, "testdata/bad/*.yaml", 50)
	bad = slices.DeleteFunc(bad, func(f string) bool { return strings.Contains(f, "bomb") || strings.Contains(f, "deep") })
	for _, file := range bad {
		if check(file) != nil {
			refused++
		} else {
			t.Logf("passes the schema: %s", file)
		}
	}
	if refused*2 < len(bad) {
		t.Errorf("the schema refuses %d of %d bad files only", refused, len(bad))
	}
}
