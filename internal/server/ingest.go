package server

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
)

// source is the name under which the event log keeps the cursor of a journal.
func (s *Server) source() string {
	info, _, _ := s.att.told()
	return "supervisor/" + info.Journal
}

// maxBatch bounds the entries of one transaction.
const maxBatch = 512

// ingest copies the journal into the event log and the table until ctx or the
// supervisor's connection ends. Events and the cursor that they came with are
// one transaction, so that nothing is lost or doubled wherever it is cut off.
func (s *Server) ingest(ctx context.Context, sup control.Supervisor) error {
	after, err := s.events.Cursor(ctx, s.source())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	entries, errs := collect(ctx, sup.Follow(ctx, after))
	defer func() {
		// The reading has ended before the supervisor is let go of.
		cancel()
		for range entries {
		}
	}()
	var acked time.Time
	for {
		batch, ok := nextBatch(ctx, entries)
		if !ok {
			return <-errs
		}
		last, err := s.take(ctx, batch)
		if err != nil {
			return err
		}
		// The journal may drop what is safe here. Once a second is enough.
		if time.Since(acked) > time.Second {
			if err := sup.Ack(ctx, last); err != nil {
				return err
			}
			acked = time.Now()
		}
	}
}

// collect turns a sequence into a bounded channel; the error comes when the
// channel is closed.
func collect(ctx context.Context, seq iter.Seq2[control.Entry, error]) (<-chan control.Entry, <-chan error) {
	out := make(chan control.Entry, maxBatch)
	errs := make(chan error, 1)
	go func() {
		defer close(out)
		for e, err := range seq {
			if err != nil {
				errs <- err
				return
			}
			select {
			case out <- e:
			case <-ctx.Done():
				errs <- ctx.Err()
				return
			}
		}
		errs <- errors.Join(ctx.Err(), errors.New("the journal's stream ended"))
	}()
	return out, errs
}

// nextBatch waits for one entry and takes what else is there.
func nextBatch(ctx context.Context, in <-chan control.Entry) ([]control.Entry, bool) {
	var batch []control.Entry
	select {
	case e, ok := <-in:
		if !ok {
			return nil, false
		}
		batch = append(batch, e)
	case <-ctx.Done():
		return nil, false
	}
	for len(batch) < maxBatch {
		select {
		case e, ok := <-in:
			if !ok {
				return batch, true
			}
			batch = append(batch, e)
		default:
			return batch, true
		}
	}
	return batch, true
}

// take makes a batch durable, and only then visible.
func (s *Server) take(ctx context.Context, batch []control.Entry) (uint64, error) {
	var events []api.Event
	for _, e := range batch {
		for _, ev := range e.Events {
			events = append(events, api.Event{Time: e.Time, Type: ev.Type, ProcessID: ev.ProcessID, Name: ev.Name,
				Generation: ev.Generation, Data: ev.Data})
		}
	}
	last := batch[len(batch)-1].Seq
	if err := s.append(ctx, last, events); err != nil {
		return 0, err
	}
	for _, e := range batch {
		switch {
		case e.Removed && e.Record != nil:
			s.table.drop(e.Record.Name, e.Seq)
			s.sampler.forget(e.Record.Name)
		case e.Record != nil:
			s.table.put(*e.Record)
		}
		if e.Exit != nil {
			s.end.ask(*e.Exit)
		}
	}
	s.table.reached(last)
	return last, nil
}

// append writes events, again and again while the database cannot be written:
// the journal keeps them until then.
func (s *Server) append(ctx context.Context, cursor uint64, events []api.Event) error {
	const pause = time.Second
	for warned := false; ; {
		err := s.events.AppendFrom(ctx, s.source(), cursor, events)
		if err == nil {
			s.heldUp.Store(nil)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		why := err.Error()
		s.heldUp.Store(&why)
		if !warned {
			s.o.Logger.Error("Cannot write the event log; the journal keeps the events", "error", err)
			warned = true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
