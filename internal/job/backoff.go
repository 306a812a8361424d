package job

import (
	"math"
	"time"
)

// Backoff is the wait between attempts: Initial after the first, Factor times as
// long after each further one, at most Max, and drawn from the range of Jitter
// around it. Default: 1s, 5m, 2, 0.1.
type Backoff struct {
	Initial time.Duration `json:"initial,omitempty"`
	Max     time.Duration `json:"max,omitempty"`
	Factor  float64       `json:"factor,omitempty"`
	// Jitter is the share of the wait, 0 to 1, by which it may be shorter or longer.
	Jitter float64 `json:"jitter,omitempty"`
}

func (b Backoff) filled() Backoff {
	if b.Initial <= 0 {
		b.Initial = time.Second
	}
	if b.Max <= 0 {
		b.Max = 5 * time.Minute
	}
	if b.Factor < 1 {
		b.Factor = 2
	}
	b.Jitter = min(max(b.Jitter, 0), 1)
	return b
}

// Delay returns the wait after an attempt, the first being 1. roll is a draw in
// [0, 1).
func (b Backoff) Delay(attempt int, roll float64) time.Duration {
	b = b.filled()
	d := min(float64(b.Initial)*math.Pow(b.Factor, float64(max(attempt, 1)-1)), float64(b.Max))
	d *= 1 + b.Jitter*(2*roll-1)
	return time.Duration(min(d, float64(b.Max)))
}
