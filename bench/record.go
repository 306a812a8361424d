//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// recordDir is the folder whose results the repository keeps.
	recordDir   = "bench"
	resultsFile = "results.json"
	pageFile    = "RESULTS.md"
	readmeFile  = "README.md"
)

// about is where, when and with what a table was measured.
type about struct {
	Date   string `json:"date"`
	Commit string `json:"commit"`
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Go     string `json:"go"`
	Quick  bool   `json:"quick,omitempty"`
	// RealTime says that all that was measured had a real-time priority, so that
	// whatever else the machine did came second.
	RealTime bool `json:"real_time,omitempty"`
	// Versions are by the name of the peer; Missing were not installed.
	Versions map[string]string `json:"versions"`
	Missing  []string          `json:"missing,omitempty"`
}

func newAbout(quick bool) about {
	return about{Date: time.Now().UTC().Format(time.DateOnly), Commit: commit(), Kernel: kernel(),
		CPU: fmt.Sprintf("%d CPUs (%s)", runtime.NumCPU(), model()), Go: runtime.Version(), Quick: quick, RealTime: realTime(), Versions: map[string]string{}}
}

// realTime says whether we run with a real-time policy, which what we start
// inherits (sched(7)).
func realTime() bool {
	policy, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	return errno == 0 && (policy == unix.SCHED_FIFO || policy == unix.SCHED_RR)
}

// line is said above each table, for each may be of another day.
func (a about) line(row string) string {
	command := "go run ./bench -only " + row
	if a.Quick {
		command += " -quick"
	}
	text := fmt.Sprintf("*Measured %s at commit %s on %s, %s, %s, by `%s`.", a.Date, a.Commit, a.Kernel, a.CPU, a.Go, command)
	if a.RealTime {
		text += " The harness and all that it starts had a real-time priority (`chrt -r 10`), because the machine had other work."
	}
	if len(a.Missing) > 0 {
		text += " Not installed: " + strings.Join(a.Missing, ", ") + "."
	}
	return text + "*"
}

// named is a line's peer with its version.
func (a about) named(label string) string {
	name, rest, _ := strings.Cut(label, ", ")
	version := a.Versions[name]
	if version == "" || name == "perdure" || strings.HasPrefix(name, "floor") {
		return label
	}
	name += " " + version
	if rest != "" {
		name += ", " + rest
	}
	return name
}

func output(argv ...string) string {
	text, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	return string(bytes.TrimSpace(text))
}

func kernel() string { return output("uname", "-sr") }

// commit is what the checkout holds; what was not committed is told.
func commit() string { return output("git", "describe", "--always", "--dirty", "--exclude=*") }

func model() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// results are the tables that were recorded last, in the order of the rows.
type results struct {
	Tables []*table `json:"tables"`
}

// row returns the table of a row, or an empty one.
func (r results) row(name string) *table {
	for _, t := range r.Tables {
		if t.Row == name {
			return t
		}
	}
	return newTable(name, about{})
}

// put takes a table in the place of the one that was recorded before.
func (r *results) put(t *table) {
	r.Tables = slices.DeleteFunc(r.Tables, func(old *table) bool { return old.Row == t.Row })
	r.Tables = append(r.Tables, t)
	names := rowNames()
	slices.SortStableFunc(r.Tables, func(a, b *table) int { return slices.Index(names, a.Row) - slices.Index(names, b.Row) })
}

func (r results) page() string {
	var b strings.Builder
	b.WriteString("# Results\n\nWritten by the harness in this folder; do not edit. All that stands in one table was measured in one run, interleaved. A figure is\n" +
		"the median of its rounds, unless it says otherwise. A peer that takes long has fewer rounds; " + unknown + " means that it cannot do this,\n" +
		"or that it would have taken too long. `scripts/peers.sh` installs the peers, `go run ./bench` measures everything again.\n")
	for _, t := range r.Tables {
		b.WriteString(t.markdown())
	}
	return b.String()
}

func load(dir string) (results, error) {
	var r results
	text, err := os.ReadFile(filepath.Join(dir, resultsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("cannot read %s: %w", filepath.Join(dir, resultsFile), err)
	}
	return r, nil
}

// record keeps a table in a folder, and leaves those of the other rows.
func record(dir string, t *table) error {
	r, err := load(dir)
	if err != nil {
		return err
	}
	r.put(t)
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, resultsFile), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return renderAll(dir)
}

// renderAll writes the pages from what is recorded in a folder. Only what the
// repository keeps is told in its README.
func renderAll(dir string) error {
	r, err := load(dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, pageFile), []byte(r.page()), 0o644); err != nil {
		return err
	}
	if dir != recordDir {
		return nil
	}
	old, err := os.ReadFile(readmeFile)
	if err != nil {
		return err
	}
	text, err := r.readme(string(old))
	if err != nil {
		return err
	}
	return os.WriteFile(readmeFile, []byte(text), 0o644)
}
