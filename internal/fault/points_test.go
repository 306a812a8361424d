package fault

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryPointIsRegistered reads all sources of the module: points.go lists
// each name that is given to Point or Here, and no other.
func TestEveryPointIsRegistered(t *testing.T) {
	t.Parallel()
	used := pointsInCode(t)
	var b strings.Builder
	b.WriteString(pointsHead)
	for _, p := range slices.Sorted(maps.Keys(used)) {
		fmt.Fprintf(&b, "\t\t%q,\n", p)
	}
	b.WriteString("\t}\n}\n")
	if *update {
		if err := os.WriteFile("points.go", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	listed := map[string]bool{}
	for _, p := range Points() {
		listed[p] = true
		if used[p] == "" {
			t.Errorf("the point %q is nowhere in the sources: run make docs", p)
		}
	}
	for p, where := range used {
		if !listed[p] {
			t.Errorf("%s: the point %q is not in the list: run make docs", where, p)
		}
	}
	have, err := os.ReadFile("points.go")
	if err != nil || string(have) != b.String() {
		t.Errorf("points.go is not what is generated (%v): run make docs", err)
	}
}

// TestEveryPointIsExplained holds the page that says what a death at each point
// means to the list.
func TestEveryPointIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "survival.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "\n## Points of failure\n")
	if !found {
		t.Fatal("survival.md has no section of points")
	}
	var explained []string
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		if strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("a row says nothing: %s", line)
		}
		explained = append(explained, strings.Trim(cells[1], " `"))
	}
	for _, p := range Points() {
		if !slices.Contains(explained, p) {
			t.Errorf("survival.md does not say what a death at %q means", p)
		}
	}
	for i, p := range explained {
		if !slices.Contains(Points(), p) || slices.Index(explained, p) != i {
			t.Errorf("survival.md has a row for %q that is nowhere in the sources, or a second one", p)
		}
	}
}

var update = flag.Bool("update", false, "write points.go") //ok: a flag of the test binary

const pointsHead = `package fault

// Points lists the name of every point of the program. It is generated from
// the sources by make docs.
func Points() []string {
	return []string{
`

// pointsInCode are the names by the file that has them.
func pointsInCode(t *testing.T) map[string]string {
	t.Helper()
	used := map[string]string{}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); strings.HasPrefix(name, ".") && name != ".." || name == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if name, at := pointName(n); at {
				if name == "" || used[name] != "" && used[name] != path {
					t.Errorf("%s: the point %q has no literal for a name, or its name is that of a point in %s", path, name, used[name])
				}
				used[name] = path
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// pointName returns the argument of a call of fault.Point or fault.Here, "" if it is no literal.
func pointName(n ast.Node) (name string, is bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return "", false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Point" && sel.Sel.Name != "Here" || len(call.Args) != 1 {
		return "", false
	}
	if pkg, ok := sel.X.(*ast.Ident); !ok || pkg.Name != "fault" {
		return "", false
	}
	lit, ok := call.Args[0].(*ast.BasicLit)
	if !ok {
		return "", true
	}
	name, err := strconv.Unquote(lit.Value)
	return name, err == nil
}

func TestPointsCostNothingWithoutTheTag(t *testing.T) {
	// Not parallel: AllocsPerRun counts what other tests allocate as well.
	if Enabled {
		t.Skip("this build has the tag")
	}
	if n := testing.AllocsPerRun(10, func() { _ = Point("journal.sync"); Here("journal.sync") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := Point("no such point"); err != nil {
		t.Error(err)
	}
}
