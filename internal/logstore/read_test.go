//go:build unix

package logstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// filled has n lines of stdout in several segments, and every third of stderr.
func filled(t testing.TB, n, perSegment int) (place, *Capture, *Sink) {
	p := newPlace(t)
	c := newCapture(t, p, nil)
	c.keep.settle = time.Millisecond
	s := open(t, c, "web", Retention{MaxFiles: 1000})
	out, errs := ends(t, s)
	for i := range n {
		if i > 0 && i%perSegment == 0 {
			must(t, s.Rotate())
		}
		put(t, s, out, fmt.Sprintf("line %d\n", i))
		if i%3 == 0 {
			put(t, s, errs, fmt.Sprintf("error %d\n", i))
		}
	}
	return p, c, s
}

func pack(t testing.TB, p place) {
	t.Helper()
	must(t, packDir(t.Context(), filepath.Join(p.logs, "web")))
}

func TestTail(t *testing.T) {
	t.Parallel()
	p, _, _ := filled(t, 60, 25)
	for _, packed := range []bool{false, true} {
		if packed {
			pack(t, p)
		}
		for _, stream := range []string{"", "stdout", "stderr"} {
			all := lines(t, p, "web", Query{Lines: -1, Stream: stream})
			for n := 0; n <= len(all)+1; n++ {
				want := all[max(0, len(all)-n):]
				equal(t, texts(lines(t, p, "web", Query{Lines: n, Stream: stream})), texts(want))
			}
		}
	}
}

// A tail of a long log reads its end, not all of it.
func TestTailReadsNoMoreThanItNeeds(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "web")
	must(t, os.MkdirAll(dir, 0o700))
	// A hole of 1 TB: whoever reads it all does not come back.
	f, err := os.Create(segmentPath(dir, 0, ".log"))
	must(t, err)
	const tb = 1 << 40
	_, err = f.WriteAt([]byte("\none\ntwo\nthree\n"), tb)
	if err != nil {
		t.Skip("no sparse files:", err)
	}
	must(t, f.Close())
	equal(t, texts(lines(t, place{logs: filepath.Dir(dir)}, "web", Query{Lines: 2})), "o:two\no:three\n")
}

func TestCursorGoesOnBehindEachLine(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := open(t, newCapture(t, p, nil), "web", Retention{})
	out, errs := ends(t, s)
	put(t, s, errs, "e1 begins, ")
	for i := range 5 {
		put(t, s, out, fmt.Sprintf("o%d\npart ", i))
		if i == 2 {
			must(t, s.Rotate())
		}
	}
	put(t, s, errs, "e1 ends\ne2\n")
	put(t, s, out, "end\n")
	must(t, s.Rotate())
	put(t, s, out, "next\n")
	for _, packed := range []bool{false, true} {
		if packed {
			pack(t, p)
		}
		all := lines(t, p, "web", Query{Lines: -1})
		if len(all) != 9 {
			t.Fatalf("%d lines:\n%s", len(all), texts(all))
		}
		for i, l := range all {
			equal(t, texts(lines(t, p, "web", Query{Cursor: l.cursor})), texts(all[i+1:]))
		}
	}
	for _, bad := range []string{"x", "-", "1-", "ffffffffffffffffff", "1-2-3"} {
		for _, err := range Read(t.Context(), p.logs, "web", Query{Cursor: bad}) {
			if err == nil {
				t.Errorf("the cursor %q is taken", bad)
			}
		}
	}
}

func TestCursorOfRemovedSegments(t *testing.T) {
	t.Parallel()
	p, _, _ := filled(t, 30, 10)
	all := lines(t, p, "web", Query{Lines: -1})
	dir := filepath.Join(p.logs, "web")
	list, err := listSegments(dir)
	must(t, err)
	must(t, removeSegment(dir, list[0].base))
	kept := lines(t, p, "web", Query{Lines: -1})
	if kept[0].text != "line 10" {
		t.Fatal("the oldest is", kept[0].text)
	}
	equal(t, texts(lines(t, p, "web", Query{Cursor: all[3].cursor})), texts(kept))
	// Beyond the end: the logs were removed and begun anew.
	equal(t, texts(lines(t, p, "web", Query{Cursor: "ffffffff"})), texts(kept))
}

