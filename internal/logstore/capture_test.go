//go:build unix

package logstore

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFloodWithRotationAndCompression(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := newCapture(t, p, func(n string, err error) { t.Errorf("%s: %v", n, err) })
	c.keep.settle = time.Millisecond
	s := open(t, c, "web", Retention{MaxSize: 64 << 10, MaxFiles: 10000, Compress: true})
	out, errs := ends(t, s)
	const n = 50000
	cmd := helper(t, "lines", fmt.Sprint("COUNT=", n))
	cmd.Stdout, cmd.Stderr = out, errs
	must(t, cmd.Run())
	must(t, s.Drain())
	checkNumbered(t, p, "web", n)
	within(t, "all closed segments are packed", func() bool {
		list, err := listSegments(filepath.Join(p.logs, "web"))
		must(t, err)
		for _, g := range list[:len(list)-1] {
			if !g.gz || g.plain {
				return false
			}
		}
		return len(list) > 10
	})
	checkNumbered(t, p, "web", n)
}

// The point of splice: whoever captures may be killed at any instant.
func TestKilledCaptureLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	must(t, os.MkdirAll(p.run, 0o700))
	for i := range 2 {
		fd, err := openFIFO(fifoPath(p.run, "web", i))
		must(t, err)
		f := os.NewFile(uintptr(fd), "fifo")
		defer f.Close()
	}
	var pipes [2]*os.File
	for i := range pipes {
		f, err := os.OpenFile(fifoPath(p.run, "web", i), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		pipes[i] = f
	}
	const n = 300000
	w := helper(t, "lines", fmt.Sprint("COUNT=", n))
	w.Stdout, w.Stderr = pipes[0], pipes[1]
	must(t, w.Start())
	exited := make(chan error, 1)
	go func() { exited <- w.Wait() }()

	kills := 0
	for done := false; !done; kills++ {
		cmd := helper(t, "capture", "LOGS="+p.logs, "RUN="+p.run)
		cmd.Stderr = os.Stderr
		said, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		if _, err := bufio.NewReader(said).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-exited:
			must(t, err)
			done = true
		case <-time.After(time.Duration(kills%17) * time.Millisecond):
		}
		kill(t, cmd)
	}
	c := newCapture(t, p, nil)
	must(t, open(t, c, "web", Retention{MaxSize: 256 << 10, MaxFiles: 1000}).Drain())
	checkNumbered(t, p, "web", n)
	t.Logf("killed %d times", kills)
}

func TestLinesAreJoinedPerStream(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := open(t, newCapture(t, p, nil), "web", Retention{})
	out, errs := ends(t, s)
	put(t, s, out, "one ha")
	put(t, s, errs, "warn")
	put(t, s, out, "lf\ntwo \xc3")
	must(t, s.Rotate())
	put(t, s, errs, "ing\n")
	put(t, s, out, "\xa9\n\nlast")
	equal(t, texts(lines(t, p, "web", Query{Lines: -1})), "o:one half\ne:warning\no:two é\no:\no:last+\n")
	equal(t, texts(lines(t, p, "web", Query{Lines: -1, Stream: "stderr"})), "e:warning\n")
	must(t, s.Drain()) // the process ends, the next one is no continuation
	put(t, s, out, "new\n")
	equal(t, texts(lines(t, p, "web", Query{Lines: 2})), "o:last\no:new\n")
}

func TestLineGoesOnInTheNextCapture(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := newCapture(t, p, nil)
	s := open(t, c, "web", Retention{})
	out, errs := ends(t, s)
	put(t, s, out, "be")
	put(t, s, errs, "x")
	must(t, c.Close())
	write(t, out, "gun\n")
	s = open(t, newCapture(t, p, nil), "web", Retention{})
	must(t, stored(s))
	put(t, s, errs, "y\n")
	equal(t, texts(lines(t, p, "web", Query{Lines: -1})), "o:begun\ne:xy\n")
}

func TestRotationKeepsTheCap(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := open(t, newCapture(t, p, nil), "web", Retention{MaxSize: 4096, MaxFiles: 2})
	out, errs := ends(t, s)
	for i := range 2000 { // one byte each way: the worst case for the index
		put(t, s, out, "a")
		put(t, s, errs, "b")
		if i%100 == 0 {
			var total int64
			files, err := os.ReadDir(filepath.Join(p.logs, "web"))
			must(t, err)
			for _, f := range files {
				st, err := f.Info()
				must(t, err)
				if st.Mode().IsRegular() {
					total += st.Size()
					if st.Mode().Perm() != 0o600 {
						t.Fatalf("%s has mode %v", f.Name(), st.Mode())
					}
				}
			}
			if total > 3*2*4096 {
				t.Fatalf("the log takes %d bytes", total)
			}
		}
	}
}

