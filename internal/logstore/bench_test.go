//go:build linux

package logstore

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

const benchMB = 256

// BenchmarkCapture compares with BenchmarkFloor: the same writer, through the
// capture with its index and rotation.
func BenchmarkCapture(b *testing.B) {
	p := newPlace(b)
	s := open(b, newCapture(b, p, nil), "web", Retention{})
	out, _ := ends(b, s)
	b.SetBytes(benchMB << 20)
	for b.Loop() {
		cmd := helper(b, "bulk", fmt.Sprint("MB=", benchMB))
		cmd.Stdout = out
		must(b, cmd.Run())
		must(b, s.Drain())
	}
}

// BenchmarkFloor splices a plain pipe to one file.
func BenchmarkFloor(b *testing.B) {
	name := filepath.Join(b.TempDir(), "floor")
	b.SetBytes(benchMB << 20)
	for b.Loop() {
		r, w, err := os.Pipe()
		must(b, err)
		f, err := os.Create(name)
		must(b, err)
		cmd := helper(b, "bulk", fmt.Sprint("MB=", benchMB))
		cmd.Stdout = w
		must(b, cmd.Start())
		w.Close()
		for {
			n, err := unix.Splice(int(r.Fd()), nil, int(f.Fd()), nil, 1<<20, 0)
			if err == unix.EINTR {
				continue
			}
			must(b, err)
			if n == 0 {
				break
			}
		}
		must(b, cmd.Wait())
		r.Close()
		f.Close()
	}
}

// BenchmarkIdleSinks tells what 1000 idle Sinks cost on the heap.
func BenchmarkIdleSinks(b *testing.B) {
	for b.Loop() {
		p := newPlace(b)
		c, err := NewCapture(Options{LogDir: p.logs, RunDir: p.run})
		must(b, err)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range 1000 {
			open(b, c, fmt.Sprint("p", i), Retention{})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1000, "B/sink")
		must(b, c.Close())
	}
}
