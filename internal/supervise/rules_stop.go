package supervise

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/api"
)

// beginStop is the one way in which a generation is ended, whatever the cause:
// signal to the group, grace, SIGKILL, proof (R5).
func (m *machine) beginStop(cause api.Reason, detail string) {
	s := &m.s
	m.do(DoProbeStop)
	m.disarmAll()
	s.Worker.Stale = false
	s.StopCause, s.Automatic = cause, false
	s.Killed, s.KillTries = false, 0
	s.Ready, s.ReadyRun = false, 0
	m.set(api.StateStopping, cause, detail)
	m.tell("process.stopping", map[string]any{"cause": string(cause)})
	if s.Alive {
		m.terminate()
	}
}

// terminate signals what lives, or kills it where no grace is given.
func (m *machine) terminate() {
	if m.s.KillAsked || m.sp.Grace <= 0 {
		m.kill()
		return
	}
	m.signal()
	m.arm(TimerGrace, m.now.Add(m.sp.Grace))
}

func (m *machine) signal() {
	m.effects = append(m.effects, Effect{Do: DoSignal, Generation: m.s.Generation, Signal: m.sp.StopSignal})
}

func (m *machine) kill() {
	m.disarm(TimerGrace)
	m.s.Killed = true
	m.s.KillTries++
	m.do(DoKill)
	m.arm(TimerKill, m.now.Add(max(m.sp.KillWait, minKillWait)))
}

func (m *machine) timerStopping() {
	switch m.in.Timer {
	case TimerGrace:
		m.s.Detail = "killed, because it did not end within " + brief(m.sp.Grace)
		m.kill()
	case TimerKill:
		m.stuck()
	}
}

// stuck kills again for as long as the end is not proven; it is never reported
// as stopped before (R4). The 1st, 2nd, 4th, 8th… try is told, so that a
// process that hangs in the kernel does not flood the event log.
func (m *machine) stuck() {
	s := &m.s
	if n := s.KillTries; n&(n-1) == 0 {
		text := fmt.Sprintf("something of it still lives after SIGKILL was sent %d times; it may hang in the kernel, see its stack in /proc", n)
		s.Detail, s.LastError = text, text
		m.tell("process.error", map[string]any{"stuck": true, "error": text, "tries": n})
	}
	m.kill()
}

// minKillWait keeps a kill_wait of nothing from spinning.
const minKillWait = 100 * time.Millisecond