func TestSince(t *testing.T) {
	t.Parallel()
	p, _, s := filled(t, 6, 1000)
	out, errs := ends(t, s)
	put(t, s, out, "open since before, ")
	s.mu.Lock()
	edge := time.UnixMicro(s.w.micros).Add(time.Millisecond)
	s.mu.Unlock()
	within(t, "the clock goes on", func() bool { return time.Now().After(edge.Add(time.Millisecond)) })
	put(t, s, out, "ends\nnew\n")
	must(t, s.Rotate())
	put(t, s, errs, "newer\n")
	for _, packed := range []bool{false, true} {
		if packed {
			pack(t, p)
		}
		equal(t, texts(lines(t, p, "web", Query{Since: edge})), "o:new\ne:newer\n")
		equal(t, texts(lines(t, p, "web", Query{Since: edge.Add(time.Hour)})), "")
		if n := len(lines(t, p, "web", Query{Since: edge.Add(-time.Hour)})); n != 6+2+3 {
			t.Fatalf("%d lines since ever", n)
		}
	}
}

func TestLongLinesComeInPieces(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := open(t, newCapture(t, p, nil), "web", Retention{})
	out, _ := ends(t, s)
	piece := strings.Repeat("x", 1<<10)
	for range 2 * 1024 {
		put(t, s, out, piece)
	}
	put(t, s, out, "\n") // exactly two pieces
	put(t, s, out, strings.Repeat("y", 1<<10)+"\n")
	all := lines(t, p, "web", Query{Lines: -1})
	if len(all) != 3 || !all[0].cut || all[1].cut || len(all[0].text) != MaxLine || len(all[1].text) != MaxLine || all[2].text[0] != 'y' {
		t.Fatalf("%d pieces", len(all))
	}
	if rest := lines(t, p, "web", Query{Cursor: all[0].cursor}); len(rest) != 2 || rest[0].text != all[1].text {
		t.Fatal("a cursor inside a long line leads elsewhere")
	}
}

type feed struct {
	lines chan got
	end   context.CancelFunc
	done  chan error
}

func follow(t *testing.T, p place, q Query, names ...string) *feed {
	ctx, cancel := context.WithCancel(t.Context())
	f := &feed{lines: make(chan got, 100000), end: cancel, done: make(chan error, 1)}
	q.Follow = true
	go func() {
		var last error
		give := func(l Line, err error) {
			if last = err; err == nil {
				f.lines <- got{l.Stream, string(l.Text), l.Cursor, l.Cut, l.Time}
			}
		}
		if len(names) == 1 {
			for l, err := range Read(ctx, p.logs, names[0], q) {
				give(l, err)
			}
		} else {
			for l, err := range Merge(ctx, p.logs, names, q) {
				l.Text = []byte(l.Name + " " + string(l.Text))
				give(l.Line, err)
			}
		}
		f.done <- last
	}()
	t.Cleanup(func() {
		cancel()
		must(t, <-f.done)
	})
	return f
}

func (f *feed) next(t *testing.T, want string) got {
	t.Helper()
	select {
	case l := <-f.lines:
		if l.text != want {
			t.Fatalf("have %q, want %q", l.text, want)
		}
		return l
	case <-time.After(60 * time.Second):
		t.Fatalf("%q never came", want)
	}
	panic("unreachable")
}

func TestFollowFromNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	f := follow(t, p, Query{Lines: -1}, "web") // nothing of it exists, not even the directories
	c := newCapture(t, p, nil)
	s := open(t, c, "web", Retention{})
	out, errs := ends(t, s)
	write(t, out, "first\nsec")
	f.next(t, "first")
	write(t, errs, "err\n")
	f.next(t, "err")
	write(t, out, "ond\n")
	f.next(t, "second")
	must(t, s.Rotate())
	write(t, out, "third\n")
	f.next(t, "third")
	must(t, s.Reopen())
	write(t, out, "fourth")
	must(t, s.Drain())
	f.next(t, "fourth")
	must(t, c.Remove("web"))
	s = open(t, c, "web", Retention{})
	out, _ = ends(t, s)
	write(t, out, "of a new life\n")
	f.next(t, "of a new life")
}

func TestFollowBeginsWithTheOpenLine(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := open(t, newCapture(t, p, nil), "web", Retention{})
	out, _ := ends(t, s)
	put(t, s, out, "1\n2\n3\nop")
	f := follow(t, p, Query{Lines: 2}, "web")
	f.next(t, "2")
	f.next(t, "3")
	write(t, out, "en\n")
	f.next(t, "open")
}

