//go:build linux

package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write RESULTS.md and the tables of README.md again")

// The pages tell what is recorded, and nothing else: whoever changes a figure by
// hand is found out here.
func TestPagesTellWhatIsRecorded(t *testing.T) {
	t.Chdir("..")
	if *update {
		if err := renderAll(recordDir); err != nil {
			t.Fatal(err)
		}
	}
	r, err := load(recordDir)
	if err != nil {
		t.Fatal(err)
	}
	page := read(t, filepath.Join(recordDir, pageFile))
	if d := cmp.Diff(r.page(), page); d != "" {
		t.Errorf("%s is not what %s says (go run ./bench -render):\n%s", pageFile, resultsFile, d)
	}
	old := read(t, readmeFile)
	text, err := r.readme(old)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, old); d != "" {
		t.Errorf("%s is not what %s says (go run ./bench -render):\n%s", readmeFile, resultsFile, d)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A row that is recorded again takes the place of the one before and leaves the
// others, with the day and the commit of each.
func TestRecordOneRow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	measuredRow := func(row, commit string, v ...float64) *table {
		t := newTable(row, about{Commit: commit})
		t.describe("About "+row, "How.", medians("ms")...)
		t.add("perdure", "ms", v...)
		return t
	}
	for _, x := range []*table{measuredRow("stop", "old", 1), measuredRow("many", "old", 2), measuredRow("stop", "new", 30, 20, 40)} {
		if err := record(dir, x); err != nil {
			t.Fatal(err)
		}
	}
	page := read(t, filepath.Join(dir, pageFile))
	many, stop := strings.Index(page, "## About many"), strings.Index(page, "## About stop")
	if many < 0 || stop < many || strings.Count(page, "## ") != 2 {
		t.Fatalf("the rows are not in order:\n%s", page)
	}
	for part, want := range map[string][]string{page[many:stop]: {"commit old", "| perdure | 2 | 1 |"}, page[stop:]: {"commit new", "| perdure | 30 | 3 |"}} {
		for _, w := range want {
			if !strings.Contains(part, w) {
				t.Errorf("%q is not in\n%s", w, part)
			}
		}
	}
}

func TestFolds(t *testing.T) {
	t.Parallel()
	x := newTable("x", about{})
	x.add("p", "v", 0, 1, 5)
	x.add("p", "sometimes", 0, 1, 0)
	x.add("p", "always", 1, 1)
	for _, c := range []struct {
		column column
		want   string
	}{
		{column{Name: "v"}, "1"}, {column{Name: "v", Fold: worst}, "5"}, {column{Name: "none"}, unknown},
		{column{Name: "sometimes", Fold: yesNo}, "1 of 3 times"}, {column{Name: "always", Fold: yesNo}, "yes"},
	} {
		if got := x.cell("p", c.column); got != c.want {
			t.Errorf("%+v: %q, want %q", c.column, got, c.want)
		}
	}
}

func TestTheReadmeNeedsItsMarkers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "<!-- x:begin -->\n", "<!-- x:end -->"} {
		if _, err := between(text, "x", "new"); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	got, err := between("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb", "x", "new\n")
	if want := "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
}
