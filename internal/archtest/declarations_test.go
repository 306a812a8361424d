package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

func packageComments(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		documented := len(p.production()) == 0
		for _, f := range p.production() {
			documented = documented || f.ast.Doc.Text() != ""
		}
		if !documented {
			out = append(out, p.dir+": has no package comment")
		}
	}
	return out
}

func TestPackagesHaveComments(t *testing.T) {
	holds(t, packageComments, "Say in a comment above `package` what the package promises and what it is not for.")
}

func exportedComments(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.production() {
			for _, d := range f.ast.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Doc.Text() == "" && d.Name.IsExported() && exportedReceiver(d) {
						out = append(out, tr.at(f, d.Pos(), "%s has no comment", d.Name.Name))
					}
				case *ast.GenDecl:
					out = append(out, tr.undocumented(f, d)...)
				}
			}
		}
	}
	return out
}

// exportedReceiver says whether a function is visible outside: it has no
// receiver or one of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// undocumented lists the exported names of a declaration without a comment; a
// comment on a group counts for each of its constants and variables.
func (tr *tree) undocumented(f *file, d *ast.GenDecl) []string {
	var out []string
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc.Text() == "" && (d.Lparen.IsValid() || d.Doc.Text() == "") {
				out = append(out, tr.at(f, s.Pos(), "%s has no comment", s.Name.Name))
			}
		case *ast.ValueSpec:
			if s.Names[0].IsExported() && d.Doc.Text() == "" && s.Doc.Text() == "" && s.Comment.Text() == "" {
				out = append(out, tr.at(f, s.Pos(), "%s has no comment", s.Names[0].Name))
			}
		}
	}
	return out
}

func TestExportedNamesHaveComments(t *testing.T) {
	holds(t, exportedComments, "Say what is promised: units, defaults, errors, who owns it.")
}

func packageVariables(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		written := writtenNames(p)
		for _, f := range p.production() {
			for _, d := range f.ast.Decls {
				gen, is := d.(*ast.GenDecl)
				if !is || gen.Tok != token.VAR {
					continue
				}
				for _, spec := range gen.Specs {
					out = append(out, tr.variables(f, gen, spec.(*ast.ValueSpec), written)...)
				}
			}
		}
	}
	return out
}

func (tr *tree) variables(f *file, gen *ast.GenDecl, s *ast.ValueSpec, written map[string]bool) []string {
	var out []string
	embedded := strings.Contains(rawText(gen.Doc)+rawText(s.Doc), "//go:embed")
	for i, name := range s.Names {
		if name.Name == "_" || embedded || f.ok[tr.line(s.Pos())] || f.ok[tr.line(gen.Pos())] {
			continue
		}
		if len(s.Values) == len(s.Names) && constantLike(s.Values[i], name) && !written[name.Name] {
			continue
		}
		out = append(out, tr.at(f, name.Pos(), "variable %s is of the package", name.Name))
	}
	return out
}

func rawText(g *ast.CommentGroup) string {
	if g == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text + "\n")
	}
	return b.String()
}

// constantLike says whether a variable is one only because the language has no
// constant of its kind: an error to compare with, a compiled pattern, a table.
func constantLike(v ast.Expr, name *ast.Ident) bool {
	switch v := v.(type) {
	case *ast.BasicLit:
		return !name.IsExported()
	case *ast.CompositeLit:
		return !name.IsExported()
	case *ast.CallExpr:
		sel, is := v.Fun.(*ast.SelectorExpr)
		if !is {
			return false
		}
		x, is := sel.X.(*ast.Ident)
		if !is {
			return false
		}
		switch x.Name + "." + sel.Sel.Name {
		case "errors.New", "regexp.MustCompile", "crc32.MakeTable", "strings.NewReplacer", "api.Errorf":
			return true
		}
	}
	return false
}

// writtenNames lists the names that the package assigns to, takes the address
// of, or hands to delete or clear; a local of the same name counts as well.
func writtenNames(p *pkg) map[string]bool {
	out := map[string]bool{}
	mark := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.Ident:
				out[x.Name] = true
				return
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			default:
				return
			}
		}
	}
	for _, f := range p.production() {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, l := range n.Lhs {
						mark(l)
					}
				}
			case *ast.IncDecStmt:
				mark(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					mark(n.X)
				}
			case *ast.CallExpr:
				if id, is := n.Fun.(*ast.Ident); is && (id.Name == "delete" || id.Name == "clear") {
					mark(n.Args[0])
				}
			}
			return true
		})
	}
	return out
}

