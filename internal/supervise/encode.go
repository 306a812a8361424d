package supervise

import (
	"strconv"

	"github.com/perdure/perdure/internal/appendjson"
)

// AppendJSON appends the state as encoding/json would write it: it is written at
// each decision, and encoding/json takes longer than the decision itself.
func (s *State) AppendJSON(b []byte) []byte {
	o := appendjson.Begin(b)
	o.Text("desired", string(s.Desired))
	o.Text("state", string(s.State))
	o.Text("reason", string(s.Reason))
	o.Text("detail", s.Detail)
	o.Uint("generation", s.Generation)
	o.Int("pid", int64(s.PID))
	o.Bool("alive", s.Alive)
	o.Bool("spawn_pending", s.SpawnPending)
	o.Text("stop_cause", string(s.StopCause))
	o.Bool("again", s.Again)
	o.Bool("kill_asked", s.KillAsked)
	o.Bool("killed", s.Killed)
	o.Int("kill_tries", int64(s.KillTries))
	o.Bool("automatic", s.Automatic)
	o.Bool("barrier", s.Barrier)
	o.Bool("removed", s.Removed)
	if s.Leave != nil {
		o.Set(strconv.AppendInt(o.Key("leave"), int64(*s.Leave), 10))
	}
	o.Text("deps", string(s.Deps))
	o.Text("deps_detail", s.DepsDetail)
	o.Bool("ready", s.Ready)
	o.Int("ready_run", int64(s.ReadyRun))
	o.Text("health", string(s.Health))
	o.Int("health_failures", int64(s.HealthFailures))
	o.Int("health_successes", int64(s.HealthSuccesses))
	o.Bool("was_stable", s.WasStable)
	s.appendNumbers(&o)
	return o.End()
}

func (s *State) appendNumbers(o *appendjson.Object) {
	o.Int("started_at", int64(s.StartedAt))
	o.Int("exited_at", int64(s.ExitedAt))
	o.Int("ready_at", int64(s.ReadyAt))
	o.Int("healthy_at", int64(s.HealthyAt))
	o.Int("starts", int64(s.Starts))
	o.Int("restarts", int64(s.Restarts))
	o.Int("restarts_base", int64(s.RestartsBase))
	o.Int("budget", int64(s.Budget))
	o.Int("failures", int64(s.Failures))
	o.Int("backoff_n", int64(s.BackoffN))
	o.Int("health_restarts", int64(s.HealthRestarts))
	if len(s.Window) > 0 {
		b := append(o.Key("window"), '[')
		for i, at := range s.Window {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(at), 10)
		}
		o.Set(append(b, ']'))
	}
	o.Int("cooldown_until", int64(s.CooldownUntil))
	if s.Exit != nil {
		o.Set(s.Exit.appendJSON(o.Key("exit")))
	}
	o.Text("last_error", s.LastError)
	if s.Worker != (Worker{}) {
		o.Set(s.Worker.appendJSON(o.Key("worker")))
	}
	b := append(o.Key("timers"), '[')
	for i, t := range s.Timers {
		if i > 0 {
			b = append(b, ',')
		}
		one := appendjson.Begin(b)
		one.Uint("number", t.Number)
		one.Int("deadline", int64(t.Deadline))
		b = one.End()
	}
	o.Set(append(b, ']'))
	o.Uint("timer_no", s.TimerNo)
}

func (e *Exit) appendJSON(b []byte) []byte {
	o := appendjson.Begin(b)
	o.Uint("generation", e.Generation)
	o.Int("code", int64(e.Code))
	o.Text("signal", e.Signal)
	o.Bool("unknown", e.Unknown)
	o.Bool("core_dumped", e.CoreDumped)
	o.Bool("expected", e.Expected)
	o.Bool("failure", e.Failure)
	o.Text("cause", e.Cause)
	o.Int("uptime", int64(e.Uptime))
	o.Time("wall", e.Wall)
	return o.End()
}

func (w *Worker) appendJSON(b []byte) []byte {
	o := appendjson.Begin(b)
	o.Int("from", int64(w.From))
	o.Int("last_beat", int64(w.LastBeat))
	o.Bool("stale", w.Stale)
	o.Int("watchdog", int64(w.Watchdog))
	if w.Over != ([numUses]Instant{}) {
		b := append(o.Key("over"), '[')
		for i, at := range w.Over {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(at), 10)
		}
		o.Set(append(b, ']'))
	}
	if w.Told != ([numUses]bool{}) {
		b := append(o.Key("told"), '[')
		for i, told := range w.Told {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendBool(b, told)
		}
		o.Set(append(b, ']'))
	}
	if e := w.Ended; e != nil {
		one := appendjson.Begin(o.Key("ended"))
		one.Text("reason", e.Reason)
		if e.Value != 0 {
			one.Set(strconv.AppendFloat(one.Key("value"), e.Value, 'g', -1, 64))
		}
		if e.Limit != 0 {
			one.Set(strconv.AppendFloat(one.Key("limit"), e.Limit, 'g', -1, 64))
		}
		o.Set(one.End())
	}
	return o.End()
}
