//go:build linux

// Command bench measures Perdure, other supervisors that are installed
// (scripts/peers.sh), and the floor: the least that a Go and a C program can
// do. All of a table is measured in one run, interleaved.
//
//	go run ./bench                     all rows, up to five rounds of each, about 25 minutes
//	go run ./bench -only restart,logs  some rows; the others stay as they were recorded
//	go run ./bench -quick              smaller numbers, less than five minutes
//	go run ./bench -peers perdure,floor-go -out -
//	go run ./bench -render             write the pages again from what is recorded
//
// What is measured is kept in results.json in the folder that -out names;
// RESULTS.md beside it and, for bench itself, the tables of README.md are
// written from that.
//
// It starts everything in a folder of its own, marks what it starts with an
// environment variable, and kills nothing else.
package main

import (
	"context"
	"errors"
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

// row is one thing to be measured, for each peer that can do it. What a peer
// cannot do within its share of the time has fewer rounds.
type row struct {
	name        string
	time, quick time.Duration
	measure     func(context.Context, *bench, *table, time.Duration) error
}

func allRows() []row {
	return []row{
		{"restart", 3 * time.Minute, 45 * time.Second, measureRestart},
		{"many", 6 * time.Minute, 75 * time.Second, measureMany},
		{"logs", 4 * time.Minute, 40 * time.Second, measureLogs},
		{"stop", 2 * time.Minute, 25 * time.Second, measureStop},
		{"checks", 3 * time.Minute, 30 * time.Second, measureChecks},
		{"survival", 4 * time.Minute, 50 * time.Second, measureSurvival},
		{"recovery", time.Minute, 15 * time.Second, measureRecovery},
	}
}

func rowNames() []string {
	var names []string
	for _, r := range allRows() {
		names = append(names, r.name)
	}
	return names
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	quick := flag.Bool("quick", false, "smaller numbers; less than five minutes")
	rounds := flag.Int("rounds", 5, "interleaved rounds of each row, where a peer is not too slow for them")
	only := flag.String("only", "", "rows, separated by commas: "+strings.Join(rowNames(), ", ")+" (default: all)")
	peers := flag.String("peers", "", "names, separated by commas (default: all that are installed)")
	perdure := flag.String("perdure", "bin/perdure", "the binary to measure")
	out := flag.String("out", "", "the folder of results.json and RESULTS.md; - writes nothing (default: bench, with -quick bin/bench)")
	keep := flag.Bool("keep", false, "keep the working folder")
	render := flag.Bool("render", false, "measure nothing; write the pages from results.json again")
	flag.Parse()
	if *out == "" {
		*out = recordDir
		if *quick {
			*out = filepath.Join("bin", "bench")
		}
	}
	if *render {
		return renderAll(*out)
	}
	rows, err := chosenRows(*only)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{quick: *quick, rounds: *rounds}
	if b.perdure, err = filepath.Abs(*perdure); err != nil {
		return err
	}
	end, err := b.prepare(ctx, *keep)
	defer end()
	if err != nil {
		return err
	}
	about := newAbout(*quick)
	b.peers = choose(ctx, b, *peers, &about)
	return b.measureAll(ctx, rows, about, *out)
}

func chosenRows(only string) ([]row, error) {
	if only == "" {
		return allRows(), nil
	}
	var rows []row
	for name := range strings.SplitSeq(only, ",") {
		i := slices.Index(rowNames(), name)
		if i < 0 {
			return nil, fmt.Errorf("there is no row %q, only %s", name, strings.Join(rowNames(), ", "))
		}
		rows = append(rows, allRows()[i])
	}
	return rows, nil
}

// prepare makes the working folder and what every row needs.
func (b *bench) prepare(ctx context.Context, keep bool) (end func(), err error) {
	raiseFiles()
	end = func() {}
	if err := lookFirst(filepath.Join("bin", "peers")); err != nil {
		return end, err
	}
	if b.dir, err = os.MkdirTemp("", "perdure-bench-"); err != nil {
		return end, err
	}
	end = func() {
		if b.world != nil {
			b.world.close()
		}
		if !keep {
			_ = os.RemoveAll(b.dir) // it is in the folder for temporary files
		}
	}
	// Some peers drop their rights; they must be able to reach the programs.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return end, err
	}
	if b.tools, err = buildTools(ctx, b.dir); err != nil {
		return end, err
	}
	b.world, err = newWorld(filepath.Join(b.dir, "sock"))
	return end, err
}

// measureAll records each row as soon as it is measured: what comes later may
// fail.
func (b *bench) measureAll(ctx context.Context, rows []row, about about, out string) error {
	var failed error
	for _, r := range rows {
		start := time.Now()
		fmt.Fprintf(os.Stderr, "== %s\n", r.name)
		t := newTable(r.name, about)
		limit := r.time
		if b.quick {
			limit = r.quick
		}
		err := r.measure(ctx, b, t, limit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("cannot measure %s: %w", r.name, err))
			continue
		}
		fmt.Fprintf(os.Stderr, "-- %s took %s\n", r.name, time.Since(start).Round(time.Second))
		fmt.Fprint(os.Stdout, t.markdown())
		if out == "-" {
			continue
		}
		if err := record(out, t); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// choose takes the peers that are asked for and installed.
func choose(ctx context.Context, b *bench, names string, about *about) []peer {
	var out []peer
	for _, p := range allPeers(b) {
		if names != "" && !slices.Contains(strings.Split(names, ","), p.name()) {
			continue
		}
		version, err := p.find(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v; not measured\n", p.name(), err)
			about.Missing = append(about.Missing, p.name())
			continue
		}
		about.Versions[p.name()] = version
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
