package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/journal"
)

// Follow implements control.Supervisor. An entry that cannot be read becomes an
// event that says so, and so do entries that the journal has dropped because
// nobody read them in time: a reader never stands still and is never misled.
func (s *Supervisor) Follow(ctx context.Context, after uint64) iter.Seq2[control.Entry, error] {
	return func(yield func(control.Entry, error) bool) {
		s.followers.enter()
		defer s.followers.Done()
		for {
			next, again := s.follow(ctx, after, yield)
			if !again {
				return
			}
			after = next
		}
	}
}

// follow yields entries until the end, or until a gap, after which it is called
// again from where the journal begins.
func (s *Supervisor) follow(ctx context.Context, after uint64, yield func(control.Entry, error) bool) (uint64, bool) {
	for f, err := range s.log.Follow(ctx, after) {
		var gap *journal.GapError
		switch {
		case errors.As(err, &gap):
			e := note(gap.First-1, "supervisor.journal_gap", map[string]any{"after": after, "first": gap.First})
			return gap.First - 1, yield(e, nil)
		case err != nil:
			yield(control.Entry{}, err)
			return 0, false
		}
		e, err := decode(f)
		if err != nil {
			e = note(f.Seq, "supervisor.journal_unreadable", map[string]any{"seq": f.Seq, "key": f.Key, "error": err.Error()})
		}
		if !yield(e, nil) {
			return 0, false
		}
		after = f.Seq
	}
	return 0, false
}

// note is an entry that tells something of the journal itself.
func note(seq uint64, event string, data map[string]any) control.Entry {
	e := control.Event{Type: event}
	e.Data, _ = json.Marshal(data)
	return control.Entry{Seq: seq, Time: time.Now().UTC(), Events: []control.Event{e}}
}

// decode reads a frame as an entry.
func decode(f journal.Frame) (control.Entry, error) {
	var e control.Entry
	if err := json.Unmarshal(f.Payload, &e); err != nil {
		return control.Entry{Seq: f.Seq, Time: f.Time}, fmt.Errorf("cannot read journal entry %d (%s): %w", f.Seq, f.Key, err)
	}
	e.Seq, e.Time = f.Seq, f.Time
	if e.Record != nil {
		e.Record.Seq = f.Seq
	}
	return e, nil
}

// followers are the calls of Follow under way, each by a server.
type followers struct {
	sync.WaitGroup
	first chan struct{} // closed when the first one comes
	once  sync.Once
}

func (f *followers) enter() {
	f.Add(1)
	f.once.Do(func() { close(f.first) })
}

// awaitFollowers waits until nobody follows the journal, at most for d. When a
// process has asked for the end, it first waits for a server that is still
// coming up: it shall read so, and not take us for lost.
func (s *Supervisor) awaitFollowers(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	if _, asked := s.ExitCode(); asked {
		select {
		case <-s.followers.first:
		case <-t.C:
			return
		}
	}
	none := make(chan struct{})
	go func() {
		s.followers.Wait()
		close(none)
	}()
	select {
	case <-none:
	case <-t.C:
	}
}
