package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"testing"
)

const (
	maxFile     = 600
	maxTestFile = 900
	maxFunction = 80
	maxFields   = 20
	maxShape    = 30
	maxFiles    = 25
)

// wide names the structs that may be wider, and why.
func wide(dir, name string) int {
	switch {
	case dir == "api" && name == "Definition":
		return 45 // one key of perdure.yaml each; splitting it would nest the users' file
	case dir == "api" || dir == "internal/config" || dir == "internal/definition":
		return maxShape // shapes of files and answers
	case dir == "internal/supervise" && (name == "Spec" || name == "State" || name == "Input"):
		return 45 // values of the pure machine: what it knows, remembers and may be told, flat so that they compare and print
	}
	return maxFields
}

func fileLength(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.files {
			limit := maxFile
			if f.test {
				limit = maxTestFile
			}
			if !f.generated && f.lines > limit {
				out = append(out, fmt.Sprintf("%s: has %d lines, more than %d", f.path, f.lines, limit))
			}
		}
	}
	return out
}

func TestFilesAreShort(t *testing.T) {
	holds(t, fileLength, "Split the file by what its parts do; 300 lines are comfortable.")
}

func functionLength(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			for _, d := range f.ast.Decls {
				fn, is := d.(*ast.FuncDecl)
				if !is || fn.Body == nil {
					continue
				}
				for _, n := range tr.flowLines(fn.Pos(), fn.Body) {
					if n > maxFunction {
						out = append(out, tr.at(f, fn.Pos(), "%s has %d lines, more than %d", fn.Name.Name, n, maxFunction))
					}
				}
			}
		}
	}
	return out
}

// flowLines counts the lines of a function without the literals of lists and
// maps, which are data, and without the functions that it hands to t.Run, which
// are tests of their own and counted each for itself.
func (tr *tree) flowLines(from token.Pos, body *ast.BlockStmt) []int {
	total := tr.line(body.End()) - tr.line(from) + 1
	var parts []int
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			switch n.Type.(type) {
			case *ast.ArrayType, *ast.MapType:
				total -= tr.line(n.End()) - tr.line(n.Pos())
				return false
			}
		case *ast.CallExpr:
			sel, is := n.Fun.(*ast.SelectorExpr)
			if !is || sel.Sel.Name != "Run" || len(n.Args) != 2 {
				return true
			}
			if part, is := n.Args[1].(*ast.FuncLit); is {
				parts = append(parts, tr.flowLines(part.Pos(), part.Body)...)
				total -= tr.line(part.End()) - tr.line(part.Pos())
				return false
			}
		}
		return true
	})
	return append(parts, total)
}

func TestFunctionsAreShort(t *testing.T) {
	holds(t, functionLength, "Give the steps of the function names; 40 lines are comfortable. Tables do not count.")
}

func structFields(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				spec, is := n.(*ast.TypeSpec)
				if !is {
					return true
				}
				st, is := spec.Type.(*ast.StructType)
				if !is {
					return true
				}
				limit := wide(p.dir, spec.Name.Name)
				if n := st.Fields.NumFields(); n > limit {
					out = append(out, tr.at(f, spec.Pos(), "%s has %d fields, more than %d", spec.Name.Name, n, limit))
				}
				return true
			})
		}
	}
	return out
}

func TestStructsAreNarrow(t *testing.T) {
	holds(t, structFields, "A struct that is configuration, state, IO and view at once is several. Split it by owner.")
}

func packageFiles(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		limit := maxFiles
		if p.dir == "internal/cli" {
			limit = 40 // one file per command, by rule
		}
		if n := len(p.production()); n > limit {
			out = append(out, fmt.Sprintf("%s: has %d files without tests, more than %d", p.dir, n, limit))
		}
	}
	return out
}

func TestPackagesAreSmall(t *testing.T) {
	holds(t, packageFiles, "A package is one screen of ls. Move a part that others could use into a package of its own.")
}
