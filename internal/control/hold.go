package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/proc"
)

// Held is what somebody who is not the supervisor holds of a live generation,
// so that neither its exit nor its last output is lost when the supervisor dies.
type Held struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	// Seq is the number of the last journal entry of the process when this was
	// sent: a reader that has come so far and knows no such process may let go.
	Seq      uint64        `json:"seq,omitempty"`
	Identity proc.Identity `json:"identity"`
	// Exit is how it ended, where the holder has reaped it.
	Exit *proc.Exit `json:"exit,omitempty"`
	// FDs are the pidfd and, where output is captured, the FIFOs of standard
	// output and error, in this order. None are there when the system had no room
	// for them. Whoever has the Held closes them (CloseFDs).
	FDs []int `json:"-"`
}

// Reaped is how a process ended that the supervisor has adopted, told by the
// server that has become its parent and reaped it.
type Reaped struct {
	Identity proc.Identity `json:"identity"`
	Exit     proc.Exit     `json:"exit"`
}

// Passer is a Supervisor that lets a server hold its processes.
type Passer interface {
	// Pass calls send with each live generation, now and whenever one is started,
	// until ctx ends or send fails; in between nothing waits for it. Reaps says
	// that the server becomes the parent of what the supervisor before has left,
	// and tells its exits. A later call ends an earlier one. The descriptors stay
	// Pass's, which closes them after send has returned.
	Pass(ctx context.Context, reaps bool, send func(Held) error) error
	// Told brings an exit that the server has reaped.
	Told(Reaped)
}

// holdParams are the parameters of hold.
type holdParams struct {
	Reaps bool `json:"reaps,omitempty"`
}

// heldLine is a line with descriptors: FDs says how many came with it.
type heldLine struct {
	Held  *Held      `json:"held,omitempty"`
	FDs   int        `json:"fds,omitempty"`
	Error *wireError `json:"error,omitempty"`
	// Of a hand-over only: its first line has Version and Reaps, its last Done, and
	// a few have Reaped.
	Version int      `json:"version,omitempty"`
	Reaps   bool     `json:"reaps,omitempty"`
	Reaped  []Reaped `json:"reaped,omitempty"`
	Done    bool     `json:"done,omitempty"`
}

// HandedOver is what a server hands over to a supervisor that it starts.
type HandedOver struct {
	Held []Held
	// Reaped are processes that the server has reaped and of which it was not told
	// whose they are: one may have been started just before the supervisor died.
	Reaped []Reaped
	// Reaps says that the server has become the parent of the processes, and will
	// tell their exits on its hold connection.
	Reaps bool
}

// reapedLine is a line of the server on a hold connection.
type reapedLine struct {
	Reaped *Reaped `json:"reaped,omitempty"`
}

