package server

import (
	"context"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
)

// attachment is the supervisor that a server has, or why it has none. It is safe
// for concurrent use; only the guard changes it.
type attachment struct {
	mu      sync.Mutex
	sup     control.Supervisor // nil while it is away
	info    control.Info       // of the last one
	since   time.Time          // when sup was attached
	begun   uint64             // the last entry of the journal before the first supervisor that was attached
	away    string             // why there is none, for people
	rare    bool               // the breaker is open: it will be away for long
	changed chan struct{}      // closed at the next change
}

func newAttachment() *attachment { return &attachment{changed: make(chan struct{})} }

// get returns the supervisor, or why there is none.
func (a *attachment) get() (control.Supervisor, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sup == nil {
		return nil, a.absent()
	}
	return a.sup, nil
}

// absent needs mu.
func (a *attachment) absent() error {
	return api.Errorf(api.CodeUnavailable, "the supervisor is away: %s; the processes live on without it", a.away)
}

// told is what the supervisor has told of itself, and since when it is there.
func (a *attachment) told() (info control.Info, away string, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.info, a.away, a.since
}

// met is the last entry of the journal that is older than all supervisors that
// this server has met.
func (a *attachment) met() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.begun
}

func (a *attachment) set(sup control.Supervisor, info control.Info) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if info.Journal != a.info.Journal {
		a.begun = info.OpenSeq
	}
	a.sup, a.info, a.since = sup, info, time.Now()
	a.away, a.rare = "", false
	a.touch()
}

// drop notes that there is no supervisor, and why; rare says that this will last.
// It returns the one that was there.
func (a *attachment) drop(why string, rare bool) control.Supervisor {
	a.mu.Lock()
	defer a.mu.Unlock()
	sup := a.sup
	a.sup, a.away, a.rare = nil, why, rare
	a.touch()
	return sup
}

// touch needs mu.
func (a *attachment) touch() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// awayPatience is how long a request waits for a supervisor that is away.
const awayPatience = 5 * time.Second

// await waits for a supervisor other than before. The wait is bounded, and there
// is none while the breaker is open.
func (a *attachment) await(ctx context.Context, before control.Supervisor) (control.Supervisor, error) {
	late := time.NewTimer(awayPatience)
	defer late.Stop()
	for {
		a.mu.Lock()
		sup, rare, changed, absent := a.sup, a.rare, a.changed, a.absent()
		a.mu.Unlock()
		switch {
		case sup != nil && sup != before:
			return sup, nil
		case rare:
			return nil, absent
		}
		select {
		case <-changed:
		case <-late.C:
			return nil, absent
		case <-ctx.Done():
			return nil, absent
		}
	}
}

// mortal is a supervisor that may die without us. The embedded one may not.
type mortal interface {
	// Closed is closed when the supervisor is lost.
	Closed() <-chan struct{}
	Close() error
}

// lostOf is closed when a supervisor is lost; nil for one that cannot be.
func lostOf(sup control.Supervisor) <-chan struct{} {
	if m, ok := sup.(mortal); ok {
		return m.Closed()
	}
	return nil
}

// letGo closes the connection to a supervisor that is reached by one.
func letGo(sup control.Supervisor) {
	if m, ok := sup.(mortal); ok {
		_ = m.Close() // what is under way fails, and that is told to whoever asked
	}
}

// ask calls the supervisor, after a bounded wait when it is away. If it dies
// under the call, the call is made with the next one once more, where again says
// that this does no harm; else nobody can tell whether it was carried out.
func (s *Server) ask(ctx context.Context, again bool, call func(control.Supervisor) error) error {
	var before control.Supervisor
	for {
		sup, err := s.att.await(ctx, before)
		if err != nil {
			return err
		}
		lost := lostOf(sup)
		err = call(sup)
		switch {
		case api.CodeOf(err) != api.CodeUnavailable || !isClosed(lost) || ctx.Err() != nil:
			return err
		case !again:
			return api.Errorf(api.CodeUnavailable, "the supervisor died while it was asked, and nobody can tell whether that was carried out; "+
				"look with `perdure status` before you ask again")
		}
		before = sup
	}
}
