package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// Emit puts an event into the outbox and returns: it never waits. data is what
// encoding/json makes of it; nil stands for {}. The name has letters, digits,
// "_", "-", "." and ":". When the outbox is full the error is ErrFull and
// nothing was taken.
func (w *Worker) Emit(name string, data any) error {
	_, err := w.event(name, data, false)
	return err
}

// EmitAcked emits an event and waits until it is durable. It also waits for room in the
// outbox. A *RefusedError says that Perdure does not take it. When ctx ends
// while the event is in the outbox, it is still delivered.
func (w *Worker) EmitAcked(ctx context.Context, name string, data any) error {
	for {
		var change chan struct{}
		if w.addressed() {
			w.mu.Lock()
			change = w.change
			w.mu.Unlock()
		}
		wait, err := w.event(name, data, true)
		if err == nil && wait != nil {
			select {
			case <-wait.done:
				return wait.err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != ErrFull { //nolint:errorlint // it is never wrapped here
			return err
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrFull, ctx.Err())
		}
	}
}

func (w *Worker) event(name string, data any, acked bool) (*waiter, error) {
	if !w.addressed() {
		return nil, nil
	}
	text, err := encode(data)
	if err != nil {
		return nil, fmt.Errorf("cannot emit %q: %w", name, err)
	}
	if text == nil {
		text = json.RawMessage("{}")
	}
	return w.keep(wire.Event, wire.Sent{Event: name, Data: text, Timestamp: time.Now().UnixMilli()}, acked)
}

// Ready says that the program is ready to do its work. It goes through the
// outbox, as Reloading, Stopping, Unhealthy and Log do: their errors are those of Emit.
func (w *Worker) Ready() error { return w.put(wire.Ready, wire.Sent{}) }

// Reloading says that the program reads its configuration again; Ready ends that.
func (w *Worker) Reloading() error { return w.put(wire.Reloading, wire.Sent{}) }

// Stopping says that the program has begun to end.
func (w *Worker) Stopping() error { return w.put(wire.Stopping, wire.Sent{}) }

// Unhealthy says that the program knows that it is broken: it is treated as one
// whose heartbeats have failed.
func (w *Worker) Unhealthy(message string) error {
	return w.put(wire.Unhealthy, wire.Sent{Message: &message})
}

// Status says in one line what the program does. Only the latest one counts;
// 4096 bytes of it are kept.
func (w *Worker) Status(text string) error {
	text = wire.Clip(text, wire.MaxStatus)
	return w.say(slotStatus, wire.Status, wire.Sent{Status: &text})
}

// Progress says how far the program is, in percent from 0 to 100, and what it is
// at; the message may be empty. Only the latest one counts.
func (w *Worker) Progress(percent float64, message string) error {
	s := wire.Sent{Percent: &percent}
	if message != "" {
		s.Message = &message
	}
	return w.say(slotProgress, wire.Progress, s)
}

// Extend says that the program needs d more, from now, to become ready or to stop.
func (w *Worker) Extend(d time.Duration) error {
	if d < time.Millisecond {
		return fmt.Errorf("cannot extend by %s: it must be a millisecond or more", d)
	}
	return w.say(slotExtend, wire.Extend, wire.Sent{Timeout: d.Milliseconds()})
}

// Stats says what the program uses: an object, such as what Measure returns,
// with any numbers of the program's own.
func (w *Worker) Stats(stats any) error {
	if !w.addressed() {
		return nil
	}
	text, err := encode(stats)
	if err != nil {
		return fmt.Errorf("cannot send stats: %w", err)
	}
	if len(text) == 0 || text[0] != '{' {
		return errors.New("cannot send stats: they must be an object")
	}
	return w.say(slotStats, wire.Stats, wire.Sent{Stats: text})
}

// Heartbeat says that the program gets on with its work. It never waits, and may
// be called as often as one likes: one within a quarter of the interval that
// Perdure asks for is not sent.
func (w *Worker) Heartbeat() {
	if !w.addressed() {
		return
	}
	now := time.Now()
	w.mu.Lock()
	if b := w.link.welcome.Heartbeat; b == nil || now.Sub(w.link.beat) >= time.Duration(b.IntervalMs)*time.Millisecond/4 {
		w.beat(now)
	}
	w.mu.Unlock()
	w.nudge()
}

// beat puts a heartbeat into its slot. The lock is held.
func (w *Worker) beat(now time.Time) {
	w.link.beat = now
	w.fill(slotHeartbeat, wire.AppendHeartbeat(nil, now.UnixMilli()))
}

// fill puts a line into a slot. The lock is held.
func (w *Worker) fill(s int, line []byte) {
	if w.latest[s].pending {
		w.counts.Dropped++
	}
	w.latest[s] = slot{line: line, pending: true}
}

// say sends a message of which only the latest counts.
func (w *Worker) say(s int, k wire.Kind, m wire.Sent) error {
	if !w.addressed() {
		return nil
	}
	m.Timestamp = time.Now().UnixMilli()
	line, err := lineOf(k, m)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return ErrClosed
	}
	w.fill(s, line)
	w.nudge()
	return nil
}

func (w *Worker) put(k wire.Kind, m wire.Sent) error {
	m.Timestamp = time.Now().UnixMilli()
	_, err := w.keep(k, m, false)
	return err
}

// keep puts a message into the outbox.
func (w *Worker) keep(k wire.Kind, m wire.Sent, acked bool) (*waiter, error) {
	if !w.addressed() {
		return nil, nil
	}
	line, err := lineOf(k, m)
	if err != nil {
		return nil, err
	}
	var wait *waiter
	if acked {
		wait = &waiter{done: make(chan struct{})}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(line) + maxIDField; n > w.box.maxBytes {
		return nil, fmt.Errorf("cannot take a message of %d bytes into an outbox of %d", n, w.box.maxBytes)
	}
	if w.closing && k != wire.Reply {
		return nil, ErrClosed
	}
	if !w.box.room(len(line)) {
		w.box.full++
		return nil, ErrFull
	}
	w.box.add(line, wait)
	w.nudge()
	return wait, nil
}

// lineOf makes the line of a message, without its id.
func lineOf(k wire.Kind, m wire.Sent) ([]byte, error) {
	line, err := wire.AppendSentBy(nil, k, m)
	if err != nil {
		return nil, fmt.Errorf("cannot send %s: %w", k, err)
	}
	if n := len(line) - 1 + maxIDField; n > wire.MaxLine {
		return nil, fmt.Errorf("cannot send %s: the message has %d bytes, %d at most are taken", k, n, wire.MaxLine)
	}
	if depth(line) > wire.MaxDepth {
		return nil, fmt.Errorf("cannot send %s: the data is nested deeper than %d", k, wire.MaxDepth)
	}
	return line, nil
}

// encode makes JSON of a value; nil stays nil.
func encode(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// depth is how deep the objects and arrays of a JSON text are nested.
func depth(text []byte) int {
	deepest, now, inText := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++ // a backslash stands in texts only
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