func TestNoMutablePackageVariables(t *testing.T) {
	holds(t, packageVariables, "Hand it to the constructor. Sentinel errors, compiled patterns, embedded files and unexported tables that "+
		"nobody writes to are fine; for anything else write `//ok: WHY`.")
}

// synonym finds a word that stands for one of ours: it begins a word of a name
// in mixed capitals, whatever stands before it.
var synonym = regexp.MustCompile(`(Service|Task|Instance|Program|Unit)s?(?:[A-Z0-9_]|$)`)

func typeNames(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.production() {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				spec, is := n.(*ast.TypeSpec)
				if !is || !spec.Name.IsExported() {
					return true
				}
				if m := synonym.FindStringSubmatch(spec.Name.Name); m != nil {
					out = append(out, tr.at(f, spec.Pos(), "type %s says %s", spec.Name.Name, m[1]))
				}
				return true
			})
		}
	}
	return out
}

func TestOneWordPerThing(t *testing.T) {
	holds(t, typeNames, "The words are those of api/: definition, process, generation, desired, state, supervisor, server.")
}

// enumTexts holds enums to their texts: where a named type has constants and a
// String method, each constant is the key of a table or the case of a switch;
// where a string type T has a function Ts() []T, that lists each constant.
func enumTexts(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		constants, texts, used := enums(p)
		for typ, names := range constants {
			if !texts[typ] {
				continue
			}
			for i, name := range names {
				if i == 0 && typedByIota(p, typ) {
					continue // the zero value may be what the method says at its end
				}
				if !used[name] && !strings.HasPrefix(strings.ToLower(name), "num") {
					out = append(out, fmt.Sprintf("%s: %s of the enum %s has no text", p.dir, name, typ))
				}
			}
		}
	}
	return out
}

// typedByIota says whether an enum is of numbers.
func typedByIota(p *pkg, typ string) bool {
	for _, f := range p.production() {
		found := false
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if spec, is := n.(*ast.TypeSpec); is && spec.Name.Name == typ {
				id, is := spec.Type.(*ast.Ident)
				found = is && id.Name != "string"
			}
			return !found
		})
		if found {
			return true
		}
	}
	return false
}

func enums(p *pkg) (constants map[string][]string, texts, used map[string]bool) {
	constants, texts, used = map[string][]string{}, map[string]bool{}, map[string]bool{}
	for _, f := range p.production() {
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				if d.Tok == token.CONST {
					collect(d, constants)
				}
			case *ast.FuncDecl:
				if d.Recv != nil && d.Name.Name == "String" {
					if id, is := d.Recv.List[0].Type.(*ast.Ident); is {
						texts[id.Name] = true
					}
				} else if d.Recv == nil && strings.HasSuffix(d.Name.Name, "s") && d.Type.Params.NumFields() == 0 {
					texts[strings.TrimSuffix(d.Name.Name, "s")] = true
				}
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				use(used, n.Key)
			case *ast.CaseClause:
				use(used, n.List...)
			case *ast.CompositeLit:
				use(used, n.Elts...)
			}
			return true
		})
	}
	return constants, texts, used
}

func use(used map[string]bool, list ...ast.Expr) {
	for _, e := range list {
		if id, is := e.(*ast.Ident); is {
			used[id.Name] = true
		}
	}
}

// collect adds the constants of d to their types; in a group with iota a type
// goes on until the next one.
func collect(d *ast.GenDecl, constants map[string][]string) {
	typ := ""
	for _, spec := range d.Specs {
		s := spec.(*ast.ValueSpec)
		if id, is := s.Type.(*ast.Ident); is {
			typ = id.Name
		} else if len(s.Values) > 0 {
			typ = ""
		}
		for _, name := range s.Names {
			if typ != "" && name.Name != "_" {
				constants[typ] = append(constants[typ], name.Name)
			}
		}
	}
}

func TestEnumsHaveTexts(t *testing.T) {
	holds(t, enumTexts, "Add the constant to the table, switch or list that gives the enum its texts.")
}
