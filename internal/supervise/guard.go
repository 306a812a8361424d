package supervise

import "time"

// Guard says when a part of Perdure itself that has died is started again: the
// supervisor by the server, the server by the supervisor. It is never given up,
// because nobody may be there to start it: a breaker that is open only makes the
// tries rare.
type Guard struct {
	// Sound is how long a part must have served to count as sound: its death is
	// then no sign of a loop.
	Sound time.Duration
	// First is the wait after the second death in a row of what was not sound;
	// it doubles from death to death up to Max. The first death has no wait.
	First, Max time.Duration
	// Deaths in a row open the breaker: from then on there is one try every Open.
	Deaths int
	Open   time.Duration
}

// GuardState is what a Guard remembers: the deaths in a row of parts that were
// not sound.
type GuardState struct{ Deaths int }

// Verdict is what follows from a death.
type Verdict struct {
	// Wait is the time until the next try.
	Wait time.Duration
	// Open says that the breaker is open.
	Open bool
}

// Died takes in the death of a part that has served for a time; 0 if it was
// never ready.
func (g Guard) Died(s GuardState, served time.Duration) (GuardState, Verdict) {
	if served >= g.Sound {
		s.Deaths = 0
	}
	s.Deaths++
	switch {
	case s.Deaths >= g.Deaths:
		return s, Verdict{Wait: g.Open, Open: true}
	case s.Deaths == 1:
		return s, Verdict{}
	}
	wait := g.First
	for range s.Deaths - 2 {
		if wait >= g.Max {
			break
		}
		wait *= 2
	}
	return s, Verdict{Wait: min(wait, g.Max)}
}
