package worker

import (
	"math"
	"runtime/metrics"
	"sync"
	"time"
)

// Usage is what the program uses, as it is sent. What the system does not tell
// is left out.
type Usage struct {
	CPU    CPU    `json:"cpu"`
	Memory Memory `json:"memory"`
	// Goroutines that there are.
	Goroutines uint64 `json:"goroutines"`
	// Uptime is in seconds since the worker began to measure.
	Uptime float64 `json:"uptime"`
}

// CPU is time spent, in microseconds since the program began. Percent is that
// of one core since the measurement before.
type CPU struct {
	User    int64   `json:"user"`
	System  int64   `json:"system"`
	Percent float64 `json:"percent"`
}

// Memory is in bytes: RSS is what the system holds for the program, Heap what
// Go's objects take, Go all that Go's runtime has of the system.
type Memory struct {
	RSS  int64  `json:"rss,omitempty"`
	Heap uint64 `json:"heapUsed"`
	Go   uint64 `json:"goTotal"`
}

// Measure returns what this program uses: CPU and memory of the process itself
// and of Go's runtime. Perdure measures the process with all its children by itself; this adds what
// only the program knows.
func (w *Worker) Measure() Usage {
	if w == nil {
		return Usage{}
	}
	return w.measure.measure()
}

// meter measures, and remembers the measurement before.
type meter struct {
	mu    sync.Mutex
	begun time.Time
	at    time.Time
	cpu   time.Duration
}

func (m *meter) measure() Usage {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/sched/goroutines:goroutines"},
	}
	metrics.Read(samples)
	u := Usage{Goroutines: samples[2].Value.Uint64()}
	u.Memory = Memory{RSS: rss(), Heap: samples[0].Value.Uint64(), Go: samples[1].Value.Uint64()}
	user, system := cpuTime()
	u.CPU.User, u.CPU.System = user.Microseconds(), system.Microseconds()
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.begun.IsZero() {
		m.begun = now
	} else if wall := now.Sub(m.at); wall > 0 {
		u.CPU.Percent = math.Round(float64(user+system-m.cpu)/float64(wall)*1e4) / 100
	}
	m.at, m.cpu = now, user+system
	u.Uptime = now.Sub(m.begun).Seconds()
	return u
}
