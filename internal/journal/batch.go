package journal

import (
	"context"
	"iter"
	"time"
)

// BatchOptions are the settings of FollowBatches.
type BatchOptions struct {
	// Frames and Bytes bound a batch; one frame alone may be larger than Bytes.
	// Default: 1024 frames, 1 MiB of payload.
	Frames, Bytes int
	// Linger is the time that a reader who has read everything gives further
	// entries to come once the first is there, so that a cascade of them is one
	// batch. Default 0: none.
	Linger time.Duration
}

// FollowBatches yields what Follow yields, in batches: all that is there, up to
// the bounds, and never an empty one. A batch belongs to whoever got it. With an
// error the batch is empty.
func (j *Journal) FollowBatches(ctx context.Context, after uint64, o BatchOptions) iter.Seq2[[]Frame, error] {
	if o.Frames <= 0 {
		o.Frames = 1024
	}
	if o.Bytes <= 0 {
		o.Bytes = 1 << 20
	}
	return func(yield func([]Frame, error) bool) {
		b := batcher{o: o, yield: yield}
		f := follower{j: j, next: after + 1, yield: b.take, idle: b.flush, linger: o.Linger}
		f.run(ctx)
		if !b.over {
			b.flush()
		}
	}
}

// batcher gathers frames.
type batcher struct {
	o      BatchOptions
	yield  func([]Frame, error) bool
	frames []Frame
	bytes  int
	over   bool // the caller has stopped
}

// take is the yield of a follower.
func (b *batcher) take(f Frame, err error) bool {
	if err != nil {
		if !b.flush() {
			return false
		}
		b.over = !b.yield(nil, err)
		return !b.over
	}
	b.frames = append(b.frames, f)
	b.bytes += len(f.Payload)
	if len(b.frames) >= b.o.Frames || b.bytes >= b.o.Bytes {
		return b.flush()
	}
	return true
}

// flush hands over what is gathered and says whether to go on.
func (b *batcher) flush() bool {
	if len(b.frames) == 0 {
		return true
	}
	frames := b.frames
	b.frames, b.bytes = nil, 0
	b.over = !b.yield(frames, nil)
	return !b.over
}

// rest waits for the linger and says whether to go on.
func (f *follower) rest(ctx context.Context) bool {
	t := time.NewTimer(f.linger)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-f.j.done:
	}
	return false
}
