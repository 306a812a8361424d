package worker

import "time"

// tickers are the heartbeats that are sent by themselves, of which the first is
// sent at once, and the stats. A nil channel never ticks.
func (w *Worker) tickers() (beats, stats <-chan time.Time, stop func()) {
	w.mu.Lock()
	b := w.link.welcome.Heartbeat
	if b != nil && b.IntervalMs > 0 && !w.o.ManualHeartbeat {
		w.beat(time.Now())
	} else {
		b = nil
	}
	w.mu.Unlock()
	var timers []*time.Ticker
	every := func(d time.Duration) <-chan time.Time {
		t := time.NewTicker(d)
		timers = append(timers, t)
		return t.C
	}
	if b != nil {
		beats = every(time.Duration(b.IntervalMs) * time.Millisecond)
	}
	if w.o.StatsEvery > 0 {
		w.ownStats()
		stats = every(w.o.StatsEvery)
	}
	return beats, stats, func() {
		for _, t := range timers {
			t.Stop()
		}
	}
}

// ownStats sends what the program uses.
func (w *Worker) ownStats() {
	if err := w.Stats(w.measure.measure()); err != nil {
		w.o.Logger.Debug("Cannot send stats", "error", err)
	}
}