func TestRemovedAndCutFiles(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := open(t, newCapture(t, p, nil), "web", Retention{})
	out, _ := ends(t, s)
	put(t, s, out, "one\n")
	must(t, os.RemoveAll(filepath.Join(p.logs, "web")))
	s.mu.Lock()
	s.w.looked = 0 // the second has passed
	s.w.micros = 0
	s.mu.Unlock()
	put(t, s, out, "two\n")
	equal(t, texts(lines(t, p, "web", Query{Lines: -1})), "o:two\n")
	must(t, os.Truncate(filepath.Join(p.logs, "web", "current.log"), 0))
	s.mu.Lock()
	s.w.looked = 0
	s.mu.Unlock()
	put(t, s, out, "three\n")
	equal(t, texts(lines(t, p, "web", Query{Lines: 1})), "o:three\n")
	must(t, s.Reopen())
	put(t, s, out, "four\n")
	equal(t, texts(lines(t, p, "web", Query{Lines: 2})), "o:three\no:four\n")
}

func TestTrouble(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	told := make(chan error, 10)
	c := newCapture(t, p, func(_ string, err error) { told <- err })
	s := open(t, c, "web", Retention{})
	other := open(t, c, "other", Retention{})
	out, _ := ends(t, s)
	// A file where the directory should be: nothing can be stored.
	must(t, os.WriteFile(filepath.Join(p.logs, "web"), nil, 0o600))
	write(t, out, "kept\n")
	if err := <-told; err == nil {
		t.Fatal("no error was told")
	}
	if err := s.Drain(); err == nil {
		t.Fatal("Drain hides that nothing could be stored")
	}
	oo, _ := ends(t, other)
	put(t, other, oo, "free\n")
	equal(t, texts(lines(t, p, "other", Query{Lines: -1})), "o:free\n")
	must(t, os.Remove(filepath.Join(p.logs, "web")))
	if err := <-told; err != nil {
		t.Fatal("told twice:", err)
	}
	equal(t, texts(lines(t, p, "web", Query{Lines: -1})), "o:kept\n")
}

// What cannot be stored is discarded where that is the policy: the child never
// waits, the bytes are counted, and the line that was cut is no part of the next.
func TestDrop(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	told := make(chan Trouble, 10)
	c, err := NewCapture(Options{LogDir: p.logs, RunDir: p.run, OnTrouble: func(_ string, tr Trouble) { told <- tr },
		OnError: func(name string, err error) { t.Errorf("%s: %v", name, err) }})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	s := open(t, c, "web", Retention{Drop: true})
	out, errs := ends(t, s)
	// A file where the directory should be: nothing can be stored.
	must(t, os.WriteFile(filepath.Join(p.logs, "web"), nil, 0o600))
	write(t, out, "a\nbc")
	if tr := <-told; tr.Err == nil || !tr.Drops {
		t.Fatalf("told %+v", tr)
	}
	more := strings.Repeat("x", 3<<20) // more than any FIFO holds
	write(t, out, more)
	write(t, errs, "warn\n")
	must(t, s.Drain())
	must(t, os.Remove(filepath.Join(p.logs, "web")))
	if tr := <-told; tr.Err != nil || !tr.Drops || tr.Lost != int64(len("a\nbc")+len(more)+len("warn\n")) {
		t.Fatalf("told %+v", tr)
	}
	put(t, s, out, "d\n")
	equal(t, texts(lines(t, p, "web", Query{Lines: -1})), "o:d\n")
}

// The policy is changed while nothing can be stored: a child that waits goes on,
// and one that was not to wait does.
func TestDropIsChangedMeanwhile(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	told := make(chan error, 10)
	s := open(t, newCapture(t, p, func(_ string, err error) { told <- err }), "web", Retention{})
	out, _ := ends(t, s)
	must(t, os.WriteFile(filepath.Join(p.logs, "web"), nil, 0o600))
	write(t, out, "lost\n")
	if err := <-told; err == nil {
		t.Fatal("no error was told")
	}
	s.Configure(Retention{Drop: true})
	write(t, out, strings.Repeat("x", 3<<20)) // it would wait for ever
	must(t, s.Drain())
	s.Configure(Retention{})
	write(t, out, "kept\n")
	must(t, os.Remove(filepath.Join(p.logs, "web")))
	if err := <-told; err != nil {
		t.Fatal("told twice:", err)
	}
	equal(t, texts(lines(t, p, "web", Query{Lines: -1})), "o:kept\n")
}

