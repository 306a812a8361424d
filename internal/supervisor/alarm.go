package supervisor

import (
	"sync"
	"time"

	"github.com/perdure/perdure/internal/supervise"
)

// maxNap bounds how late an alarm is after the machine has slept: a timer of the
// runtime stands still meanwhile, and the clock of deadlines goes on.
const maxNap = time.Minute

// alarm is a timer for a deadline of the boot clock.
type alarm struct {
	deadline supervise.Instant
	clock    func() supervise.Instant
	ring     func()

	mu      sync.Mutex
	timer   *time.Timer
	napping bool // it wakes before the deadline, to look at the clock
	stopped bool
}

// newAlarm has ring called in a goroutine of its own at the deadline, unless it is
// stopped before.
func newAlarm(deadline supervise.Instant, clock func() supervise.Instant, ring func()) *alarm {
	a := &alarm{deadline: deadline, clock: clock, ring: ring}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(a.nap(), a.wake)
	return a
}

// nap is how long to sleep now. It needs mu.
func (a *alarm) nap() time.Duration {
	left := max(0, a.deadline.Sub(a.clock()))
	a.napping = left > maxNap
	return min(left, maxNap)
}

func (a *alarm) wake() {
	a.mu.Lock()
	again := a.napping && !a.stopped
	if again {
		a.timer.Reset(a.nap())
	}
	stopped := a.stopped
	a.mu.Unlock()
	if !again && !stopped {
		a.ring()
	}
}

// stop ends the alarm. A ring that has begun goes on.
func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.timer.Stop()
}
