package workers

import (
	"time"

	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// Meter turns what was measured of one generation at one time after another into
// what it uses.
type Meter struct {
	at   time.Time
	used time.Duration
}

// Read turns one measurement into a use. CPU is that since the one before; the
// first one tells none.
func (m *Meter) Read(now time.Time, s proc.Sample, files int) supervise.Use {
	u := supervise.Use{Memory: s.RSS, PIDs: s.Count, OpenFiles: files}
	if !m.at.IsZero() && now.After(m.at) && s.CPU > m.used {
		u.CPU = (s.CPU - m.used).Seconds() / now.Sub(m.at).Seconds()
	}
	m.at, m.used = now, s.CPU
	return u
}
