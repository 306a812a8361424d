package supervise

import (
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// zero is when a line's clock starts; an Instant of 0 means "not set".
const zero Instant = 1 << 40

// line runs one process on a clock of its own: spawns succeed at once, timers
// fire exactly at their deadline, and a generation ends as life says.
type line struct {
	t       *testing.T
	sp      Spec
	s       State
	now     Instant
	roll    float64
	life    func(gen uint64) (time.Duration, Exit) // nil or negative: for ever
	refuse  func(gen uint64) string                // not empty: the spawn fails with it
	obeys   bool                                   // ends by the stop signal
	starts  []time.Duration                        // when each generation was spawned
	told    []string                               // all events' types
	last    map[string]Event                       // the last event of each type
	effects []Effect                               // those of the last Step, and of those that it led to
	codes   []int                                  // of DoExit
	endAt   Instant
	end     Exit
	ends    bool
	beat    Instant // the last heartbeat, which is no input
}

// base is a definition without any special wish.
func base() Spec {
	return Spec{
		Restart: api.RestartAlways, SignalIsFailure: true, MaxRestarts: -1, MaxRestartsScope: "since_healthy",
		StartResets: true, ReapAlways: true,
		Backoff:    Backoff{Initial: time.Second, Max: 30 * time.Second, Multiplier: 2},
		Breaker:    Breaker{Window: time.Minute, Count: countFailures, OnOpen: openPark, Cooldown: time.Minute},
		Stable:     Stable{After: 10 * time.Second, From: fromStart, Backoff: true, Failures: true, Restarts: true},
		StopSignal: "SIGTERM", Grace: 10 * time.Second, KillWait: time.Second,
	}
}

func newLine(t *testing.T, sp Spec) *line {
	t.Helper()
	return &line{t: t, sp: sp, now: zero, obeys: true, last: map[string]Event{}}
}

// crashing ends every generation at once with code.
func crashing(code int) func(uint64) (time.Duration, Exit) {
	return func(uint64) (time.Duration, Exit) { return 0, Exit{Code: code} }
}

func (l *line) feed(in Input) Result {
	l.t.Helper()
	l.effects = nil
	return l.step(in)
}

func (l *line) step(in Input) Result {
	in.Now, in.Roll = l.now, l.roll
	r := Step(l.sp, l.s, in)
	l.s = r.State
	for _, e := range r.Events {
		l.told = append(l.told, e.Type)
		l.last[e.Type] = e
	}
	l.effects = append(l.effects, r.Effects...)
	for _, e := range r.Effects {
		l.execute(e)
	}
	return r
}

func (l *line) execute(e Effect) {
	switch e.Do {
	case DoSpawn:
		l.ends = false
		if l.refuse != nil {
			if text := l.refuse(e.Generation); text != "" {
				l.step(Input{Kind: SpawnFailed, Generation: e.Generation, Error: text})
				return
			}
		}
		l.starts = append(l.starts, time.Duration(l.now-zero))
		l.step(Input{Kind: Spawned, Generation: e.Generation, PID: 100 + int(e.Generation)})
		if l.life != nil {
			d, exit := l.life(e.Generation)
			l.ends, l.endAt, l.end = d >= 0, l.now.Add(d), exit
		}
	case DoSignal:
		if l.obeys {
			l.ends, l.endAt, l.end = true, l.now, Exit{Code: 143, Signal: "SIGTERM"}
		}
	case DoKill:
		l.ends, l.endAt, l.end = true, l.now, Exit{Code: 137, Signal: "SIGKILL"}
	case DoExit:
		l.codes = append(l.codes, e.Code)
	}
}

// until lets everything happen that is due until the clock shows d.
func (l *line) until(d time.Duration) {
	l.t.Helper()
	limit := zero.Add(d)
	for range 10000 {
		next, id := limit+1, NumTimers
		for i := range NumTimers {
			if t := l.s.Timers[i]; t.Number != 0 && t.Deadline < next {
				next, id = t.Deadline, i
			}
		}
		switch {
		case l.ends && l.endAt <= min(next, limit):
			l.now, l.ends = max(l.now, l.endAt), false
			l.feed(Input{Kind: Exited, Generation: l.s.Generation, Exit: l.end, Gone: true})
		case next <= limit:
			l.now = max(l.now, next)
			l.feed(Input{Kind: TimerFired, Generation: l.s.Generation, Timer: id, Number: l.s.Timers[id].Number, Beat: l.beat})
		default:
			l.now = limit
			return
		}
	}
	l.t.Fatal("more than 10000 things happened: it spins")
}

// exit ends the live generation now.
func (l *line) exit(e Exit) Result {
	l.t.Helper()
	return l.feed(Input{Kind: Exited, Generation: l.s.Generation, Exit: e, Gone: true})
}

func (l *line) health(a Answer) Result {
	l.t.Helper()
	return l.feed(Input{Kind: HealthAnswer, Generation: l.s.Generation, Answer: a, Error: "status 500"})
}

func (l *line) ready(a Answer) Result {
	l.t.Helper()
	return l.feed(Input{Kind: ReadyAnswer, Generation: l.s.Generation, Answer: a})
}

func (l *line) is(state api.State, reason api.Reason) {
	l.t.Helper()
	if l.s.State != state || l.s.Reason != reason {
		l.t.Fatalf("at %s it is %s/%s (%s), want %s/%s", time.Duration(l.now-zero), l.s.State, l.s.Reason, l.s.Detail, state, reason)
	}
}

func (l *line) count(typ string) int {
	n := 0
	for _, t := range l.told {
		if t == typ {
			n++
		}
	}
	return n
}

func (l *line) did(d Do) bool {
	for _, e := range l.effects {
		if e.Do == d {
			return true
		}
	}
	return false
}

// seconds makes a list of durations of whole and broken seconds.
func seconds(s ...float64) []time.Duration {
	out := make([]time.Duration, len(s))
	for i, v := range s {
		out[i] = time.Duration(v * float64(time.Second))
	}
	return out
}
