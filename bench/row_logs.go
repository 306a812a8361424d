//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// floors are the ways to get bytes from a pipe into a file.
var floors = []struct {
	name string
	move func(to, from *os.File) error
}{{"floor: read and write", readWrite}, {"floor: splice", splice}}

// measureLogs lets one program write numbered lines as fast as it can and
// waits until the supervisor has them in its files.
func measureLogs(ctx context.Context, b *bench, t *table, limit time.Duration) error {
	t.describe("Log capture",
		"One program writes numbered lines of 100 bytes as fast as the supervisor takes them; MB/s of these lines until all of them are in\n"+
			"the supervisor's file. As many lines as take it about a second and a half, as a first round tells, which does not count.\n"+
			"Lost and doubled lines are counted in the files afterwards; the worst of all rounds is told.",
		column{Name: "MB/s"}, column{Name: "lines"}, column{Name: "lost", Fold: worst}, column{Name: "doubled", Fold: worst})
	t.Ratio, t.Base = "MB/s", "floor: read and write"
	lines := map[string]int{}
	span := 1.5
	if b.quick {
		span = 0.5
	}
	// next is how many lines the next round has, by the rate of this one.
	next := func(name string, rate float64) {
		lines[name] = min(max(int(rate*1e6/100*span), 1_000_000), 20_000_000)
	}
	return b.interleave(ctx, t, turns{b.rounds + 1, limit}, func(ctx context.Context, p peer, round int) error {
		// The floors have their turn with ours: who cannot capture has only one.
		if _, ours := p.(*perdurePeer); ours {
			for _, f := range floors {
				n := max(lines[f.name], 1_000_000)
				rate, err := b.pipeToFile(ctx, t, f.name, n, f.move, round > 0)
				if err != nil {
					return err
				}
				next(f.name, rate)
			}
		}
		rate, err := b.captured(ctx, t, p, max(lines[p.name()], 1_000_000), round > 0)
		if err == nil {
			next(p.name(), rate)
		}
		return err
	})
}

func readWrite(to, from *os.File) error {
	buf := make([]byte, 1<<20)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func splice(to, from *os.File) error {
	for {
		n, err := unix.Splice(int(from.Fd()), nil, int(to.Fd()), nil, 1<<20, unix.SPLICE_F_MOVE)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

// pipeToFile is the floor: a pipe as large as we may make it, and a file.
func (b *bench) pipeToFile(ctx context.Context, t *table, name string, lines int, move func(to, from *os.File) error, counts bool) (float64, error) {
	path := filepath.Join(b.dir, "floor.out")
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if _, err := unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.note("floor: the pipe stays small: %v", err)
	}
	cmd := exec.CommandContext(ctx, b.tools.child, b.world.path, "floor/p", "lines", strconv.Itoa(lines))
	cmd.Stdout = w
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	w.Close()
	moved := make(chan error, 1)
	go func() { moved <- move(file, r) }()
	_, err = b.world.next(ctx, "floor/p.done", 2*time.Minute)
	_ = cmd.Process.Kill() // it only rests now; its end closes the pipe
	_ = cmd.Wait()
	if err := errors.Join(err, <-moved); err != nil {
		return 0, err
	}
	rate := float64(lines) * 100 / 1e6 / time.Since(begun).Seconds()
	return rate, t.addLines(name, []string{path}, lines, rate, counts)
}

// addLines counts the lines in the files; the rate is told when it counts.
func (t *table) addLines(name string, files []string, lines int, rate float64, counts bool) error {
	lost, doubled, err := count(files, lines)
	if err != nil {
		return err
	}
	t.add(name, "lost", float64(lost))
	t.add(name, "doubled", float64(doubled))
	if counts {
		t.add(name, "MB/s", rate)
		t.add(name, "lines", float64(lines))
	}
	return nil
}

func (b *bench) captured(ctx context.Context, t *table, p peer, lines int, counts bool) (float64, error) {
	in, err := b.incarnate(p, 1, "lines", strconv.Itoa(lines))
	if err != nil {
		return 0, err
	}
	in.setup.logs = true
	if err := in.begin(ctx); err != nil {
		in.clean()
		return 0, err
	}
	defer in.end(ctx)
	name := in.names()[0]
	begun, err := b.world.next(ctx, name, 30*time.Second)
	if err != nil {
		return 0, err
	}
	if _, err := b.world.next(ctx, name+".done", 2*time.Minute); err != nil {
		return 0, err
	}
	files := func() []string { return p.logFiles(in, in.setup.programs[0].name) }
	at := b.settled(ctx, files, int64(lines)*100)
	rate := float64(lines) * 100 / 1e6 / at.Sub(begun.at).Seconds()
	return rate, t.addLines(p.name(), files(), lines, rate, counts)
}

// settled waits until the files hold all bytes, or have not grown for two
// seconds, and says when they had grown last. A file that somebody else writes
// gives no signal of its completeness, so this looks every millisecond.
func (b *bench) settled(ctx context.Context, files func() []string, want int64) time.Time {
	size, at := int64(-1), time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && size < want && time.Since(at) < 2*time.Second {
		sum := int64(0)
		for _, f := range files() {
			if st, err := os.Stat(f); err == nil {
				sum += st.Size()
			}
		}
		if sum > size {
			size, at = sum, time.Now()
		}
		<-tick.C
	}
	return at
}

// numbered finds our lines, whatever the supervisor has put before them.
var numbered = regexp.MustCompile(`([0-9]{10}) x{88}`)

// count counts the numbers that are missing and those that came again.
func count(files []string, lines int) (lost, doubled int, err error) {
	if len(files) == 0 {
		return lines, 0, errors.New("there is no log file")
	}
	seen := make([]uint8, lines)
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return 0, 0, fmt.Errorf("cannot count the lines: %w", err)
		}
		s := bufio.NewScanner(bufio.NewReaderSize(f, 1<<20))
		for s.Scan() {
			if i, ok := number(s.Bytes()); ok && i < lines && seen[i] < 255 {
				seen[i]++
			}
		}
		f.Close()
		if err := s.Err(); err != nil {
			return 0, 0, err
		}
	}
	for _, n := range seen {
		if n == 0 {
			lost++
		} else {
			doubled += int(n) - 1
		}
	}
	return lost, doubled, nil
}

// number reads a line's number; the pattern is only asked where the line does
// not end as ours do, because it is slow.
func number(line []byte) (int, bool) {
	if len(line) < 99 {
		return 0, false
	}
	own := line[len(line)-99:]
	if own[10] != ' ' || own[11] != 'x' || own[98] != 'x' {
		m := numbered.FindSubmatch(line)
		if m == nil {
			return 0, false
		}
		own = m[1]
	}
	n := 0
	for _, c := range own[:10] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
