package fault

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryPointIsRegistered reads all sources of the module: each call of
// fault.Point names a registered point by a literal, and each registered point
// is called somewhere.
func TestEveryPointIsRegistered(t *testing.T) {
	t.Parallel()
	points := Points()
	if !slices.IsSorted(points) || len(slices.Compact(slices.Clone(points))) != len(points) {
		t.Error("the list is not sorted, or a name is in it twice")
	}
	used := map[string]bool{}
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
				used[name] = true
				if !slices.Contains(points, name) {
					t.Errorf("%s: the point %q is not in the list of points.go", path, name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if !used[p] {
			t.Errorf("the point %q is nowhere in the sources", p)
		}
	}
}

// pointName returns the argument of a call of fault.Point, "" if it is no literal.
func pointName(n ast.Node) (name string, is bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return "", false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Point" || len(call.Args) != 1 {
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
	if n := testing.AllocsPerRun(10, func() { _ = Point("journal.sync") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := Point("no such point"); err != nil {
		t.Error(err)
	}
}
