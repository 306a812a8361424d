package server

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/proc"
)

// holder holds what a dead supervisor would take with it: the pidfds of live
// generations, by which the kernel keeps their exits, and the FIFOs of their
// output, which keep what waits in them. It hands all of it to the next
// supervisor. It lets go of a pidfd when an entry of the journal that is safe
// here tells the end of the generation, and of FIFOs when the process is removed.
//
// A nil *holder holds nothing: it is that of an embedded supervisor.
type holder struct {
	logger *slog.Logger
	room   int  // how many descriptors it may hold
	reaps  bool // orphans become our children, and reaped is told their exits

	mu      sync.Mutex
	items   map[string]*heldItem // by the name of the process
	ends    map[string]ended     // the last end of each process that the journal has told
	refused map[string]uint64    // generations that are not held for want of room
	open    int                  // descriptors of items
	strays  []control.Reaped     // reaped, and of nobody that we know (yet); bounded
	stream  *holding             // nil: no supervisor is there
}

// heldItem is what is held of one process: the pidfd as long as the generation
// may live, and the FIFOs.
type heldItem struct {
	control.Held       // without its descriptors
	pidfd        int   // -1: the generation has ended
	fifos        []int // empty where output is not captured
	told         bool  // Exit was sent to the supervisor that is there now
}

// ended names a generation that is over.
type ended struct {
	id         string
	generation uint64
}

// holding is the taking of what one supervisor passes.
type holding struct {
	exits chan control.Reaped // nil: nothing is reaped
	news  chan struct{}       // gets a value when there may be an exit to tell
	stop  context.CancelFunc
	ended chan struct{}
}

const (
	// fdReserve is what is left for everything else that a server opens.
	fdReserve = 256
	// maxStrays is how many reaped strangers are remembered: one of them may be a
	// process of which we are told only afterwards.
	maxStrays = 1024
	// lastPassed bounds the wait for what a dead supervisor has passed before.
	lastPassed = time.Second
	// holdAgain is the wait before a lost connection is made again.
	holdAgain = time.Second
)

func newHolder(logger *slog.Logger, reaps bool) *holder {
	return &holder{logger: logger, reaps: reaps, room: maxFDs() - fdReserve,
		items: map[string]*heldItem{}, ends: map[string]ended{}, refused: map[string]uint64{}}
}

// passer is a supervisor that passes its processes; *control.Client is one.
type passer interface {
	mortal
	Hold(ctx context.Context, exits <-chan control.Reaped, take func(control.Held)) error
}

// follow begins to take what a supervisor passes, until that is closed or lost;
// finish waits for the end of it. Known is asked what processes there are.
func (h *holder) follow(ctx context.Context, sup control.Supervisor, known *table) {
	c, ok := sup.(passer)
	if h == nil || !ok {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &holding{news: make(chan struct{}, 1), stop: cancel, ended: make(chan struct{})}
	if h.reaps {
		s.exits = make(chan control.Reaped)
	}
	h.mu.Lock()
	h.stream = s
	h.mu.Unlock()
	go h.serve(ctx, s, c, known)
}

func (h *holder) serve(ctx context.Context, s *holding, c passer, known *table) {
	defer close(s.ended)
	var telling sync.WaitGroup
	defer telling.Wait()
	defer s.stop()
	telling.Go(func() { h.tell(ctx, s) })
	for {
		h.tellAnew(s)
		err := c.Hold(ctx, s.exits, func(held control.Held) { h.take(held, known) })
		if api.CodeOf(err) == api.CodeInvalid {
			h.logger.Info("The supervisor passes nothing: what ends while it is dead has an unknown exit code", "error", err)
			return
		}
		select {
		case <-time.After(holdAgain):
			h.logger.Warn("Cannot hear what to hold; it is tried again", "error", err)
		case <-c.Closed():
			return
		case <-ctx.Done():
			return
		}
	}
}

// finish returns when all that the supervisor has passed is taken and nothing
// more comes. The supervisor that follow was given must be closed already, or lost.
func (h *holder) finish() {
	if h == nil {
		return
	}
	h.mu.Lock()
	s := h.stream
	h.stream = nil
	h.mu.Unlock()
	if s == nil {
		return
	}
	// What a dead one has sent before is read to its end. One that lives has no end.
	bound := time.AfterFunc(lastPassed, s.stop)
	defer bound.Stop()
	<-s.ended
}

// close lets go of everything.
func (h *holder) close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	if h.stream != nil {
		h.stream.stop() // a supervisor that lives has no end that could be waited for
	}
	h.mu.Unlock()
	h.finish()
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, it := range h.items {
		h.drop(name, it)
	}
	return nil
}

