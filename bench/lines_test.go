//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func line(n int) string { return fmt.Sprintf("%010d %s", n, strings.Repeat("x", 88)) }

// Lost and doubled lines are found in whatever form a supervisor writes them.
func TestCountLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, form := range map[string]string{"bare": "%s\n", "prefixed": "2026-01-01 [p] %s\n", "JSON": `{"message":"%s","n":1}` + "\n"} {
		path := filepath.Join(dir, name)
		var b strings.Builder
		for _, n := range []int{0, 1, 1, 1, 3, 99} { // of 5: 2 and 4 are missing, 1 came twice more, 99 is not ours
			fmt.Fprintf(&b, form, line(n))
		}
		write(t, path, b.String()+"something else\n")
		lost, doubled, err := count([]string{path}, 5)
		if err != nil || lost != 2 || doubled != 2 {
			t.Errorf("%s: %d lost, %d doubled, %v", name, lost, doubled, err)
		}
	}
	if _, _, err := count(nil, 1); err == nil {
		t.Error("no file is no error")
	}
}

// Lines are compared process by process with what each says it wrote.
func TestCompareTicks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, _, err := compareTicks(dir, nil); err == nil {
		t.Error("nobody wrote, and it is no error")
	}
	tick := func(pid, n int) string { return fmt.Sprintf("x T%d %010d xxxx\n", pid, n) }
	write(t, filepath.Join(dir, "wrote.7"), "3\n")
	write(t, filepath.Join(dir, "wrote.8"), "2\n")
	// Of 7, line 1 is lost and 3 was written but not counted any more; of 8, line 0 came twice.
	write(t, filepath.Join(dir, "a"), tick(7, 0)+tick(7, 2)+tick(8, 0))
	write(t, filepath.Join(dir, "b"), tick(7, 3)+tick(8, 1)+tick(8, 0))
	lost, doubled, err := compareTicks(dir, []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")})
	if err != nil || lost != 1 || doubled != 1 {
		t.Errorf("%d lost, %d doubled, %v", lost, doubled, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
