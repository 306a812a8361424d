package server

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
)

// source is the name under which the event log keeps the cursor of a journal.
func (s *Server) source() string {
	info, _, _ := s.att.told()
	return "supervisor/" + info.Journal
}

// The bounds of what one transaction takes: entries, and batches as they are
// read. What is beyond waits in the journal.
const (
	maxEntries = 8192
	maxBatches = 64
)

// maxGather bounds how long entries are gathered for one transaction, and so how
// far the picture is behind while nothing else holds it up.
const maxGather = 100 * time.Millisecond

// ingest copies the journal into the event log and the table until ctx or the
// supervisor's connection ends. Events and the cursor that they came with are
// one transaction, so that nothing is lost or doubled wherever it is cut off.
//
// An event alone in its transaction costs twenty times one of a thousand. So
// transactions take a fifth of the time at most: meanwhile entries gather, and
// the more there is to do the less each costs.
func (s *Server) ingest(ctx context.Context, sup control.Supervisor) error {
	after, err := s.events.Cursor(ctx, s.source())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	batches, errs := collect(ctx, sup.Follow(ctx, after))
	defer func() {
		// The reading has ended before the supervisor is let go of.
		cancel()
		for range batches {
		}
	}()
	var acked time.Time
	for {
		frames, ok := nextBatch(ctx, batches)
		if !ok {
			return <-errs
		}
		begun := time.Now()
		last, err := s.take(ctx, frames)
		if err != nil {
			return err
		}
		// The journal may drop what is safe here. Once a second is enough.
		if time.Since(acked) > time.Second {
			fault.Here("server.ack.before")
			if err := s.acknowledge(ctx, sup, last); err != nil {
				return err
			}
			fault.Here("server.ack.after")
			acked = time.Now()
		}
		pause(ctx, min(4*time.Since(begun), maxGather))
	}
}

// acknowledge lets the journal drop what is safe from a loss of power here as well.
// While that cannot be had the journal keeps it.
func (s *Server) acknowledge(ctx context.Context, sup control.Supervisor, last uint64) error {
	if s.store != nil {
		if err := s.store.Flush(); err != nil {
			s.o.Logger.Warn("The event log cannot be flushed to the disk; the journal keeps the events", "error", err)
			return nil
		}
	}
	return sup.Ack(ctx, last)
}

// collect turns a sequence into a bounded channel; the error comes when the
// channel is closed.
func collect(ctx context.Context, seq iter.Seq2[[]control.Frame, error]) (<-chan []control.Frame, <-chan error) {
	out := make(chan []control.Frame, maxBatches)
	errs := make(chan error, 1)
	go func() {
		defer close(out)
		for frames, err := range seq {
			if err != nil {
				errs <- err
				return
			}
			select {
			case out <- frames:
			case <-ctx.Done():
				errs <- ctx.Err()
				return
			}
		}
		errs <- errors.Join(ctx.Err(), errors.New("the journal's stream ended"))
	}()
	return out, errs
}

// nextBatch waits for entries and takes what else is there.
func nextBatch(ctx context.Context, in <-chan []control.Frame) ([]control.Frame, bool) {
	select {
	case frames, ok := <-in:
		for ok && len(frames) < maxEntries {
			select {
			case more, open := <-in:
				frames = append(frames, more...)
				if !open {
					return frames, true
				}
			default:
				return frames, true
			}
		}
		return frames, ok
	case <-ctx.Done():
		return nil, false
	}
}

// take makes a batch durable, and only then visible. Of each key only the newest
// entry is shown, and only its record is decoded.
func (s *Server) take(ctx context.Context, frames []control.Frame) (uint64, error) {
	newest := make(map[string]int, len(frames))
	for i := range frames {
		newest[frames[i].Key] = i
	}
	var events []api.Event
	entries := make([]control.Entry, len(frames))
	for i, f := range frames {
		e, err := decode(f, newest[f.Key] == i)
		if err != nil {
			// A reader never stands still: that it cannot be read is told in its place.
			e = unreadable(f, err)
		}
		entries[i] = e
		for _, ev := range e.Events {
			events = append(events, api.Event{Time: happened(ev, e), Type: ev.Type, ProcessID: ev.ProcessID, Name: ev.Name,
				Generation: ev.Generation, Data: ev.Data})
		}
	}
	last := frames[len(frames)-1].Seq
	fault.Here("server.ingest.before")
	if err := s.append(ctx, last, events); err != nil {
		return 0, err
	}
	fault.Here("server.ingest.after")
	s.table.take(entries, last)
	for _, e := range entries {
		s.held.read(e)
		if e.Removed && e.Record != nil {
			s.sampler.forget(e.Record.Name)
		}
		if e.Boot != nil {
			s.end.over.Store(e.Boot.Over)
		}
		// A wish that a supervisor before has heard is done, or asked for again.
		if e.Exit != nil && e.Seq > s.att.met() {
			s.end.ask(*e.Exit)
		}
	}
	return last, nil
}

// happened is when an event was: with its entry, unless that had to wait.
func happened(ev control.Event, e control.Entry) time.Time {
	if ev.Time.IsZero() {
		return e.Time
	}
	return ev.Time
}

// decode reads of an entry what is needed.
func decode(f control.Frame, newest bool) (control.Entry, error) {
	if !newest {
		if e, err := f.Told(); err != nil || !e.Removed {
			return e, err
		}
	}
	return f.Entry()
}

// unreadable stands for an entry that cannot be decoded.
func unreadable(f control.Frame, err error) control.Entry {
	// The data is made of JSON's own types, so this cannot fail.
	data, _ := json.Marshal(map[string]any{"seq": f.Seq, "key": f.Key, "error": err.Error()})
	return control.Entry{Seq: f.Seq, Time: f.Time, Events: []control.Event{{Type: "supervisor.journal_unreadable", Data: data}}}
}

// append writes events, again and again while the database cannot be written:
// the journal keeps them until then.
func (s *Server) append(ctx context.Context, cursor uint64, events []api.Event) error {
	const pause = time.Second
	for {
		err := s.events.AppendFrom(ctx, s.source(), cursor, events)
		if err == nil {
			s.databaseWorks(ctx)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		s.databaseFails(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