// take holds what was passed. It owns the descriptors.
func (h *holder) take(held control.Held, known *table) {
	h.mu.Lock()
	defer h.mu.Unlock()
	it := h.items[held.Name]
	end := h.ends[held.Name]
	switch {
	case end.id == held.ID && end.generation >= held.Generation, known.without(held.Name, held.Seq):
		// The journal comes by another way, and was quicker.
		control.CloseFDs(held.FDs)
	case it != nil && it.ID == held.ID && it.Identity == held.Identity && it.pidfd >= 0 && len(it.fifos)+1 >= len(held.FDs):
		control.CloseFDs(held.FDs) // each supervisor passes what it has adopted
		it.Seq = held.Seq
	case len(held.FDs) == 0 || h.open-it.size()+len(held.FDs) > h.room:
		control.CloseFDs(held.FDs)
		h.logger.Warn("No room to hold a process: its exit code is lost if it ends while no supervisor lives", "process", held.Name)
		h.refused[held.Name] = held.Generation
		return
	default:
		h.put(it, held)
	}
	delete(h.refused, held.Name)
}

// put takes held into the place of it. It needs h.mu.
func (h *holder) put(it *heldItem, held control.Held) {
	next := &heldItem{Held: held, pidfd: held.FDs[0], fifos: held.FDs[1:]}
	next.FDs = nil
	if it != nil {
		if it.ID == held.ID && len(next.fifos) == 0 {
			// FIFOs are the process's, whatever the generation.
			next.fifos, it.fifos, h.open = it.fifos, nil, h.open-len(it.fifos)
		}
		h.drop(held.Name, it)
	}
	for i := range h.strays {
		if same(h.strays[i].Identity, held.Identity) {
			next.Exit = &h.strays[i].Exit
		}
	}
	fault.Here("server.hold.taken")
	h.items[held.Name] = next
	h.open += next.size()
	h.poke()
}

func (it *heldItem) size() int {
	switch {
	case it == nil:
		return 0
	case it.pidfd < 0:
		return len(it.fifos)
	}
	return len(it.fifos) + 1
}

// drop lets go of all of it. It needs h.mu.
func (h *holder) drop(name string, it *heldItem) {
	h.dropPidfd(it)
	h.open -= len(it.fifos)
	control.CloseFDs(it.fifos)
	delete(h.items, name)
}

func (h *holder) dropPidfd(it *heldItem) {
	if it.pidfd >= 0 {
		control.CloseFDs([]int{it.pidfd})
		it.pidfd = -1
		h.open--
	}
}

// read takes note of a journal entry that is safe here.
func (h *holder) read(e control.Entry) {
	if h == nil || e.Record == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	name, it := e.Record.Name, h.items[e.Record.Name]
	if e.Removed {
		delete(h.ends, name)
		delete(h.refused, name)
		if it != nil && it.ID == e.Record.ID {
			h.drop(name, it)
		}
		return
	}
	over := lastEnded(e.Record)
	h.ends[name] = ended{e.Record.ID, over}
	if it != nil && it.ID == e.Record.ID && it.Generation <= over {
		fault.Here("server.hold.before_drop")
		h.dropPidfd(it)
	}
	if generation, ok := h.refused[name]; ok && generation <= over {
		delete(h.refused, name)
	}
}

// lastEnded is the last generation whose end a record knows.
func lastEnded(rec *control.Record) uint64 {
	s := &rec.State
	if !s.Alive && !s.SpawnPending || s.Exit != nil && s.Exit.Generation == s.Generation {
		return s.Generation
	}
	return max(s.Generation, 1) - 1
}

