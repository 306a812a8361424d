package job

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func base() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// in returns a status in a state, at attempt 1 of 2 and epoch 5.
func in(s State) Status {
	out := Status{State: s, Attempt: 1, MaxAttempts: 2, Epoch: 5, Due: base()}
	if s == Running {
		out.Owner = "me"
	}
	return out
}

// TestTableIsTotal has one cell for each state and input: the state that follows,
// or "-" for a refusal.
func TestTableIsTotal(t *testing.T) {
	t.Parallel()
	kinds := []Kind{OnPromote, OnClaim, OnComplete, OnFail, OnSnooze, OnDiscard, OnRelease, OnLost, OnCancel, OnRetry, OnExpire}
	if len(kinds) != int(numKinds) {
		t.Fatalf("the table has %d kinds of %d", len(kinds), numKinds)
	}
	const no = State("-")
	want := map[State][]State{
		Scheduled: {Available, no, no, no, no, no, no, no, Cancelled, Available, Failed},
		Available: {no, Running, no, no, no, no, no, no, Cancelled, no, Failed},
		Running:   {no, no, Completed, Retryable, Scheduled, Discarded, Available, Available, Running, no, no},
		Retryable: {Available, no, no, no, no, no, no, no, Cancelled, Available, Failed},
		Completed: {no, no, no, no, no, no, no, no, no, no, no},
		Failed:    {no, no, no, no, no, no, no, no, no, Available, no},
		Cancelled: {no, no, no, no, no, no, no, no, no, Available, no},
		Discarded: {no, no, no, no, no, no, no, no, no, Available, no},
	}
	for _, state := range States() {
		for i, kind := range kinds {
			s := in(state)
			s.Deadline = base().Add(time.Hour)
			now := base().Add(time.Minute)
			if kind == OnExpire {
				now = s.Deadline
			}
			v := Step(Backoff{}, s, Input{Kind: kind, Now: now, Epoch: 5, Owner: "you", Error: "wrong"})
			got := v.Status.State
			if v.Refused != "" {
				got = no
				if diff := cmp.Diff(s, v.Status); diff != "" || v.Event != "" || v.Attempted != "" {
					t.Errorf("%s in %s is refused and changes something:\n%s", kind, state, diff)
				}
			} else if v.Event == "" {
				t.Errorf("%s in %s tells nothing", kind, state)
			}
			if got != want[state][i] {
				t.Errorf("%s in %s: %s, want %s (%s)", kind, state, got, want[state][i], v.Refused)
			}
		}
	}
}

func TestAskedToEnd(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]State{OnComplete: Completed, OnFail: Cancelled, OnSnooze: Cancelled, OnDiscard: Discarded,
		OnRelease: Cancelled, OnLost: Cancelled} {
		s := in(Running)
		s.CancelAsked = true
		v := Step(Backoff{}, s, Input{Kind: kind, Now: base(), Epoch: 5})
		if v.Status.State != want || v.Status.CancelAsked || v.Status.Owner != "" {
			t.Errorf("%s: %+v, want %s", kind, v.Status, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := Backoff{Initial: time.Second, Max: 10 * time.Second, Factor: 3, Jitter: 0.5}
	for _, c := range []struct {
		attempt int
		roll    float64
		want    time.Duration
	}{{0, 0.5, time.Second}, {1, 0.5, time.Second}, {1, 0, 500 * time.Millisecond}, {2, 0.75, 3750 * time.Millisecond},
		{3, 0.5, 9 * time.Second}, {3, 0.99, 10 * time.Second}, {4, 0.5, 10 * time.Second}, {1 << 20, 0.5, 10 * time.Second}} {
		if got := b.Delay(c.attempt, c.roll); got != c.want {
			t.Errorf("after attempt %d with roll %v: %v, want %v", c.attempt, c.roll, got, c.want)
		}
	}
	if got := (Backoff{}).Delay(3, 0.5); got != 4*time.Second {
		t.Errorf("the default after attempt 3 is %v, want 4s", got)
	}
}

func TestDeadlineEndsRetries(t *testing.T) {
	t.Parallel()
	s := in(Running)
	s.Deadline = base().Add(time.Second)
	v := Step(Backoff{Initial: time.Second}, s, Input{Kind: OnFail, Now: base(), Roll: 0.5, Epoch: 5, Error: "wrong"})
	if v.Status.State != Failed || v.Status.Error != "wrong" {
		t.Errorf("a retry at the deadline: %+v, want failed", v.Status)
	}
	v = Step(Backoff{}, v.Status, Input{Kind: OnRetry, Now: base().Add(time.Hour)})
	if v.Status.State != Available || !v.Status.Deadline.IsZero() || !v.Status.Ended.IsZero() {
		t.Errorf("a retry by hand: %+v, want available without the deadline", v.Status)
	}
}

// model is the simplest job that could be right: who holds it, and how it ended.
type model struct {
	holder  int64 // epoch of the attempt that holds it, 0: nobody
	epochs  int64
	counted int
	granted int
	asked   bool
	ended   State
	waits   bool // for its time
}

// TestHistories plays random inputs, stale ones among them, against the model.
func TestHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := Status{State: Available, MaxAttempts: rapid.IntRange(1, 4).Draw(t, "attempts"), Due: base()}
		m := model{granted: s.MaxAttempts}
		now := base()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "wait")) * time.Second)
			i := Input{Kind: Kind(rapid.IntRange(0, int(numKinds)-1).Draw(t, "kind")), Now: now, Roll: 0.5, Owner: "n",
				Epoch: s.Epoch - int64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "stale")), Delay: time.Second}
			before := s
			v := Step(Backoff{Initial: time.Second}, s, i)
			s = v.Status
			if err := m.take(i, before, v); err != nil {
				t.Fatalf("%s in %s (%+v -> %+v): %v", i.Kind, before.State, before, s, err)
			}
		}
	})
}

