package archtest

import (
	"fmt"
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// faultsPage is the list of faults that other supervisors were seen to have.
const faultsPage = "../../docs/reference/faults-of-others.md"

var faultRow = regexp.MustCompile(`^\| ([A-Z])(\d+) \| [^|]+ \| ([^|]+) \|$`)

// claims returns the rule that each row of the page of faults, which are counted
// without a hole, names tests that exist and that say the row's letter and number.
func claims(page string) rule {
	return func(tr *tree) []string {
		var out []string
		tests, last := testTexts(tr), map[string]int{}
		for line := range strings.Lines(page) {
			m := faultRow.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				continue
			}
			letter, cell := m[1], m[3]
			n, err := strconv.Atoi(m[2])
			if err != nil || n != last[letter]+1 {
				out = append(out, fmt.Sprintf("%s%d follows %s%d", letter, n, letter, last[letter]))
			}
			last[letter] = n
			if cell == "–" {
				continue
			}
			for ref := range strings.SplitSeq(cell, ", ") {
				name := strings.Trim(ref, "`")
				if text, ok := tests[name]; !ok {
					out = append(out, fmt.Sprintf("%s%d: there is no test %s", letter, n, name))
				} else if !says(text, letter, n) {
					out = append(out, fmt.Sprintf("%s%d: %s does not say that it is for it", letter, n, name))
				}
			}
		}
		return out
	}
}

// testTexts are the tests with their comments, by folder and name.
func testTexts(tr *tree) map[string]string {
	out := map[string]string{}
	for _, p := range tr.pkgs {
		prefix := p.dir + "."
		if p.dir == "." {
			prefix = ""
		}
		for _, f := range p.files {
			for _, d := range f.ast.Decls {
				fn, is := d.(*ast.FuncDecl)
				if !is || !f.test || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") {
					continue
				}
				from := fn.Pos()
				if fn.Doc != nil {
					from = fn.Doc.Pos()
				}
				out[prefix+fn.Name.Name] = f.src[tr.fset.Position(from).Offset:tr.fset.Position(fn.End()).Offset]
			}
		}
	}
	return out
}

// says looks for a letter with a number. What is under Q may be called P: those
// tests stand where no other P can be meant.
func says(text, letter string, n int) bool {
	if letter == "Q" {
		letter = "[QP]"
	}
	text = strings.Replace(text, "func Test", "func ", 1)
	return regexp.MustCompile(fmt.Sprintf(`(^|[^A-Za-z0-9])%s%d([^0-9]|$)`, letter, n)).MatchString(text)
}

func TestFaultsOfOthersAreClaimed(t *testing.T) {
	page, err := os.ReadFile(faultsPage)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(page), "\n| "); n < 110 {
		t.Errorf("the page has %d rows", n)
	}
	holds(t, claims(string(page)), "Each row of docs/reference/faults-of-others.md names the tests that keep the fault out, as "+
		"folder.TestName; such a test says the row's letter and number in its name, its comment or its body.")
}

// takers are the packages that may take the signals of the program: one of each
// program's (cli/host is what differs from system to system of cli), proc for SIGCHLD alone, and worker when the caller asks for it.
func takers() []string {
	return []string{"internal/cli", "internal/cli/host", "internal/supervisor", "internal/proc", "worker"}
}

func signals(tr *tree) []string {
	var out []string
	for _, p := range tr.pkgs {
		if outside(p.dir) || slices.Contains(takers(), p.dir) {
			continue
		}
		for _, f := range p.production() {
			if _, uses := importsOf(f)["os/signal"]; uses {
				out = append(out, fmt.Sprintf("%s: takes signals", f.path))
			}
		}
	}
	return out
}

// Keeps out P16: signals belong to the program, not to each instance of a thing in it.
func TestSignalsAreTakenInOnePlace(t *testing.T) {
	holds(t, signals, "A library takes no signals: return to the command that does.")
}
