//go:build unix

package session

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkHeartbeats takes heartbeats from 1000 workers in another process,
// one a write, and reports what each costs this process in CPU time: below
// 5000 ns is more than 200,000 a second on one core.
func BenchmarkHeartbeats(b *testing.B) {
	for how, o := range transports() {
		b.Run(how, func(b *testing.B) {
			const workers = 1000
			o.Clock = clock
			hub, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			defer hub.Close()
			dir := b.TempDir()
			var paths strings.Builder
			for i := range workers {
				path := filepath.Join(dir, fmt.Sprint(i))
				if _, err := hub.Listen(Spec{Path: path, ProcessID: "proc_1754000000000_abc1234"}, &recorder{owns: func(int) bool { return true }}); err != nil {
					b.Fatal(err)
				}
				paths.WriteString(path + "\n")
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "SESSION_TEST_SENDER=1")
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				b.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			_, _ = io.WriteString(in, paths.String()+"\n")
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				b.Fatal(err)
			}
			each := max(1, b.N/workers)
			b.ReportAllocs()
			before := cpu()
			b.ResetTimer()
			_, _ = fmt.Fprintf(in, "%d\n", each)
			if err := cmd.Wait(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu()-before)/float64(each*workers), "cpu-ns/heartbeat")
		})
	}
}

// cpu is the CPU time of this process.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