func (m *model) take(i Input, before Status, v Verdict) error {
	refused, late := m.expect(i, before)
	if refused != (v.Refused != "") || late != v.Late {
		return fmt.Errorf("refused %q, late %v; want refused %v, late %v", v.Refused, v.Late, refused, late)
	}
	if !refused {
		m.apply(i)
	}
	s := v.Status
	switch {
	case s.State.Final() != (m.ended != "") || m.ended != "" && s.State != m.ended:
		return fmt.Errorf("it is %s, want %q", s.State, m.ended)
	case (s.State == Running) != (m.holder > 0), s.Epoch != m.epochs, (s.Owner != "") != (m.holder > 0):
		return fmt.Errorf("held by %q at %d, want %d at %d", s.Owner, s.Epoch, m.holder, m.epochs)
	case s.Attempt != m.counted, s.MaxAttempts != m.granted, s.Attempt > s.MaxAttempts:
		return fmt.Errorf("attempt %d of %d, want %d of %d", s.Attempt, s.MaxAttempts, m.counted, m.granted)
	case s.CancelAsked != m.asked, (s.State == Scheduled || s.State == Retryable) != m.waits:
		return fmt.Errorf("asked %v, waits %v", m.asked, m.waits)
	case s.State.Final() == s.Ended.IsZero():
		return fmt.Errorf("ended at %v", s.Ended)
	}
	return nil
}

func (m *model) expect(i Input, before Status) (refused, late bool) {
	switch i.Kind {
	case OnComplete, OnFail, OnSnooze, OnDiscard, OnRelease, OnLost:
		late = m.holder == 0 || m.holder != i.Epoch
		return late, late
	case OnPromote:
		return !m.waits || i.Now.Before(before.Due), false
	case OnClaim:
		return m.holder > 0 || m.waits || m.ended != "", false
	case OnCancel:
		return m.ended != "" || m.asked, false
	case OnRetry:
		return m.holder > 0 || m.ended == Completed || m.ended == "" && !m.waits, false
	}
	return true, false // no deadline is set
}

func (m *model) apply(i Input) {
	asked := m.asked
	switch i.Kind {
	case OnPromote:
		m.waits = false
	case OnClaim:
		m.epochs++
		m.counted++
		m.holder = m.epochs
	case OnCancel:
		if m.holder > 0 {
			m.asked = true
		} else {
			m.ended, m.waits = Cancelled, false
		}
	case OnRetry:
		m.ended, m.waits, m.granted = "", false, max(m.granted, m.counted+1)
	default:
		m.holder, m.asked = 0, false
		switch {
		case i.Kind == OnComplete:
			m.ended = Completed
		case i.Kind == OnDiscard:
			m.ended = Discarded
		case asked:
			m.ended = Cancelled
		case i.Kind == OnSnooze || i.Kind == OnRelease:
			m.counted--
			m.waits = i.Kind == OnSnooze
		case m.counted >= m.granted:
			m.ended = Failed
		default:
			m.waits = i.Kind == OnFail
		}
	}
}
