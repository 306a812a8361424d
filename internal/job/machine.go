package job

import (
	"fmt"
	"time"
)

// State is where a job stands.
type State string

// The states. The last four are final until someone asks for a retry.
const (
	// Scheduled waits for its time.
	Scheduled State = "scheduled"
	// Available may start as soon as its queue has room.
	Available State = "available"
	// Running is held by a node.
	Running State = "running"
	// Retryable has failed and waits for its next attempt.
	Retryable State = "retryable"
	// Completed has done its work.
	Completed State = "completed"
	// Failed has used its attempts up, or its deadline has passed.
	Failed State = "failed"
	// Cancelled was ended because somebody asked for it.
	Cancelled State = "cancelled"
	// Discarded was given up by its own handler.
	Discarded State = "discarded"
)

// States returns all states in the order of a job's life.
func States() []State {
	return []State{Scheduled, Available, Running, Retryable, Completed, Failed, Cancelled, Discarded}
}

// Final says whether nothing more happens by itself.
func (s State) Final() bool {
	return s == Completed || s == Failed || s == Cancelled || s == Discarded
}

// Status is what the machine remembers of a job.
type Status struct {
	State State
	// Attempt counts the attempts that were begun and count; MaxAttempts
	// bounds it.
	Attempt, MaxAttempts int
	// Epoch is the fencing token. It grows with each claim and never shrinks.
	Epoch int64
	// Owner is the node that runs it.
	Owner string
	// Due is when a waiting job may start.
	Due time.Time
	// Deadline is when it is of no more use; zero means never.
	Deadline time.Time
	// Started is when the last attempt began, Ended when the job became final.
	Started, Ended time.Time
	// CancelAsked is set while a running job is asked to end.
	CancelAsked bool
	// Error is why the last attempt did not complete.
	Error string
}

// Kind is what happens to a job.
type Kind int

// The kinds of input.
const (
	// OnPromote: its time has come.
	OnPromote Kind = iota
	// OnClaim: a node, Owner, takes it.
	OnClaim
	// OnComplete: the attempt Epoch has done its work.
	OnComplete
	// OnFail: the attempt Epoch has failed with Error; a Delay above 0 replaces
	// the backoff.
	OnFail
	// OnSnooze: the attempt Epoch wants to go on after Delay. It does not count.
	OnSnooze
	// OnDiscard: the attempt Epoch gives the job up for the reason Error.
	OnDiscard
	// OnRelease: the node hands the attempt Epoch back, because it stops. It does
	// not count.
	OnRelease
	// OnLost: the node that held the attempt Epoch is gone.
	OnLost
	// OnCancel: somebody asks for its end.
	OnCancel
	// OnRetry: somebody asks for an attempt now.
	OnRetry
	// OnExpire: its deadline has passed.
	OnExpire
	numKinds
)

