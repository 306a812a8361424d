package supervise

import (
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/api"
)

// workerSpec gives some definitions heartbeats, limits and a gate that the
// worker itself opens.
func (w *world) workerSpec(sp *Spec) {
	if sp.Ready != nil && w.chance(3) {
		sp.Ready.Told = true
	}
	if w.chance(2) {
		t := pick(w, time.Second, 4*time.Second)
		sp.Heartbeat = &HeartbeatWatch{Timeout: t, Kill: pick(w, 0, 2*t, 2*t), Grace: pick(w, t, 3*t)}
	}
	if w.chance(2) {
		sp.Limits = &Limits{Runtime: pick(w, 0, 0, 20*time.Second), Memory: pick[int64](w, 0, 100), CPU: pick(w, 0, 0.5), PIDs: pick(w, 0, 10),
			OpenFiles: pick(w, 0, 20), Dwell: pick(w, 0, 3*time.Second), OnExceed: pick(w, "restart", exceedStop, exceedEvent)}
	}
}

// worker is one thing that a worker says or that is measured of it.
func (w *world) worker(gen uint64) error {
	in := Input{Kind: pick(w, Heartbeat, WorkerSaid, WorkerSaid, Sample), Generation: gen}
	switch in.Kind {
	case Heartbeat:
		w.beat = w.now
		in.Beat = w.beat
	case WorkerSaid:
		in.Said = pick(w, SaidReady, SaidReady, SaidExtend, SaidExtend, SaidUnhealthy, SaidWatchdog)
		in.Span, in.Detail = time.Duration(1+w.rng.IntN(5))*time.Second, pick(w, "", "broken")
	case Sample:
		in.Use = Use{Memory: int64(w.rng.IntN(130)), CPU: w.rng.Float64() * .6, PIDs: w.rng.IntN(12), OpenFiles: w.rng.IntN(24)}
	}
	if w.chance(2) {
		w.beat = w.now // one that is no input
	}
	return w.feed(in)
}

// checkWorker holds what must always hold of heartbeats and limits.
func (w *world) checkWorker(before *State, in *Input, r *Result) error {
	for i, e := range r.Events {
		switch e.Type {
		case "process.stale":
			if before.Worker.Stale {
				return errors.New("it was told twice that no heartbeat comes")
			}
			timeout := before.Worker.Watchdog
			if timeout == 0 {
				timeout = w.sp.Heartbeat.Timeout
			}
			if since := in.Now.Sub(max(before.Worker.From, min(w.beat, in.Now))); since < timeout && w.beat >= before.Worker.From && in.Beat == w.beat {
				return fmt.Errorf("stale %s after a heartbeat, the timeout is %s", since, timeout)
			}
		case "process.heartbeat_ok":
			if !before.Worker.Stale {
				return errors.New("heartbeats have come back that were never missed")
			}
		case "process.watchdog.killed":
			if r.State.Alive && r.State.Generation == before.Generation || before.Worker.Ended == nil {
				return errors.New("a kill was told that is not confirmed, or that nobody ordered")
			}
			if i > 0 && r.Events[i-1].Type != "process.exited" && in.Kind == Exited {
				return errors.New("a kill was told before its end")
			}
		}
	}
	if e := before.Worker.Ended; e != nil && r.State.Worker.Ended == nil && !w.told(r, "process.watchdog.killed") {
		return fmt.Errorf("the end for %s was never told", e.Reason)
	}
	s := &r.State
	if s.State == api.StateStopping && before.State != api.StateStopping &&
		(s.StopCause == api.ReasonLimit || s.StopCause == api.ReasonHeartbeat) && s.Worker.Ended == nil {
		return errors.New("it is ended for what its worker did, and nobody knows what")
	}
	return nil
}

func (w *world) told(r *Result, typ string) bool {
	for _, e := range r.Events {
		if e.Type == typ {
			return true
		}
	}
	return false
}
