package archtest

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// clientRow is where the public client stands: only the commands, and what is
// above them, may use it.
const clientRow = 4

var architectureRow = regexp.MustCompile("(?m)^\\| ([0-9]+|–) \\| `([^`]+)`")

// rows reads the table of rooms in ARCHITECTURE.md: folder to row.
func rows(page string) (map[string]int, error) {
	out := map[string]int{}
	for _, m := range architectureRow.FindAllStringSubmatch(page, -1) {
		dir := m[2]
		if dir == "perdure" {
			dir = "."
		}
		if m[1] == "–" {
			out[dir] = clientRow
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		out[dir] = n
	}
	if len(out) < 2 {
		return nil, fmt.Errorf("cannot find the table of rooms in ARCHITECTURE.md (rows look like | 3 | `internal/x` | … |)")
	}
	return out, nil
}

// room returns the listed folder that dir belongs to: itself or the nearest
// listed folder above it.
func room(table map[string]int, dir string) (string, bool) {
	for d := dir; d != "."; d = path.Dir(d) {
		if _, listed := table[d]; listed {
			return d, true
		}
	}
	_, listed := table["."]
	return ".", dir == "." && listed
}

// outside says that a package is not part of the program: tests, examples and
// measurements, tools of the house.
func outside(dir string) bool {
	return dir == "internal/archtest" || helper(dir) || under(dir, "e2e") || under(dir, "examples") || under(dir, "bench") ||
		under(dir, "scripts")
}

// helper says that a package helps tests; its name ends in "test".
func helper(dir string) bool { return strings.HasSuffix(path.Base(dir), "test") }

func under(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }

func layers(tr *tree) []string {
	table, err := rows(tr.architecture)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, p := range tr.pkgs {
		from, listed := room(table, p.dir)
		if outside(p.dir) {
			continue
		}
		if !listed {
			out = append(out, fmt.Sprintf("%s: has no row in the table of rooms", p.dir))
			continue
		}
		for _, f := range p.production() {
			for imported := range importsOf(f) {
				dir, yes := ours(imported)
				if !yes {
					continue
				}
				if helper(dir) {
					out = append(out, fmt.Sprintf("%s: imports %s, which is for tests only", f.path, dir))
					continue
				}
				to, listed := room(table, dir)
				if listed && to != from && table[to] >= table[from] {
					out = append(out, fmt.Sprintf("%s: %s (row %d) imports %s (row %d)", f.path, from, table[from], dir, table[to]))
				}
			}
		}
	}
	return out
}

func TestImportsRunDownward(t *testing.T) {
	holds(t, layers, "A package imports lower rows only. Declare the interface that you need where you need it and let the row "+
		"above fill it in, or give the package its row in ARCHITECTURE.md.")
}

// standard says whether an import path is of the standard library.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func publicImports(tr *tree) []string {
	allowed := map[string]string{"api": "", "client": module + "/api", "worker": module + "/internal/wire"}
	var out []string
	for dir, also := range allowed {
		p := tr.lookup(dir)
		if p == nil {
			continue
		}
		for _, f := range p.production() {
			for imported := range importsOf(f) {
				if !standard(imported) && imported != also {
					out = append(out, fmt.Sprintf("%s: imports %s", f.path, imported))
				}
			}
		}
	}
	return out
}

func TestPublicPackagesImportStandardLibrary(t *testing.T) {
	holds(t, publicImports, "api imports the standard library only, client also api, worker also internal/wire: whoever imports them takes nothing else along.")
}

// heavy is what the supervisor must never contain: it has to stay small and to
// live through everything.
var heavy = []string{
	"database/sql", "modernc.org/sqlite", module + "/internal/store", module + "/internal/httpapi",
	module + "/internal/server", module + "/internal/cli", "github.com/danielgtaylor/huma/v2", "github.com/spf13/cobra",
}

func heavyAmong(deps []string) []string {
	var out []string
	for _, dep := range deps {
		for _, h := range heavy {
			if under(dep, h) {
				out = append(out, "internal/supervisor depends on "+dep)
			}
		}
	}
	return out
}

func TestSupervisorStaysSmall(t *testing.T) {
	t.Parallel()
	if got := heavyAmong([]string{"os", "database/sql/driver", module + "/internal/journal"}); len(got) != 1 {
		t.Fatalf("the rule itself found %q, want one finding", got)
	}
	cmd := exec.Command("go", "list", "-deps", "../supervisor")
	cmd.Stderr = os.Stderr
	deps, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot list what internal/supervisor depends on: %v", err)
	}
	for _, finding := range heavyAmong(strings.Fields(string(deps))) {
		t.Error(finding)
	}
	if t.Failed() {
		t.Log("The supervisor holds no database, no HTTP server and no command line. Move what it needs to a lower row.")
	}
}
