//go:build unix

package probe

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// TestServeForBenchmark is no test: the benchmarks run it in a process of its
// own, so that only the prober's CPU is counted. It is not parallel: it is
// alone in its process.
func TestServeForBenchmark(t *testing.T) {
	if os.Getenv("PERDURE_PROBE_SERVER") == "" {
		t.Skip("only for the benchmarks")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stdout.WriteString("at " + l.Addr().String() + "\n"); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		_, _ = conn.Read(buf) // the request is short; what it says does not matter
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"status\":\"healthy\"}"))
		_ = conn.Close()
	}
}

// serveElsewhere starts TestServeForBenchmark and returns its address.
func serveElsewhere(b *testing.B) (address string) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=TestServeForBenchmark$")
	cmd.Env = append(os.Environ(), "PERDURE_PROBE_SERVER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); address == "" && lines.Scan(); {
		address, _ = strings.CutPrefix(lines.Text(), "at ")
	}
	return address
}

func BenchmarkHTTP(b *testing.B) {
	address := serveElsewhere(b)
	for name, fields := range map[string]map[string]any{"status": nil, "json": {"status": "healthy"}} {
		b.Run(name, func(b *testing.B) {
			a, err := newHTTP(api.HTTPProbe{URL: "http://" + address + "/health", JSON: fields})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
				if answer, detail := a.ask(ctx); answer != Yes {
					b.Fatal(detail)
				}
				cancel()
			}
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// BenchmarkRunner asks ten processes by HTTP every 100 ms, as many asks as b.N:
// what counts is the CPU that a check costs with all that is around it.
func BenchmarkRunner(b *testing.B) {
	address := serveElsewhere(b)
	r := NewRunner(Options{})
	defer r.Close()
	told := make(chan Result, 1024)
	for i := range 10 {
		_, err := r.Start(Spec{Name: fmt.Sprint("s", i), Spread: true, Probe: api.Probe{
			HTTP: &api.HTTPProbe{URL: "http://" + address + "/health"}, Interval: api.Duration(100 * time.Millisecond)}},
			func(res Result) { told <- res })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	for range b.N {
		if res := <-told; res.Answer != Yes {
			b.Fatal(res.Detail)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpuTime is what this process has used so far, user and system (getrusage(2)).
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