// Keeps out N23.
func TestFollowAFloodAcrossRotationAndPacking(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := newCapture(t, p, nil)
	c.keep.settle = time.Millisecond
	s := open(t, c, "web", Retention{MaxSize: 64 << 10, MaxFiles: 1000, Compress: true})
	out, errs := ends(t, s)
	f := follow(t, p, Query{Lines: -1, Stream: "stdout"}, "web")
	const n = 20000
	cmd := helper(t, "lines", fmt.Sprint("COUNT=", n))
	cmd.Stdout, cmd.Stderr = out, errs
	must(t, cmd.Run())
	for i := range n {
		f.next(t, strings.TrimSuffix(numbered("o", i), "\n"))
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := newCapture(t, p, nil)
	var outs [3]*os.File
	names := []string{"a", "b", "c"}
	for round := range 2 {
		for i, n := range names[:2] {
			if round == 0 {
				s := open(t, c, n, Retention{})
				outs[i], _ = ends(t, s)
			}
			c.mu.Lock()
			s := c.sinks[n]
			c.mu.Unlock()
			s.mu.Lock()
			if s.w != nil {
				s.w.micros = 0 // let the times differ
			}
			s.mu.Unlock()
			now := time.Now()
			within(t, "the clock goes on", func() bool { return time.Since(now) > 2*time.Millisecond })
			put(t, s, outs[i], fmt.Sprintf("%d\n", round))
		}
	}
	f := follow(t, p, Query{Lines: -1}, names...)
	for _, want := range []string{"a 0", "b 0", "a 1", "b 1"} {
		f.next(t, want)
	}
	outs[2], _ = ends(t, open(t, c, "c", Retention{}))
	write(t, outs[2], "late\n")
	f.next(t, "c late")
	write(t, outs[0], "more\n")
	f.next(t, "a more")
	for _, err := range Merge(t.Context(), p.logs, names, Query{Cursor: "1"}) {
		if err == nil {
			t.Fatal("one cursor for three processes is taken")
		}
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	p, c, _ := filled(t, 30, 10)
	must(t, c.Close())
	dir := filepath.Join(p.logs, "web")
	list, err := listSegments(dir)
	must(t, err)
	want := len(lines(t, p, "web", Query{Lines: -1}))
	idx := segmentPath(dir, list[1].base, ".idx")
	good, err := os.ReadFile(idx)
	must(t, err)
	for name, bad := range map[string][]byte{
		"none": nil, "cut": good[:len(good)/2+5], "zero": make([]byte, len(good)),
		"garbage": []byte(strings.Repeat("\xff\x00\x13garbage", 99)), "twice": append(good[:len(good):len(good)], good...),
	} {
		must(t, os.WriteFile(idx, bad, 0o600))
		all := lines(t, p, "web", Query{Lines: -1})
		joined := texts(all)
		for i := range 30 {
			if !strings.Contains(joined, fmt.Sprintf("line %d", i)) {
				t.Errorf("index %s: line %d is not readable", name, i)
			}
		}
		lines(t, p, "web", Query{Lines: 5})
		lines(t, p, "web", Query{Since: time.Now().Add(-time.Hour)})
	}
	must(t, os.Remove(idx))
	if n := len(lines(t, p, "web", Query{Lines: -1})); n != want {
		t.Errorf("without an index %d lines, with it %d", n, want)
	}
	// A packed segment with a damaged end: one error, and on behind it.
	pack(t, p)
	gz := segmentPath(dir, list[1].base, ".log.gz")
	st, err := os.Stat(gz)
	must(t, err)
	must(t, os.Truncate(gz, st.Size()-9))
	failed, last := 0, ""
	for l, err := range Read(t.Context(), p.logs, "web", Query{Lines: -1}) {
		if err != nil {
			failed++
		} else {
			last = string(l.Text)
		}
	}
	if failed != 1 || last != "line 29" {
		t.Errorf("%d errors, the last line is %q", failed, last)
	}
}

// Whatever was written in whatever pieces, with rotations and ends of
// generations between, comes back once and in order, from every cursor.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p := place{logs: filepath.Join(t.TempDir(), "logs"), run: filepath.Join(t.TempDir(), "run")}
		c, err := NewCapture(Options{LogDir: p.logs, RunDir: p.run})
		must(t, err)
		s := open(t, c, "web", Retention{MaxSize: 4096, MaxFiles: 1000})
		out, errs, err := s.ChildEnds()
		must(t, err)
		files := [2]*os.File{out, errs}
		var want, have [2]string
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			st := rapid.IntRange(0, 1).Draw(rt, "stream")
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0:
				must(t, s.Rotate())
			case 1:
				must(t, s.Drain())
				for i := range want {
					if want[i] != "" && !strings.HasSuffix(want[i], "\n") {
						want[i] += "\n"
					}
				}
			case 2:
				must(t, c.Close())
				c, err = NewCapture(Options{LogDir: p.logs, RunDir: p.run})
				must(t, err)
				s = open(t, c, "web", Retention{MaxSize: 4096, MaxFiles: 1000})
			case 3:
				pack(t, p)
			default:
				text := rapid.StringMatching(`[a-z\n]{1,9}`).Draw(rt, "text")
				if rapid.Bool().Draw(rt, "long") {
					text += strings.Repeat("z", rapid.IntRange(0, 3000).Draw(rt, "n"))
				}
				put(t, s, files[st], text)
				want[st] += text
			}
		}
		all := lines(t, p, "web", Query{Lines: -1})
		for i, l := range all {
			k := 0
			if l.stream == "stderr" {
				k = 1
			}
			have[k] += l.text
			if !l.cut {
				have[k] += "\n"
			}
			equal(rt, texts(lines(t, p, "web", Query{Cursor: l.cursor})), texts(all[i+1:]))
		}
		for i := range want {
			equal(rt, have[i], want[i])
		}
		n := rapid.IntRange(0, len(all)).Draw(rt, "tail")
		equal(rt, texts(lines(t, p, "web", Query{Lines: n})), texts(all[len(all)-n:]))
		must(t, c.Close())
		out.Close()
		errs.Close()
	})
}