// String returns the kind's name.
func (k Kind) String() string {
	if k < 0 || k >= numKinds {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return [...]string{"promote", "claim", "complete", "fail", "snooze", "discard", "release", "lost", "cancel", "retry", "expire"}[k]
}

// Input is one thing that happens.
type Input struct {
	Kind  Kind
	Now   time.Time
	Roll  float64 // a random draw in [0, 1), for the jitter of the backoff
	Epoch int64
	Owner string
	Error string
	Delay time.Duration
}

// Verdict is what Step decides.
type Verdict struct {
	Status Status
	// Event is the type of the event that tells of it, "job.started" and so on.
	Event string
	// Attempted is set when an attempt ended otherwise than by completion: it
	// goes into the history under the outcome.
	Attempted string
	// Refused says why nothing changed. Late is set when the input came from an
	// attempt that no longer holds the job.
	Refused string
	Late    bool
}

// Step decides what an input does to a job. It is total: whatever a state does
// not take is refused.
func Step(b Backoff, s Status, in Input) Verdict {
	switch in.Kind {
	case OnComplete, OnFail, OnSnooze, OnDiscard, OnRelease, OnLost:
		if s.State != Running || s.Epoch != in.Epoch {
			v := refuse(s, "attempt %d no longer holds the job; it is %s and at %d", in.Epoch, s.State, s.Epoch)
			v.Late = true
			return v
		}
		return stepRunning(b, s, in)
	case OnPromote:
		if s.State != Scheduled && s.State != Retryable {
			return refuse(s, "it does not wait for its time; it is %s", s.State)
		}
		if in.Now.Before(s.Due) {
			return refuse(s, "its time has not come")
		}
		s.State = Available
		return Verdict{Status: s, Event: "job.available"}
	case OnClaim:
		if s.State != Available {
			return refuse(s, "it cannot be claimed; it is %s", s.State)
		}
		s.State, s.Owner, s.Started = Running, in.Owner, in.Now
		s.Attempt++
		s.Epoch++
		return Verdict{Status: s, Event: "job.started"}
	case OnCancel:
		return stepCancel(s, in)
	case OnRetry:
		return stepRetry(s, in)
	case OnExpire:
		if s.State.Final() || s.State == Running {
			return refuse(s, "a deadline ends only what waits; it is %s", s.State)
		}
		if s.Deadline.IsZero() || in.Now.Before(s.Deadline) {
			return refuse(s, "its deadline has not passed")
		}
		s.Error = "its deadline passed before it could run"
		return final(s, in, Failed, "job.failed")
	}
	return refuse(s, "there is no input %s", in.Kind)
}

// stepRunning takes what the holder of a running job says, or what is said of it.
func stepRunning(b Backoff, s Status, in Input) Verdict {
	asked := s.CancelAsked
	switch in.Kind {
	case OnComplete: // also when a cancel was asked for: the work is done
		s.Error = ""
		return final(s, in, Completed, "job.completed")
	case OnDiscard:
		s.Error = in.Error
		v := final(s, in, Discarded, "job.discarded")
		v.Attempted = "discarded"
		return v
	case OnFail:
		s.Error = in.Error
	case OnLost:
		s.Error = "its node was lost"
	}
	if asked {
		v := final(s, in, Cancelled, "job.cancelled")
		v.Attempted = "cancelled"
		return v
	}
	s.Owner = ""
	switch in.Kind {
	case OnSnooze:
		s.Attempt--
		s.State, s.Due = Scheduled, in.Now.Add(max(in.Delay, 0))
		return Verdict{Status: s, Event: "job.snoozed", Attempted: "snoozed"}
	case OnRelease:
		s.Attempt--
		s.State, s.Due = Available, in.Now
		return Verdict{Status: s, Event: "job.released", Attempted: "released"}
	}
	outcome := "failed"
	delay := in.Delay
	if in.Kind == OnLost {
		outcome, delay = "lost", 0 // it waited for the lease already
	} else if delay <= 0 {
		delay = b.Delay(s.Attempt, in.Roll)
	}
	due := in.Now.Add(delay)
	if s.Attempt >= s.MaxAttempts || !s.Deadline.IsZero() && !due.Before(s.Deadline) {
		v := final(s, in, Failed, "job.failed")
		v.Attempted = outcome
		return v
	}
	s.State, s.Due = Retryable, due
	if in.Kind == OnLost {
		s.State = Available
		return Verdict{Status: s, Event: "job.lost", Attempted: outcome}
	}
	return Verdict{Status: s, Event: "job.retrying", Attempted: outcome}
}

func stepCancel(s Status, in Input) Verdict {
	switch {
	case s.State.Final():
		return refuse(s, "it is %s already", s.State)
	case s.State != Running:
		return final(s, in, Cancelled, "job.cancelled")
	case s.CancelAsked:
		return refuse(s, "its end was asked for already")
	}
	s.CancelAsked = true
	return Verdict{Status: s, Event: "job.cancelling"}
}

// stepRetry starts a waiting job now, or gives one that did not complete another
// attempt. A deadline that has passed no longer counts.
func stepRetry(s Status, in Input) Verdict {
	switch s.State {
	case Running:
		return refuse(s, "it runs")
	case Available:
		return refuse(s, "it is about to run")
	case Completed:
		return refuse(s, "it has completed; enqueue it again")
	}
	s.State, s.Due, s.Ended = Available, in.Now, time.Time{}
	s.MaxAttempts = max(s.MaxAttempts, s.Attempt+1)
	if !s.Deadline.IsZero() && !in.Now.Before(s.Deadline) {
		s.Deadline = time.Time{}
	}
	return Verdict{Status: s, Event: "job.retried"}
}

func final(s Status, in Input, to State, event string) Verdict {
	s.State, s.Ended, s.Owner, s.CancelAsked = to, in.Now, "", false
	return Verdict{Status: s, Event: event}
}

func refuse(s Status, format string, args ...any) Verdict {
	return Verdict{Status: s, Refused: fmt.Sprintf(format, args...)}
}
