package supervisor

import (
	"context"
	"errors"
	"sync"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/proc"
)

// passing is one call of Pass: what the server that called it has still to be
// given. It holds at most one offer for each process, the newest.
type passing struct {
	news chan struct{} // gets a value when there may be something to pass
	over chan struct{} // closed when another call takes this one's place

	mu     sync.Mutex
	offers map[string]offer
	order  []string
}

// offer is a live generation that can be held. Its descriptors are made when it
// is passed, so that a start does not wait for them.
type offer struct {
	held control.Held
	proc live
	sink sink
}

func (p *passing) put(o offer) {
	p.mu.Lock()
	if _, waits := p.offers[o.held.Name]; !waits {
		p.order = append(p.order, o.held.Name)
	}
	p.offers[o.held.Name] = o
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// next takes the oldest offer.
func (p *passing) next() (o offer, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.order) == 0 {
		p.order = nil
		return offer{}, false
	}
	o = p.offers[p.order[0]]
	delete(p.offers, p.order[0])
	p.order = p.order[1:]
	return o, true
}

// Pass implements control.Passer.
func (s *Supervisor) Pass(ctx context.Context, reaps bool, send func(control.Held) error) error {
	p := &passing{news: make(chan struct{}, 1), over: make(chan struct{}), offers: map[string]offer{}}
	if before := s.servers.passing.Swap(p); before != nil {
		close(before.over)
	}
	s.host.relayed(reaps)
	s.servers.reaps.Store(reaps)
	defer func() {
		if s.servers.passing.CompareAndSwap(p, nil) {
			s.host.relayed(false)
		}
	}()
	s.mu.Lock()
	for _, a := range s.actors {
		a.post(message{do: (*actor).offer})
	}
	s.mu.Unlock()
	for {
		for o, ok := p.next(); ok; o, ok = p.next() {
			if err := s.pass(o, send); err != nil {
				return err
			}
		}
		select {
		case <-p.news:
		case <-p.over:
			return api.Errorf(api.CodeConflict, "another server holds the processes now")
		case <-ctx.Done():
			return nil
		}
	}
}

// pass makes the descriptors of an offer and sends it. What cannot be made is not
// passed: the process has ended, or there is no room, which doctor tells.
func (s *Supervisor) pass(o offer, send func(control.Held) error) error {
	fd, err := o.proc.PidFD()
	if err != nil {
		if !errors.Is(err, proc.ErrGone) {
			s.o.Logger.Warn("Cannot let the server hold a process", "process", o.held.Name, "error", err)
		}
		return nil
	}
	o.held.FDs = []int{fd}
	defer func() { control.CloseFDs(o.held.FDs) }()
	if o.sink != nil {
		fifos, err := o.sink.FIFOs()
		if err != nil {
			s.o.Logger.Warn("Cannot let the server hold the output of a process", "process", o.held.Name, "error", err)
		}
		o.held.FDs = append(o.held.FDs, fifos...)
	}
	return send(o.held)
}

// Told implements control.Passer.
func (s *Supervisor) Told(r control.Reaped) { s.host.told(r.Identity, r.Exit) }

// offer lets the server, if there is one, hold the live generation. It waits for
// nobody.
func (a *actor) offer() error {
	p := a.sup.servers.passing.Load()
	if p == nil || a.proc == nil || a.ident == nil {
		return nil
	}
	p.put(offer{proc: a.proc, sink: a.sink, held: control.Held{Name: a.who.name, ID: a.who.id,
		Generation: a.state.Generation, Seq: a.seq, Identity: *a.ident}})
	return nil
}

// byName sorts what was handed over; each process is there once.
func byName(all []control.Held) map[string]control.Held {
	out := make(map[string]control.Held, len(all))
	for _, h := range all {
		control.CloseFDs(out[h.Name].FDs)
		out[h.Name] = h
	}
	return out
}

// past is what a process was, as the journal and who has held it tell.
type past struct {
	// otherBoot says that the journaled state is of another boot of the machine.
	otherBoot bool
	// boot is the number of the boot of Perdure that has begun the process last: what
	// a later one finds, it begins anew. 0 is none.
	boot uint64
	// over says that everything has been ended since.
	over bool
	// held is what somebody has held of the recorded generation. Its descriptors
	// are the actor's until they are taken over.
	held *control.Held
}

// takeHeld gives an actor what was held of the generation that it has under way.
// Anything else is of no use.
func (a *actor) takeHeld(all map[string]control.Held) {
	h, ok := all[a.who.name]
	s := &a.state
	if ok && h.ID == a.who.id && h.Generation == s.Generation && (s.Alive || s.SpawnPending) && (a.ident == nil || *a.ident == h.Identity) {
		delete(all, a.who.name)
		a.past.held = &h
	}
}

// heldFIFOs are the FIFOs that were held; nil where there are none.
func (a *actor) heldFIFOs() []int {
	if a.past.held == nil || len(a.past.held.FDs) < 3 {
		return nil
	}
	return a.past.held.FDs[1:3]
}

// adoptHeld adopts the recorded generation by the pidfd that was held. It may
// have ended: then its real exit follows, as if it had ended now. It returns 0
// when that cannot be done.
func (a *actor) adoptHeld() int {
	h := a.past.held
	if h == nil || len(h.FDs) == 0 || a.leaderEnded() {
		return 0 // of a leader whose end is recorded there is nothing more to be learnt
	}
	p, err := a.sup.host.adoptHeld(h.Identity, h.FDs[0], h.Exit, a.notify(h.Generation))
	if err != nil {
		a.sup.o.Logger.Warn("Cannot adopt a process by what was held of it", "process", a.who.name, "pid", h.Identity.PID, "error", err)
		return 0
	}
	h.FDs[0] = -1 // it is the host's
	a.proc, a.ident = p, &h.Identity
	return h.Identity.PID
}

// letGo closes what was held and is not needed.
func (a *actor) letGo() {
	if h := a.past.held; h != nil {
		for _, fd := range h.FDs {
			if fd >= 0 {
				control.CloseFDs([]int{fd})
			}
		}
		a.past.held = nil
	}
}
