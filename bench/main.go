//go:build linux

// Command bench measures Perdure, other supervisors that are installed, and the
// floor (the least that a Go and a C program can do) in one run, interleaved,
// and writes medians and ratios to bench/RESULTS.md.
//
//	go run ./bench                     all rows, five rounds
//	go run ./bench -quick              smaller numbers, less than five minutes
//	go run ./bench -only restart,logs  some rows
//	go run ./bench -peers perdure,floor-go
//
// It starts everything in a folder of its own, marks what it starts with an
// environment variable, and kills nothing else.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	quick   bool
	rounds  int
	perdure string
	dir     string
	tools   tools
	world   *world
	peers   []peer
	serial  int
}

// row is one thing to be measured, for each peer that can do it.
type row struct {
	name    string
	measure func(context.Context, *bench) (*table, error)
}

func allRows() []row {
	return []row{
		{"restart", measureRestart},
		{"many", measureMany},
		{"logs", measureLogs},
		{"stop", measureStop},
		{"checks", measureChecks},
		{"crash", measureCrash},
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	quick := flag.Bool("quick", false, "smaller numbers; less than five minutes")
	rounds := flag.Int("rounds", 5, "interleaved rounds of each row")
	only := flag.String("only", "", "rows, separated by commas: restart, many, logs, stop, checks, crash (default: all)")
	peers := flag.String("peers", "", "names, separated by commas (default: all that are installed)")
	perdure := flag.String("perdure", "bin/perdure", "the binary to measure")
	out := flag.String("out", "bench/RESULTS.md", "the file to write; - for standard output only")
	keep := flag.Bool("keep", false, "keep the working folder")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	raiseFiles()
	if err := lookFirst("bin/peers"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "perdure-bench-")
	if err != nil {
		return err
	}
	if !*keep {
		defer os.RemoveAll(dir)
	}
	// Some peers drop their rights; they must be able to reach the programs.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b := &bench{quick: *quick, rounds: *rounds, dir: dir}
	if b.perdure, err = filepath.Abs(*perdure); err != nil {
		return err
	}
	if b.tools, err = buildTools(ctx, dir); err != nil {
		return err
	}
	if b.world, err = newWorld(filepath.Join(dir, "sock")); err != nil {
		return err
	}
	defer b.world.close()

	rep := newReport(*quick)
	b.peers = choose(ctx, b, *peers, rep)
	for _, r := range allRows() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), r.name) {
			continue
		}
		start := time.Now()
		fmt.Fprintf(os.Stderr, "== %s\n", r.name)
		t, err := r.measure(ctx, b)
		if err != nil {
			return fmt.Errorf("cannot measure %s: %w", r.name, err)
		}
		fmt.Fprintf(os.Stderr, "-- %s took %s\n", r.name, time.Since(start).Round(time.Second))
		rep.add(t)
		fmt.Fprint(os.Stdout, t.markdown())
		if *out == "-" {
			continue
		}
		// After each row: an hour of measuring is not lost to what comes last.
		if err := os.WriteFile(*out, []byte(rep.markdown()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// choose takes the peers that are asked for and installed.
func choose(ctx context.Context, b *bench, names string, rep *report) []peer {
	var out []peer
	for _, p := range allPeers(b) {
		if names != "" && !slices.Contains(strings.Split(names, ","), p.name()) {
			continue
		}
		version, err := p.find(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v; not measured\n", p.name(), err)
			rep.missing = append(rep.missing, p.name())
			continue
		}
		rep.versions = append(rep.versions, p.name()+" "+version)
		out = append(out, p)
	}
	return out
}

// lookFirst has commands looked up in a folder before the rest of the PATH;
// scripts/peers.sh installs peers there.
func lookFirst(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	return os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// raiseFiles lets us hold a pidfd of each of a thousand programs, and lets the
// peers hold their pipes.
func raiseFiles() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) // the many row says if it was not enough
	}
}