// prune lets go of processes that are no more.
func (h *holder) prune(known *table) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, it := range h.items {
		if known.without(name, it.Seq) {
			h.drop(name, it)
		}
	}
}

// reaped is told of each orphan that this process has reaped.
func (h *holder) reaped(id proc.Identity, exit proc.Exit) {
	fault.Here("server.orphan.reaped")
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.items {
		if same(it.Identity, id) {
			it.Exit = &exit
			h.poke()
			return
		}
	}
	if len(h.strays) >= maxStrays {
		h.strays = append(h.strays[:0], h.strays[maxStrays/2:]...)
	}
	h.strays = append(h.strays, control.Reaped{Identity: id, Exit: exit})
}

// same compares what the kernel tells of a process.
func same(a, b proc.Identity) bool {
	return a.BootID == b.BootID && a.PID == b.PID && a.StartTime == b.StartTime
}

func (h *holder) poke() {
	if h.stream == nil {
		return
	}
	select {
	case h.stream.news <- struct{}{}:
	default:
	}
}

// tellAnew has all exits told that are not known to be over.
func (h *holder) tellAnew(s *holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.items {
		it.told = false
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// tell tells the supervisor the exits of what it has adopted, where we are the
// parent: kernels before 6.15 tell them to nobody else.
func (h *holder) tell(ctx context.Context, s *holding) {
	if s.exits == nil {
		return
	}
	for {
		for _, r := range h.untold() {
			select {
			case s.exits <- r:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-s.news:
		case <-ctx.Done():
			return
		}
	}
}

func (h *holder) untold() []control.Reaped {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []control.Reaped
	for _, it := range h.items {
		if it.Exit != nil && it.pidfd >= 0 && !it.told {
			it.told = true
			out = append(out, control.Reaped{Identity: it.Identity, Exit: *it.Exit})
		}
	}
	return out
}

// counts are how many live generations are held, and how many are not for want
// of room.
func (h *holder) counts() (held, refused int) {
	if h == nil {
		return 0, 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.items {
		if it.pidfd >= 0 {
			held++
		}
	}
	return held, len(h.refused)
}

// handing is the way of what is held to a supervisor that is being started. A nil
// *handing hands over nothing.
type handing struct {
	over   *control.HandOver
	items  []control.Held
	reaped []control.Reaped
	reaps  bool
	logger *slog.Logger
	sent   chan struct{}
}

// handOver prepares to hand over what is held, if anything is. Between this and
// the return of wait nothing may be taken or read.
func (h *holder) handOver() *handing {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	x := &handing{logger: h.logger, reaps: h.reaps, sent: make(chan struct{})}
	for _, it := range h.items {
		if it.pidfd >= 0 {
			held := it.Held
			held.FDs = append([]int{it.pidfd}, it.fifos...)
			x.items = append(x.items, held)
		}
	}
	x.reaped = slices.Clone(h.strays)
	if len(x.items)+len(x.reaped) == 0 {
		return nil
	}
	var err error
	if x.over, err = control.NewHandOver(); err != nil {
		h.logger.Warn("Cannot hand over what is held", "error", err)
		return nil
	}
	return x
}

// add lets the supervisor that spec starts inherit the way.
func (x *handing) add(spec *proc.Spec) {
	if x == nil {
		return
	}
	spec.Argv = append(spec.Argv, "--handover", "3")
	spec.Extra = []*os.File{x.over.Theirs}
}

// send begins to hand over, once the supervisor was started or could not be.
func (x *handing) send(ctx context.Context) {
	if x == nil {
		return
	}
	_ = x.over.Theirs.Close() //ok: our copy only; with it open the end of the other would not show
	go func() {
		defer close(x.sent)
		if err := x.over.HandOver(ctx, control.HandedOver{Held: x.items, Reaped: x.reaped, Reaps: x.reaps}); err != nil {
			x.logger.Warn("Some exit codes may be unknown", "error", err)
		}
	}()
}

// wait returns when all is handed over, or cannot be.
func (x *handing) wait() {
	if x != nil {
		<-x.sent
	}
}
