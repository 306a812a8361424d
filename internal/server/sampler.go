package server

import (
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
)

// sampler tells what processes use. It measures when it is asked, and not more
// often than sampleEvery: nothing is measured while nobody looks.
type sampler struct {
	mu   sync.Mutex
	last map[string]reading
}

// reading is one measurement of one generation.
type reading struct {
	generation uint64
	at         time.Time
	sample     proc.Sample
	cpu        float64
}

// sampleEvery is the shortest time between two measurements of a process.
const sampleEvery = 500 * time.Millisecond

func newSampler() *sampler { return &sampler{last: map[string]reading{}} }

// forget drops what was measured of a process.
func (s *sampler) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, name)
}

// fill adds to p what its tree uses. A process that cannot be read is left
// without figures: unknown is not zero.
func (s *sampler) fill(p *api.Process, rec control.Record) {
	if rec.Identity == nil || p.PID == 0 {
		s.forget(p.Name)
		return
	}
	now := time.Now()
	s.mu.Lock()
	old, known := s.last[p.Name]
	s.mu.Unlock()
	known = known && old.generation == p.Generation
	if !known || now.Sub(old.at) >= sampleEvery {
		sample, err := proc.SampleTree(*rec.Identity)
		if err != nil {
			return
		}
		r := reading{generation: p.Generation, at: now, sample: sample}
		// The first reading is the mean since the start.
		span, used := p.Uptime.D(), sample.CPU
		if known {
			span, used = now.Sub(old.at), sample.CPU-old.sample.CPU
		}
		if span > 0 && used > 0 {
			r.cpu = used.Seconds() / span.Seconds()
		}
		old = r
		s.mu.Lock()
		s.last[p.Name] = r
		s.mu.Unlock()
	}
	p.CPU, p.Memory, p.Processes = old.cpu, old.sample.RSS, old.sample.Count
}
