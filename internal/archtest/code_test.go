package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// calls reports the selector pkg.Name for each use of an imported package's
// member in f: "time.Sleep" with the true path of the package.
func calls(f *file, visit func(importPath, name string, pos token.Pos)) {
	names := map[string]string{}
	for p, name := range importsOf(f) {
		names[name] = p
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, is := n.(*ast.SelectorExpr)
		if !is {
			return true
		}
		if x, is := sel.X.(*ast.Ident); is {
			if p, imported := names[x.Name]; imported {
				visit(p, sel.Sel.Name, sel.Pos())
			}
		}
		return true
	})
}

func sleeps(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		if under(p.dir, "e2e") || under(p.dir, "examples") || under(p.dir, "bench") {
			continue
		}
		for _, f := range p.files {
			calls(f, func(pkg, name string, pos token.Pos) {
				if pkg == "time" && name == "Sleep" {
					out = append(out, tr.at(f, pos, "sleeps"))
				}
			})
		}
	}
	return out
}

func TestNothingSleeps(t *testing.T) {
	holds(t, sleeps, "Wait for what you wait for: a channel, a signal, a timer in a select, testing/synctest.")
}

var impure = map[string][]string{
	"os": nil, "os/exec": nil, "net": nil, "net/http": nil, "context": nil, "sync": nil, "sync/atomic": nil, "syscall": nil,
	"math/rand": nil, "math/rand/v2": nil, "crypto/rand": nil, "log": nil, "log/slog": nil, "unsafe": nil,
	"time": {"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local"},
}

func purity(tr *tree) []string {
	p := tr.lookup("internal/supervise")
	if p == nil {
		return []string{"internal/supervise: is not there; the rule of purity has nothing to hold"}
	}
	var out []string
	for _, f := range p.production() {
		for imported := range importsOf(f) {
			if names, listed := impure[imported]; listed && names == nil {
				out = append(out, fmt.Sprintf("%s: imports %s", f.path, imported))
			}
		}
		calls(f, func(pkg, name string, pos token.Pos) {
			if slices.Contains(impure[pkg], name) {
				out = append(out, tr.at(f, pos, "uses %s.%s", pkg, name))
			}
		})
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				out = append(out, tr.at(f, n.Pos(), "starts a goroutine"))
			case *ast.SendStmt, *ast.SelectStmt, *ast.ChanType:
				out = append(out, tr.at(f, n.Pos(), "uses a channel"))
			}
			return true
		})
	}
	return out
}

func TestSuperviseIsPure(t *testing.T) {
	holds(t, purity, "internal/supervise decides and does nothing else: time and chance come in with the Input, acts go out as Effects.")
}

func initFunctions(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.files {
			for _, d := range f.ast.Decls {
				if fn, is := d.(*ast.FuncDecl); is && fn.Recv == nil && fn.Name.Name == "init" {
					out = append(out, tr.at(f, fn.Pos(), "has an init function"))
				}
			}
		}
	}
	return out
}

func TestNoInitFunctions(t *testing.T) {
	holds(t, initFunctions, "Wire it in the composition root (internal/server or cmd/perdure), where it can be read.")
}

func panics(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.production() {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				call, is := n.(*ast.CallExpr)
				if !is {
					return true
				}
				if id, is := call.Fun.(*ast.Ident); is && id.Name == "panic" && !f.ok[tr.line(call.Pos())] {
					out = append(out, tr.at(f, call.Pos(), "panics"))
				}
				return true
			})
		}
	}
	return out
}

func TestPanicsAreForInvariants(t *testing.T) {
	holds(t, panics, "Return an error. For an invariant that only a fault in this code can break, write `//ok: WHY` on the line above.")
}

func exits(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		// internal/fault is there to end the program at a named point.
		if p.name == "main" || under(p.dir, "e2e") || p.dir == "internal/fault" {
			continue
		}
		for _, f := range p.production() {
			calls(f, func(pkg, name string, pos token.Pos) {
				ends := (pkg == "os" || pkg == "syscall" || pkg == "golang.org/x/sys/unix") && name == "Exit" ||
					pkg == "log" && (strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic"))
				if ends && !f.ok[tr.line(pos)] {
					out = append(out, tr.at(f, pos, "ends the program"))
				}
			})
		}
	}
	return out
}

func TestOnlyMainExits(t *testing.T) {
	holds(t, exits, "Return an error or a code; main exits. In a child that was forked for one purpose, write `//ok: WHY`.")
}

var forbiddenWords = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func words(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.files {
			for i, line := range strings.Split(f.src, "\n") {
				if w := forbiddenWords.FindString(line); w != "" {
					out = append(out, fmt.Sprintf("%s:%d: says %s", f.path, i+1, w))
				}
			}
		}
	}
	return out
}

func TestNoUnfinishedWords(t *testing.T) {
	holds(t, words, "Finish it, or open an issue and say in plain words what is not there yet.")
}

func cgo(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.files {
			if _, uses := importsOf(f)["C"]; uses {
				out = append(out, f.path+": uses cgo")
			}
		}
	}
	return out
}

func TestNoCgo(t *testing.T) {
	holds(t, cgo, "Perdure is one static binary for every system; use golang.org/x/sys.")
}

func parallel(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		for _, f := range p.files {
			if !f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				fn, is := d.(*ast.FuncDecl)
				if !is || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") || fn.Name.Name == "TestMain" {
					continue
				}
				if !saysParallel(tr, f, fn) {
					out = append(out, tr.at(f, fn.Pos(), "%s is not parallel and does not say why", fn.Name.Name))
				}
			}
		}
	}
	return out
}

// saysParallel: a call of t.Parallel, a call that forbids it (Setenv, Chdir),
// one of the helpers here that make it, or the word in a comment.
func saysParallel(tr *tree, f *file, fn *ast.FuncDecl) bool {
	found := false
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			found = found || slices.Contains([]string{"Parallel", "Setenv", "Chdir"}, n.Sel.Name)
		case *ast.Ident:
			found = found || n.Name == "holds"
		}
		return !found
	})
	for _, c := range f.ast.Comments {
		inside := c.Pos() >= fn.Pos() && c.End() <= fn.End() || c == fn.Doc
		found = found || inside && strings.Contains(strings.ToLower(c.Text()), "parallel")
	}
	return found
}

func TestTestsAreParallel(t *testing.T) {
	holds(t, parallel, "Call t.Parallel(), or say in a comment why this test is not parallel.")
}
