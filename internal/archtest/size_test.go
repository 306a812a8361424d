package archtest

import (
	"fmt"
	"go/ast"
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
		return 40 // values of the pure machine: what it knows, remembers and may be told, flat so that they compare and print
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
				n := tr.line(fn.End()) - tr.line(fn.Pos()) + 1 - tr.tableLines(fn.Body)
				if n > maxFunction {
					out = append(out, tr.at(f, fn.Pos(), "%s has %d lines, more than %d", fn.Name.Name, n, maxFunction))
				}
			}
		}
	}
	return out
}

// tableLines counts the lines inside literals of lists and maps: data, not flow.
func (tr *tree) tableLines(body ast.Node) int {
	total := 0
	ast.Inspect(body, func(n ast.Node) bool {
		lit, is := n.(*ast.CompositeLit)
		if !is {
			return true
		}
		switch lit.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			total += tr.line(lit.End()) - tr.line(lit.Pos())
			return false
		}
		return true
	})
	return total
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
