package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/perdure/perdure"

// file is one parsed Go file; path is relative to the root, with slashes.
type file struct {
	path      string
	src       string
	lines     int
	test      bool
	generated bool
	ast       *ast.File
	// ok holds the lines that carry or follow an "//ok: reason" comment.
	ok map[int]bool
}

// pkg is one folder with Go files.
type pkg struct {
	dir   string // "." is the root
	name  string
	files []*file
}

// tree is a set of packages and the text of the architecture page.
type tree struct {
	fset         *token.FileSet
	pkgs         []*pkg
	architecture string
}

var okComment = regexp.MustCompile(`^//ok: \S`)

// newTree parses sources, keyed by path.
func newTree(architecture string, sources map[string]string) (*tree, error) {
	tr := &tree{fset: token.NewFileSet(), architecture: architecture}
	byDir := map[string]*pkg{}
	paths := make([]string, 0, len(sources))
	for p := range sources {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		f, err := tr.parse(p, sources[p])
		if err != nil {
			return nil, fmt.Errorf("cannot parse %s: %w", p, err)
		}
		dir := path.Dir(p)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir}
			tr.pkgs = append(tr.pkgs, byDir[dir])
		}
		pk := byDir[dir]
		pk.files = append(pk.files, f)
		if name := f.ast.Name.Name; pk.name == "" || !f.test {
			pk.name = strings.TrimSuffix(name, "_test")
		}
	}
	return tr, nil
}

func (tr *tree) parse(p, src string) (*file, error) {
	parsed, err := parser.ParseFile(tr.fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &file{
		path: p, src: src, ast: parsed,
		lines:     strings.Count(src, "\n"),
		test:      strings.HasSuffix(p, "_test.go"),
		generated: ast.IsGenerated(parsed),
		ok:        map[int]bool{},
	}
	for _, group := range parsed.Comments {
		for _, c := range group.List {
			if okComment.MatchString(c.Text) {
				f.ok[tr.line(c.Pos())] = true
				f.ok[tr.line(group.End())+1] = true
			}
		}
	}
	return f, nil
}

func (tr *tree) line(p token.Pos) int { return tr.fset.Position(p).Line }

// at formats a finding.
func (tr *tree) at(f *file, p token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.path, tr.line(p), fmt.Sprintf(format, args...))
}

// lookup returns the package in dir, or nil.
func (tr *tree) lookup(dir string) *pkg {
	for _, p := range tr.pkgs {
		if p.dir == dir {
			return p
		}
	}
	return nil
}

// production lists the files that are not tests.
func (p *pkg) production() []*file {
	var out []*file
	for _, f := range p.files {
		if !f.test {
			out = append(out, f)
		}
	}
	return out
}

// importsOf lists what f imports, with the name it goes by in the file.
func importsOf(f *file) map[string]string {
	out := map[string]string{}
	for _, spec := range f.ast.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		out[p] = name
	}
	return out
}

// ours returns the folder of an import path of this module.
func ours(importPath string) (dir string, yes bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// repository parses this repository once for all tests. Folders with a go.mod
// of their own are other modules and keep their own house.
var repository = sync.OnceValues(func() (*tree, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	sources := map[string]string{}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(root, p, d.Name())
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		sources[filepath.ToSlash(rel)] = string(src)
		return nil
	})
	if err != nil {
		return nil, err
	}
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		return nil, err
	}
	return newTree(string(page), sources)
})

func enter(root, p, name string) error {
	if p == root {
		return nil
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "node_modules" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

// rule is one rule of the house.
type rule func(*tree) []string

// holds runs r on this repository; advice says what to do about a finding.
func holds(t *testing.T, r rule, advice string) {
	t.Helper()
	t.Parallel()
	tr, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.pkgs) < 3 {
		t.Fatalf("only %d packages were found: the walk over the repository is broken", len(tr.pkgs))
	}
	for _, finding := range r(tr) {
		t.Error(finding)
	}
	if t.Failed() {
		t.Log(advice)
	}
}
