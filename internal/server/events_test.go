package server

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// emitted is what the code tells: the fields that stand beside each type.
func emitted(t *testing.T) map[string][]string {
	t.Helper()
	kind := regexp.MustCompile(`^(process|supervisor|server|config|event|storage)(\.[a-z_]+)+$`)
	files := map[string]bool{"supervisor.lock": true, "supervisor.sock": true, "supervisor.log": true, "server.log": true, "server.json": true}
	out := map[string][]string{}
	for _, dir := range []string{"supervise", "supervisor", "supervisor/workers", "session", "server", "event"} {
		paths, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no code in %s: %v", dir, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if typ, ok := text(n); ok && kind.MatchString(typ) && !files[typ] {
					out[typ] = append(out[typ], "")
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				fields(call, out)
				return !pointOfFailure(call)
			})
		}
	}
	return out
}

// pointOfFailure says that a call is one of internal/fault: its name is no event.
func pointOfFailure(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "fault"
}

func text(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// fields notes the keys of the map that is given in a call beside a type.
func fields(call *ast.CallExpr, out map[string][]string) {
	typ := ""
	for _, arg := range call.Args {
		if s, ok := text(arg); ok && strings.Contains(s, ".") {
			typ = s
		}
		lit, ok := arg.(*ast.CompositeLit)
		if !ok || typ == "" {
			continue
		}
		for _, el := range lit.Elts {
			if kv, ok := el.(*ast.KeyValueExpr); ok {
				if key, ok := text(kv.Key); ok {
					out[typ] = append(out[typ], key)
				}
			}
		}
	}
}

func TestEventsReference(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "events.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			rows[strings.Trim(cells[1], " `")] = cells[3]
		}
	}
	told := emitted(t)
	if len(told) < 30 || len(told["process.backoff"]) < 3 {
		t.Fatalf("the code is not understood: %v", told)
	}
	for typ, keys := range told {
		row, ok := rows[typ]
		if !ok {
			t.Errorf("%s is told and missing in docs/reference/events.md", typ)
			continue
		}
		for _, key := range keys {
			if key != "" && !strings.Contains(row, "`"+key+"`") {
				t.Errorf("the field %s of %s is missing in docs/reference/events.md", key, typ)
			}
		}
	}
	for typ := range rows {
		if _, ok := told[typ]; !ok && !strings.Contains(typ, "NAME") { // those types are made of what it is called
			t.Errorf("%s is in docs/reference/events.md and nobody tells it", typ)
		}
	}
}