func TestNamesAndFIFOs(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := newCapture(t, p, nil)
	for _, n := range []string{"", "..", "../x", "a/b", `a\b`, ".hidden", strings.Repeat("x", 201)} {
		if _, err := c.Open(n, Retention{}); err == nil {
			t.Errorf("Open takes %q", n)
		}
		if err := c.Remove(n); err == nil {
			t.Errorf("Remove takes %q", n)
		}
		for _, err := range Read(t.Context(), p.logs, n, Query{}) {
			if err == nil {
				t.Errorf("Read takes %q", n)
			}
		}
	}
	must(t, os.WriteFile(fifoPath(p.run, "file", 0), nil, 0o600))
	if _, err := c.Open("file", Retention{}); err == nil {
		t.Error("a file passes for a FIFO")
	}
	s := open(t, c, "web", Retention{})
	if _, err := c.Open("web", Retention{}); err == nil {
		t.Error("a name can be opened twice")
	}
	out, _ := ends(t, s)
	put(t, s, out, "x\n")
	must(t, c.Remove("web"))
	if _, err := os.Stat(filepath.Join(p.logs, "web")); !errors.Is(err, os.ErrNotExist) {
		t.Error("Remove leaves logs")
	}
	if err := s.Drain(); !errors.Is(err, ErrClosed) {
		t.Error("a removed Sink works on:", err)
	}
	open(t, c, "web", Retention{})
}

// A child writes and ends while nobody captures. What somebody has held is there,
// found again by its name or by what was held, even where the FIFOs' folder is
// gone; without it, it is lost.
func TestHoldKeepsOutputOfTheDead(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{"named": "o:last words\n", "handed": "o:last words\n", "handed, folder gone": "o:last words\n", "not held": ""} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			c := newCapture(t, p, nil)
			s := open(t, c, "web", Retention{})
			out, errs := ends(t, s)
			held, err := s.FIFOs()
			must(t, err)
			must(t, c.Close())
			if how == "not held" {
				closeAll(held)
				held = nil
			}
			write(t, out, "last words\n")
			must(t, errors.Join(out.Close(), errs.Close()))
			if how == "handed, folder gone" {
				must(t, os.RemoveAll(p.run))
			}
			if how == "named" {
				defer closeAll(held)
				held = nil
			}
			s, err = newCapture(t, p, nil).Open("web", Retention{}, held...)
			must(t, err)
			must(t, s.Drain())
			equal(t, texts(lines(t, p, "web", Query{Lines: -1})), want)
			// It goes on with the next generation.
			out, _ = ends(t, s)
			put(t, s, out, "more\n")
			equal(t, texts(lines(t, p, "web", Query{Lines: -1})), want+"o:more\n")
		})
	}
}

func TestWhatIsNoFIFOIsNotTaken(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := newCapture(t, p, nil)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	for _, fd := range []int{-1, int(null.Fd())} {
		if _, err := c.Open("web", Retention{}, fd, fd); err == nil {
			t.Errorf("descriptor %d was taken for a FIFO", fd)
		}
	}
	if _, err := null.Stat(); err != nil {
		t.Error("what was not taken was closed:", err)
	}
	open(t, c, "web", Retention{})
}

func TestMaxAge(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := newCapture(t, p, nil)
	s := open(t, c, "web", Retention{MaxAge: time.Hour})
	out, _ := ends(t, s)
	put(t, s, out, "old\n")
	s.mu.Lock()
	s.w.born -= 2 * time.Hour.Microseconds()
	s.mu.Unlock()
	c.sweep()
	put(t, s, out, "new\n")
	dir := filepath.Join(p.logs, "web")
	list, err := listSegments(dir)
	must(t, err)
	if len(list) != 2 {
		t.Fatalf("%d segments", len(list))
	}
	past := time.Now().Add(-2 * time.Hour)
	must(t, os.Chtimes(segmentPath(dir, list[0].base, ".log"), past, past))
	c.sweep()
	equal(t, texts(lines(t, p, "web", Query{Lines: -1})), "o:new\n")
}
