package supervise

import (
	"testing"

	"github.com/perdure/perdure/api"
)

// engine is Step, or Step with a fault.
type engine func(Spec, State, Input) Result

// faulty is Step with other parts.
func faulty(fresh func(*State, *Input) bool, run func(rule, *machine)) engine {
	return func(sp Spec, s State, in Input) Result {
		m := begin(&sp, &s, &in)
		if !fresh(&m.s, &in) {
			return Result{State: m.s}
		}
		m.enter()
		run(ruleOf(m.s.State, in.Kind), &m)
		return m.result(&s)
	}
}

// instead is Step with another function in place of one rule.
func instead(of rule, do func(*machine)) engine {
	return faulty(fresh, func(r rule, m *machine) {
		if r == of {
			do(m)
			return
		}
		run(r, m)
	})
}

// staleTaken is Step that takes inputs of one kind that Step itself drops as stale.
func staleTaken(k Kind) engine {
	return faulty(func(s *State, in *Input) bool {
		return in.Kind == k && (k != TimerFired || in.Timer < NumTimers) || fresh(s, in)
	}, run)
}

// TestKnownFaultsAreCaught builds faults into the machine that real supervisors
// have had, and holds that the random histories notice each of them. A test
// that cannot notice them would prove nothing by passing. Only consequences
// count: the judge does not look at staleness itself here.
func TestKnownFaultsAreCaught(t *testing.T) {
	t.Parallel()
	faults := map[string]engine{
		"a timer of the last incarnation kills the next one": staleTaken(TimerFired),
		"a late end is taken for the new generation's (P5)":  staleTaken(Exited),
		"an end is taken twice":                              staleTaken(Gone),
		"a late spawn is taken for the new generation's":     staleTaken(Spawned),
		"a failed respawn is never retried (W3, P12)": instead(ruleSpawnFailed, func(m *machine) {
			m.s.SpawnPending = false
		}),
		"a start during a stop spawns a second copy (P5, S7)": instead(ruleStartStopping, func(m *machine) {
			m.start()
		}),
		"a restart does not wait for the end (N6)": instead(ruleRestartLive, func(m *machine) {
			m.zero()
			m.s.Desired = api.DesiredRunning
			m.launch()
		}),
		"signal sent is taken for dead (S1)": instead(ruleStopLive, func(m *machine) {
			m.s.Desired = api.DesiredStopped
			m.signal()
			m.finish()
		}),
		"SIGKILL follows the signal at once (S1)": instead(ruleStopLive, func(m *machine) {
			m.stopLive()
			if m.s.Alive {
				m.kill()
			}
		}),
		"a stop during backoff does not cancel the timer (P7)": instead(ruleStopIdle, func(m *machine) {
			m.s.Desired = api.DesiredStopped
			m.set(api.StateStopped, api.ReasonRequest, "")
		}),
		"a stop is not written down (P1)": instead(ruleStopLive, func(m *machine) {
			m.beginStop(api.ReasonRequest, "")
		}),
		"a stop that is asked for during a restart is lost (N7)": instead(ruleStopStopping, func(*machine) {}),
		"the shutdown sets no barrier (S6)": instead(ruleShutdownLive, func(m *machine) {
			m.beginStop(api.ReasonShutdown, "")
		}),
		"the end that opens the breaker is not told (P14)": instead(ruleExited, func(m *machine) {
			m.exited()
			m.events = m.events[1:]
		}),
		"what the leader leaves behind is forgotten (N8)": instead(ruleExited, func(m *machine) {
			m.in.Gone = true
			m.exited()
		}),
		"the grace ends without SIGKILL": instead(ruleTimerStopping, func(*machine) {}),
		"SIGKILL is sent once and believed": instead(ruleTimerStopping, func(m *machine) {
			if m.in.Timer == TimerGrace {
				m.timerStopping()
			}
		}),
		"an adopted process has no timers": instead(ruleAdopted, func(m *machine) {
			if m.s.State != api.StateBackoff && m.s.State != api.StateStopping {
				m.adopted()
			}
		}),
		"the wish to leave dies with the supervisor": instead(ruleAdopted, func(m *machine) {
			m.s.Leave = nil
			m.adopted()
		}),
		"the wish to leave outlives the end that it asked for": instead(ruleAdopted, func(m *machine) {
			m.in.Over = false
			m.adopted()
		}),
		"the window is written in place": instead(ruleExited, func(m *machine) {
			for i := range m.s.Window {
				m.s.Window[i] = m.now
			}
			m.exited()
		}),
		"a spawn that comes after the stop lives on (S6)": instead(ruleSpawned, func(m *machine) {
			m.s.State = api.StateStarting
			m.s.StopCause = ""
			m.s.PID, m.s.Alive, m.s.SpawnPending = m.in.PID, true, false
			m.becomeReady()
		}),
	}
	faults["a stale worker is told at each look (Q14)"] = faulty(fresh, func(r rule, m *machine) {
		m.s.Worker.Stale = m.s.Worker.Stale && m.in.Timer != TimerStale
		run(r, m)
	})
	faults["the timer of the runtime outlives its generation (Q8)"] = instead(ruleExited, func(m *machine) {
		t := m.s.Timers[TimerRuntime]
		m.s.Timers[TimerRuntime] = Timer{}
		m.exited()
		m.s.Timers[TimerRuntime] = t
	})
	faults["an adopted worker is not watched (Q2, Q15)"] = instead(ruleAdopted, func(m *machine) {
		h, l := m.sp.Heartbeat, m.sp.Limits
		sp := *m.sp
		sp.Heartbeat, sp.Limits = nil, nil
		m.sp = &sp
		m.adopted()
		sp.Heartbeat, sp.Limits = h, l
	})
	faults["a kill is told before it is confirmed"] = instead(ruleTimerRunning, func(m *machine) {
		m.timerRunning()
		m.confirmed()
	})
	for name, eng := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3000) {
				if err := play(seed, eng, func(w *world) { w.blind = true }); err != nil {
					t.Logf("caught: %v", err)
					return
				}
			}
			t.Error("3000 histories do not notice the fault")
		})
	}
}
