package supervisor

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/journal"
)

// ownedLog is the journal of a state directory that is ours. When the directory
// was removed or replaced under us, every write fails: what we would write is
// seen by nobody, and another supervisor may own what is there now. So, as with
// any journal that cannot be written, what lives is watched on, stops go ahead,
// and nothing is started.
type ownedLog struct {
	j    *journal.Journal
	lock *flock.Lock
}

func (l ownedLog) owned() error {
	if err := l.lock.Check(); err != nil {
		return fmt.Errorf("the state directory is not ours any more: %w", err)
	}
	return nil
}

func (l ownedLog) Write(key string, payload []byte) (uint64, error) {
	if err := l.owned(); err != nil {
		return 0, err
	}
	return l.j.Write(key, payload)
}

func (l ownedLog) WriteDelete(key string, payload []byte) (uint64, error) {
	if err := l.owned(); err != nil {
		return 0, err
	}
	return l.j.WriteDelete(key, payload)
}

func (l ownedLog) Durable(seq uint64) error { return l.j.Durable(seq) }

func (l ownedLog) SetSyncEvery(every time.Duration) { l.j.SetSyncEvery(every) }

func (l ownedLog) FollowBatches(ctx context.Context, after uint64, o journal.BatchOptions) iter.Seq2[[]journal.Frame, error] {
	return l.j.FollowBatches(ctx, after, o)
}

func (l ownedLog) Ack(seq uint64) error { return l.j.Ack(seq) }
func (l ownedLog) LastSeq() uint64      { return l.j.LastSeq() }
func (l ownedLog) Size() int64          { return l.j.Stats().Bytes }
