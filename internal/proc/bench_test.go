//go:build linux

package proc

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// BenchmarkStartExit is a start and the notice of the end, beside what the same
// costs with os/exec. The figure that the restart latency is made of.
func BenchmarkStartExit(b *testing.B) {
	b.Run("os-exec", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	run := func(b *testing.B, o Options, spec Spec) {
		h := testHost(b, o)
		got := make(chan Notice, 1)
		for b.Loop() {
			if _, err := h.Start(spec, func(n Notice) { got <- n }); err != nil {
				b.Fatal(err)
			}
			for n := <-got; !n.Gone; n = <-got {
			}
		}
	}
	spec := Spec{Name: "bench", Argv: []string{"/bin/true"}, Marker: "PERDURE_ID=b", Env: append(os.Environ(), "PERDURE_ID=b")}
	b.Run("host", func(b *testing.B) { run(b, Options{}, spec) })
	b.Run("host-cgroup", func(b *testing.B) { run(b, withCgroup(b), spec) })
	mask := 022
	shim := spec
	shim.Umask = &mask
	b.Run("host-shim", func(b *testing.B) { run(b, Options{}, shim) })
	if os.Getenv("PROC_BENCH_SUBREAPER") != "" { // it takes all children of this process
		b.Run("host-subreaper", func(b *testing.B) { run(b, Options{Subreaper: true}, spec) })
		o := withCgroup(b)
		o.Subreaper = true
		b.Run("host-cgroup-subreaper", func(b *testing.B) { run(b, o, spec) })
	}
}

// BenchmarkMemory reports what one watched process costs us.
func BenchmarkMemory(b *testing.B) {
	if b.N > 0 { // once is enough, whatever -benchtime says
		h := testHost(b, withCgroup(b))
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		const many = 200
		gone := make(chan Notice, many)
		var all []*Process
		for i := range many {
			p, err := h.Start(Spec{Name: itoa(i), Argv: []string{"/bin/sleep", "1000"}}, func(n Notice) {
				if n.Gone {
					gone <- n
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, p)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/process")
		began := time.Now()
		for _, p := range all {
			if err := p.Kill(); err != nil {
				b.Fatal(err)
			}
		}
		for range many {
			<-gone
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/many, "µs/kill")
		for i := range many {
			if err := h.Release(itoa(i)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
