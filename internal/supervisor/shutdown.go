package supervisor

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/supervise"
)

// Shutdown implements control.Supervisor. Every caller waits for the same end;
// a shorter timeout than the one under way takes its place.
func (s *Supervisor) Shutdown(ctx context.Context, timeout time.Duration) error {
	s.begin(timeout)
	select {
	case <-s.end.done:
		return nil
	case <-ctx.Done():
		return api.Errorf(api.CodeTimeout, "the shutdown goes on without you: %v", ctx.Err())
	}
}

// begin begins a shutdown, or shortens the one under way. It waits for nothing
// that a process does.
func (s *Supervisor) begin(timeout time.Duration) {
	s.deadline(timeout)
	s.end.once.Do(func() {
		s.say("supervisor.shutdown", map[string]any{"timeout_ms": timeout.Milliseconds()})
		fault.Here("supervisor.shutdown.begun")
		s.finishChanges()
		s.tree.shutdown(func() {
			s.sayOver()
			close(s.end.done)
		})
	})
}

// deadline sets when what still lives is killed, in any order; an earlier one
// stays. It holds whether or not anybody waits for the shutdown.
func (s *Supervisor) deadline(timeout time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := time.Now().Add(timeout)
	if s.end.kill != nil {
		if !due.Before(s.end.due) {
			return
		}
		s.end.kill.Stop()
	}
	s.end.due, s.end.kill = due, time.AfterFunc(timeout, s.killAll)
}

// Done is closed when a Shutdown has ended and nothing lives any more.
func (s *Supervisor) Done() <-chan struct{} { return s.end.done }

// ExitCode is the code that a process has asked Perdure to end with, if any.
func (s *Supervisor) ExitCode() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.code == nil {
		return 0, false
	}
	return *s.end.code, true
}

// killAll ends everything that lives at once, with the barrier up.
func (s *Supervisor) killAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.actors {
		a.post(message{do: func(a *actor) error {
			err := a.step(supervise.Input{Kind: supervise.Shutdown, Reason: api.ReasonShutdown})
			a.kill()
			return err
		}})
	}
}

// Close lets go of everything without ending any process: they live on and the
// next supervisor adopts them. After Shutdown nothing lives.
func (s *Supervisor) Close() error { return s.closeAndHand(nil) }

// closeAndHand is Close, and gives away what could be lost of each live generation
// while nobody has it: see control.Held. The descriptors belong to hand.
func (s *Supervisor) closeAndHand(hand func(control.Held)) error {
	s.finishChanges()
	s.mu.Lock()
	stop(s.end.kill)
	if s.trim != nil {
		s.trim.Stop()
	}
	actors := make([]*actor, 0, len(s.actors))
	for _, a := range s.actors {
		actors = append(actors, a)
	}
	s.mu.Unlock()
	s.tree.close()
	s.troubles.close()
	// What has been seen is decided upon and written down before the actors end;
	// what is seen later would be lost. Probes need the host, so they go first.
	s.probes.Close()
	s.host.pause()
	for _, a := range actors {
		a.post(message{do: func(a *actor) error {
			if hand != nil {
				a.hand(hand)
			}
			a.gone = api.Errorf(api.CodeUnavailable, "cannot reach process %q: its supervisor is closed", a.who.name)
			a.close()
			return nil
		}})
	}
	s.running.Wait()
	s.sweep(actors)
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	return errors.Join(errs...)
}

// sweep removes what only live processes need, if a Shutdown has proven that
// none is left: FIFOs and cgroups. What cannot be removed is used again.
func (s *Supervisor) sweep(actors []*actor) {
	select {
	case <-s.end.done:
	default:
		return
	}
	for _, a := range actors {
		if err := s.host.release(a.who.name); err != nil {
			s.o.Logger.Warn("Cannot remove a cgroup", "process", a.who.name, "error", err)
		}
	}
	if s.runDir == "" {
		return
	}
	if err := os.RemoveAll(s.runDir); err != nil {
		s.o.Logger.Warn("Cannot remove the FIFOs", "error", err)
	}
}
