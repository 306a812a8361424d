package worker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// Worker is the program's end of the connection to Perdure. It connects by
// itself, again and again until it is closed. Its methods are safe for
// concurrent use, and all of them work on a nil *Worker as without supervision.
type Worker struct {
	o        Options
	who      Identity
	metadata json.RawMessage // from the environment; nil: ask welcome
	instance string
	timing   timing
	measure  meter

	cancel context.CancelFunc // ends run at once
	done   chan struct{}      // closed when run has ended
	wake   chan struct{}      // tells the writer that there is something to do
	calls  *calls             // runs what belongs to the program

	mu      sync.Mutex
	link    link
	box     outbox
	latest  [numSlots]slot
	change  chan struct{} // closed, and made anew, whenever somebody's wait may be over
	closing bool          // nothing new is taken but replies
	leaving bool          // and no command runs any more that could reply
	counts  Counters
}

// link is what stands of the connection to Perdure.
type link struct {
	welcomed bool // now; welcome is the last one, kept over a loss
	welcome  wire.Welcome
	told     bool      // hello has said that commands are taken
	refusal  wire.Code // the error that hello was answered with
	beat     time.Time // when the last heartbeat was sent
}

// timing are the times of the protocol, apart so that tests need not wait.
type timing struct {
	first, most time.Duration // the shortest and the longest wait between two tries
	welcome     time.Duration // how long Perdure may take to answer hello
	denied      time.Duration // the wait after a refused hello
	bye         time.Duration // how long Perdure may take to hang up in the end
}

func protocol() timing {
	return timing{first: 100 * time.Millisecond, most: 2 * time.Second, welcome: 10 * time.Second, denied: 30 * time.Second, bye: 2 * time.Second}
}

// The slots: messages of which only the latest counts. They do not wait behind
// the outbox.
const (
	slotHeartbeat = iota
	slotExtend
	slotStatus
	slotProgress
	slotStats
	numSlots
)

// slot is the latest message of its kind.
type slot struct {
	line    []byte
	pending bool // not sent yet
}

// Start makes a worker and lets it connect. It does not wait for the
// connection, and succeeds when Perdure is away: what is emitted waits in the
// outbox. Without supervision, which is when neither the options nor the
// environment name an address, the worker does nothing. Close it in the end.
func Start(o Options) (*Worker, error) { return start(o, os.Getenv, protocol()) }

func start(o Options, getenv func(string) string, t timing) (*Worker, error) {
	o, err := o.complete(getenv)
	if err != nil {
		return nil, err
	}
	w := &Worker{o: o, who: identity(getenv), timing: t, done: make(chan struct{}), wake: make(chan struct{}, 1), change: make(chan struct{})}
	w.box = outbox{maxMessages: o.MaxMessages, maxBytes: o.MaxBytes}
	w.instance = rand.Text()
	if text := getenv("PERDURE_METADATA"); json.Valid([]byte(text)) {
		w.metadata = json.RawMessage(text)
	}
	if !w.addressed() {
		close(w.done)
		return w, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.calls = newCalls(ctx, o.Commands)
	go w.run(ctx)
	return w, nil
}

// addressed says whether there is somebody to connect to.
func (w *Worker) addressed() bool { return w != nil && (w.o.Socket != "" || w.o.Address != "") }

// Supervised says whether the program runs under Perdure. It does not say
// whether the connection stands.
func (w *Worker) Supervised() bool { return w.addressed() }

// Identity returns who the program is, from the environment.
func (w *Worker) Identity() Identity {
	if w == nil {
		return Identity{}
	}
	return w.who
}

// Connected waits until Perdure has welcomed the worker and the connection
// stands, or ctx ends.
func (w *Worker) Connected(ctx context.Context) error {
	if !w.addressed() {
		return nil
	}
	return w.until(ctx, func() bool { return w.link.welcomed })
}

// Metadata reads the metadata of the process into v as encoding/json does; when
// there is none v stays as it is. It waits for the connection, until ctx ends,
// when the environment does not hold them (they are long or secret).
func (w *Worker) Metadata(ctx context.Context, v any) error {
	if w == nil {
		return nil
	}
	text := w.metadata
	if text == nil && w.addressed() {
		known := func() bool { return w.link.welcome.Version > 0 }
		if err := w.until(ctx, known); err != nil {
			return fmt.Errorf("cannot learn the metadata: %w", err)
		}
		w.mu.Lock()
		text = w.link.welcome.Metadata
		w.mu.Unlock()
	}
	if text == nil {
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("cannot read the metadata: %w", err)
	}
	return nil
}

// Grace is how long Perdure waits between the signal that asks the program to
// stop and SIGKILL; 0 while that is not known.
func (w *Worker) Grace() time.Duration {
	if !w.addressed() {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.grace()
}

func (w *Worker) grace() time.Duration {
	if s := w.link.welcome.Stop; s != nil {
		return time.Duration(s.GraceMs) * time.Millisecond
	}
	return 0
}

// Counters returns what became of the messages so far.
func (w *Worker) Counters() Counters {
	if !w.addressed() {
		return Counters{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counts
	c.Waiting, c.WaitingBytes = len(w.box.items), w.box.bytes
	c.Settled, c.Refused, c.Full = w.box.settled, w.box.refused, w.box.full
	c.Dropped += w.calls.dropped.Load()
	return c
}

// Flush waits until everything that was accepted before is settled, and until
// the latest status and progress are sent, or ctx ends.
func (w *Worker) Flush(ctx context.Context) error {
	if !w.addressed() {
		return nil
	}
	w.mu.Lock()
	last := w.box.last
	w.mu.Unlock()
	return w.until(ctx, func() bool { return w.flushed(last) })
}

// flushed says whether everything up to the id is settled and the slots that
// matter are sent. The lock is held.
func (w *Worker) flushed(last uint64) bool {
	for _, s := range []int{slotExtend, slotStatus, slotProgress} {
		if w.latest[s].pending {
			return false
		}
	}
	return len(w.box.items) == 0 || w.box.items[0].id > last
}

// Close ends in order: commands are cancelled, the outbox is waited for, and
// Perdure is told that the worker hangs up on purpose. It is bounded by ctx, or
// by Options.CloseTimeout when ctx has no deadline; what is not settled by then
// is lost, and the error says how much. Later calls return ErrClosed.
func (w *Worker) Close(ctx context.Context) error {
	if !w.addressed() {
		return nil
	}
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		<-w.done
		return ErrClosed
	}
	w.closing = true
	limit := w.o.CloseTimeout
	if grace := w.grace() * 3 / 4; limit == 0 {
		if limit = 5 * time.Second; grace > 0 {
			limit = min(limit, grace)
		}
	}
	w.mu.Unlock()
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	late := w.calls.end(ctx)
	w.mu.Lock()
	w.leaving = true
	w.mu.Unlock()
	w.nudge()
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	w.cancel()
	<-w.done
	late = errors.Join(late, w.calls.finish(ctx))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.box.abandon(ErrClosed)
	w.tell()
	if n := len(w.box.items); n > 0 {
		return errors.Join(late, fmt.Errorf("cannot deliver %d messages: Perdure has not settled them in time", n))
	}
	return late
}

// until waits until is holds, which is asked under the lock, or ctx ends, or the
// worker has ended.
func (w *Worker) until(ctx context.Context, is func() bool) error {
	for {
		w.mu.Lock()
		ok, change := is(), w.change
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-change:
		case <-w.done:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tell lets those who wait look again. The lock is held.
func (w *Worker) tell() {
	close(w.change)
	w.change = make(chan struct{})
}

// nudge wakes the writer.
func (w *Worker) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