// Hold has a connection of its own on which the supervisor passes its
// processes, until ctx ends or the connection is lost; after a death it first
// yields what was sent before. Take owns the descriptors that it is given. Exits
// is not closed while Hold runs; nil means that the server reaps nothing. A
// supervisor that cannot pass anything is api.CodeInvalid.
func (c *Client) Hold(ctx context.Context, exits <-chan Reaped, take func(Held)) error {
	conn, lines, err := c.handshake(ctx)
	if err != nil {
		return err
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer func() { _ = conn.Close() }() // nothing is written that could be lost
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	// Plain reads would lose descriptors: nothing may have been read ahead.
	r, err := newFDReader(conn, lines)
	if err != nil {
		return err
	}
	defer r.close()
	params, err := json.Marshal(holdParams{Reaps: exits != nil})
	if err != nil {
		return err
	}
	line, err := encodeLine(request{ID: 1, Method: methodHold, Params: params})
	if err == nil {
		_, err = conn.Write(line)
	}
	if err != nil {
		return unavailable(ctx, err)
	}
	sending.Go(func() {
		for {
			select {
			case x := <-exits: // never closed
				fault.Here("control.exit.before")
				if line, err := encodeLine(reapedLine{Reaped: &x}); err == nil {
					_, _ = conn.Write(line) // the reading shows a loss
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		l, fds, err := r.next()
		switch {
		case err != nil:
			return unavailable(ctx, err)
		case l.Error != nil:
			CloseFDs(fds)
			return l.Error.asError()
		case l.Held != nil:
			l.Held.FDs = fds
			take(*l.Held)
		default:
			CloseFDs(fds)
		}
	}
}

// hold turns the connection into a stream of descriptors one way, and of exits
// the other way.
func (c *serverConn) hold(ctx context.Context, cancel context.CancelFunc, lines *lineReader, req request) error {
	passer, ok := c.sup.(Passer)
	var p holdParams
	err := json.Unmarshal(req.Params, &p)
	if !ok {
		err = errors.New("this supervisor passes no descriptors")
	}
	if err != nil {
		return c.write(heldLine{Error: toWire(api.Errorf(api.CodeInvalid, "cannot hold: %v", err))})
	}
	var hearing sync.WaitGroup
	defer hearing.Wait()
	defer func() { _ = c.conn.Close() }() // ends the hearing
	hearing.Go(func() {
		defer cancel()
		for {
			line, err := lines.next()
			if err != nil {
				return
			}
			var l reapedLine
			if json.Unmarshal(line, &l) == nil && l.Reaped != nil {
				passer.Told(*l.Reaped)
			}
		}
	})
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	return passer.Pass(ctx, p.Reaps, func(h Held) error {
		fault.Here("control.hold.before")
		err := sendFDs(ctx, c.conn, heldLine{Held: &h, FDs: len(h.FDs)}, h.FDs)
		fault.Here("control.hold.after")
		return err
	})
}

// reapedPerLine keeps lines far below maxHeldLine.
const reapedPerLine = 8

// HandOver sends what is held to a supervisor that is being started, over the
// end of NewHandOver that is ours, and closes that. The descriptors stay the
// caller's. It returns when all is sent, or when the other end is gone or ctx
// ends.
func (h *HandOver) HandOver(ctx context.Context, o HandedOver) error {
	defer func() { _ = h.conn.Close() }() // all that matters has been sent
	defer context.AfterFunc(ctx, func() { _ = h.conn.Close() })()
	if err := sendFDs(ctx, h.conn, heldLine{Version: Version, Reaps: o.Reaps}, nil); err != nil {
		return fmt.Errorf("cannot hand over: %w", err)
	}
	for i := range o.Held {
		one := &o.Held[i]
		if err := sendFDs(ctx, h.conn, heldLine{Held: one, FDs: len(one.FDs)}, one.FDs); err != nil {
			return fmt.Errorf("cannot hand %q over: %w", one.Name, err)
		}
		fault.Here("control.handover.one")
	}
	for some := range slices.Chunk(o.Reaped, reapedPerLine) {
		if err := sendFDs(ctx, h.conn, heldLine{Reaped: some}, nil); err != nil {
			return fmt.Errorf("cannot hand over what was reaped: %w", err)
		}
	}
	fault.Here("control.handover.before_done")
	if err := sendFDs(ctx, h.conn, heldLine{Done: true}, nil); err != nil {
		return fmt.Errorf("cannot end the hand-over: %w", err)
	}
	return nil
}

// TakeOver reads what is handed over by the server that has started this
// process, on a descriptor that it has inherited, and closes that. It waits for
// patience at most. With an error it returns what came before it: a hand-over is
// a help, and none is no reason not to start.
func TakeOver(fd int, patience time.Duration) (HandedOver, error) {
	var o HandedOver
	conn, err := inherited(fd)
	if err != nil {
		return o, fmt.Errorf("cannot take over: %w", err)
	}
	defer func() { _ = conn.Close() }() // it was only read
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return o, fmt.Errorf("cannot take over: %w", err)
	}
	r, err := newFDReader(conn, nil)
	if err != nil {
		return o, err
	}
	defer r.close()
	for first := true; ; first = false {
		l, fds, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return o, errors.New("cannot take over all: the server ended before it had handed over everything")
		case err != nil:
			return o, fmt.Errorf("cannot take over all: %w", err)
		case first && l.Version != Version:
			CloseFDs(fds)
			return o, checkVersion(l.Version)
		case l.Held != nil:
			l.Held.FDs = fds
			o.Held = append(o.Held, *l.Held)
			continue
		}
		CloseFDs(fds)
		o.Reaped = append(o.Reaped, l.Reaped...)
		if o.Reaps = o.Reaps || l.Reaps; l.Done {
			return o, nil
		}
	}
}