// The last lines are whole though one began segments ago, and segments that are
// packed or full of the other stream lie between. Found by TestAnyHistory.
func TestTailOfALineThatBeganLongAgo(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]string{"small": "\n", "large": strings.Repeat("x\n", 3*MaxLine/4)} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, packed %v", name, packed), func(t *testing.T) {
				t.Parallel()
				p := place{logs: filepath.Join(t.TempDir(), "logs"), run: filepath.Join(t.TempDir(), "run")}
				c, err := NewCapture(Options{LogDir: p.logs, RunDir: p.run})
				must(t, err)
				s := open(t, c, "web", Retention{MaxSize: 16 << 20, MaxFiles: 1000})
				out, errs, err := s.ChildEnds()
				must(t, err)
				put(t, s, errs, between)
				put(t, s, out, "first\nbegun")
				must(t, s.Rotate())
				put(t, s, errs, "a\n")
				must(t, s.Rotate())
				put(t, s, out, ", goes on")
				put(t, s, errs, "b\nc\n")
				if packed {
					pack(t, p)
				}
				put(t, s, out, " and ends\n")
				must(t, s.Drain())
				for n, want := range []string{"", "begun, goes on and ends"} {
					got := lines(t, p, "web", Query{Lines: n})
					if len(got) != n || n > 0 && got[0].text != want {
						t.Errorf("the last %d: %q", n, texts(got))
					}
				}
				if got := lines(t, p, "web", Query{Lines: 4}); len(got) != 4 || got[3].text != "begun, goes on and ends" || got[0].text != "a" {
					t.Errorf("the last 4: %q", texts(got))
				}
				must(t, c.Close())
				out.Close()
				errs.Close()
			})
		}
	}
}

// FuzzIndex reads a segment with any index and any data: no panic, no endless
// reading, and no byte invented.
func FuzzIndex(f *testing.F) {
	f.Add([]byte("a\nb\n"), entry{tag: tagStdout, micros: 1}.append(nil), "2-1")
	f.Add([]byte("a\nb\n"), entry{off: 2, tag: tagBreak}.append(entry{tag: tagStderr}.append(nil)), "0")
	r := rand.New(rand.NewPCG(1, 2))
	var junk []byte
	for range 999 {
		junk = append(junk, byte(r.Uint32()))
	}
	f.Add(junk, junk, "ff")
	f.Fuzz(func(t *testing.T, data, idx []byte, cursor string) {
		dir := filepath.Join(t.TempDir(), "web")
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.WriteFile(segmentPath(dir, 0, ".log"), data, 0o600))
		must(t, os.WriteFile(segmentPath(dir, 0, ".idx"), idx, 0o600))
		for _, q := range []Query{{Lines: -1}, {Lines: 3}, {Lines: 2, Stream: "stderr"}, {Cursor: cursor}, {Since: time.UnixMicro(5)}} {
			total := 0
			for l, err := range Read(t.Context(), filepath.Dir(dir), "web", q) {
				if err != nil {
					break
				}
				total += len(l.Text)
			}
			if total > len(data) {
				t.Fatalf("%+v: %d bytes of %d", q, total, len(data))
			}
		}
		w, err := openWriter(dir, 0)
		must(t, err)
		w.close()
	})
}
