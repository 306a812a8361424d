package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"time"

	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/journal"
)

// Follow implements control.Supervisor. Entries that the journal has dropped
// because nobody read them in time become an event that says so: a reader never
// stands still and is never misled.
func (s *Supervisor) Follow(ctx context.Context, after uint64) iter.Seq2[[]control.Frame, error] {
	return func(yield func([]control.Frame, error) bool) {
		s.servers.enter()
		defer s.servers.leave()
		for {
			next, again := s.follow(ctx, after, yield)
			if !again {
				return
			}
			after = next
		}
	}
}

// followLinger is the time that a reader who has read everything leaves us to
// ourselves when something begins to happen: the end of a process and its next
// start are read together, after the start.
const followLinger = 2 * time.Millisecond

// follow yields entries until the end, or until a gap, after which it is called
// again from where the journal begins.
func (s *Supervisor) follow(ctx context.Context, after uint64, yield func([]control.Frame, error) bool) (uint64, bool) {
	for batch, err := range s.log.FollowBatches(ctx, after, journal.BatchOptions{Linger: followLinger}) {
		var gap *journal.GapError
		switch {
		case errors.As(err, &gap):
			e := note(gap.First-1, "supervisor.journal_gap", map[string]any{"after": after, "first": gap.First})
			return gap.First - 1, yield([]control.Frame{e}, nil)
		case err != nil:
			yield(nil, err)
			return 0, false
		}
		frames := make([]control.Frame, len(batch))
		for i, f := range batch {
			frames[i] = passOn(f)
		}
		if !yield(frames, nil) {
			return 0, false
		}
		after = frames[len(frames)-1].Seq
	}
	return 0, false
}

// note is an entry that tells something of the journal itself.
func note(seq uint64, event string, data map[string]any) control.Frame {
	e := control.Event{Type: event}
	e.Data, _ = json.Marshal(data)                                        // made of JSON's own types
	payload, _ := json.Marshal(control.Entry{Events: []control.Event{e}}) // so is this
	return control.Frame{Seq: seq, Time: time.Now().UTC(), Key: supervisorKey, Payload: payload}
}

// passOn is a frame of the journal for a reader.
func passOn(f journal.Frame) control.Frame {
	return control.Frame{Seq: f.Seq, Time: f.Time, Key: f.Key, Payload: f.Payload}
}

// decode reads a frame as an entry.
func decode(f journal.Frame) (control.Entry, error) { return passOn(f).Entry() }

// awaitFollowers waits until nobody follows the journal, at most for d. When a
// process has asked for the end, it first waits for a server that is still
// coming up: it shall read so, and not take us for lost.
func (s *Supervisor) awaitFollowers(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	if _, asked := s.ExitCode(); asked {
		select {
		case <-s.servers.first:
		case <-t.C:
			return
		}
	}
	none := make(chan struct{})
	go func() {
		s.servers.Wait()
		close(none)
	}()
	select {
	case <-none:
	case <-t.C:
	}
}
