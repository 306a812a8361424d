package probe

import (
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// exchange is an ask that a poller makes.
type exchange struct {
	t       *task  // nil once it has ended
	place   int    // in t.direct.to
	tried   int    // how many places have refused
	why     error  // the first of these refusals, or the first that was no fault of ours
	fd      int    // -1: none
	out     []byte // of the request, what is still to be written
	reply   reply
	begin   time.Time
	watched bool // fd is in the epoll(7) set
}

// poller makes all direct asks of a Runner on one goroutine, which lives as long
// as one of them is under way: it begins all that are due, and waits once for
// the answers of all of them.
//
// It waits for descriptors in an epoll set of its own, which itself waits in the
// runtime's: an idle poller holds no thread, and its calls do not block.
type poller struct {
	open   bool
	asleep bool // waiting or on the way to it, and nobody has woken it; guarded by Runner.mu

	// Valid when open:

	epoll  int
	wakeFD int // an eventfd(2)
	file   *os.File
	conn   syscall.RawConn

	// The goroutine's own:

	under  []*exchange
	spare  []*exchange // with their buffers, for the next asks
	over   []outcome   // not yet reported
	since  time.Time   // when the first of over ended
	look   time.Time   // when those under way that are not watched are looked at; zero: there are none
	events [16]unix.EpollEvent
	came   int                // how many of events the last look has filled
	fault  error              // of the last look
	take   func(uintptr) bool // looks; made once, for RawConn.Read
}

// outcome is an ask that has ended.
type outcome struct {
	t   *task
	res Result
}

// maxHold is how long the outcome of an ask is held while others are under way,
// and how long an ask that shares the work of waking up waits before its answer
// is looked for. Who takes reports is woken once for all that come within it.
const maxHold = time.Millisecond

// maxSpare and maxSpareBuffer bound what a poller keeps for the next asks.
const (
	maxSpare       = 16
	maxSpareBuffer = 4 << 10
)

// ready says whether the poller can work. The caller holds Runner.mu.
func (p *poller) ready() bool {
	if !p.open {
		p.open = p.openSet() == nil // out of descriptors: a goroutine asks, and says so
	}
	return p.open
}

func (p *poller) openSet() error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(epoll, true); err != nil {
		return errors.Join(err, unix.Close(epoll))
	}
	// As it does not block, os.NewFile gives it to the runtime's poller.
	p.epoll, p.file = epoll, os.NewFile(uintptr(epoll), "epoll")
	if p.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return errors.Join(err, p.file.Close())
	}
	err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, p.wakeFD, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.wakeFD)})
	if err == nil {
		p.conn, err = p.file.SyscallConn()
	}
	if err != nil {
		return errors.Join(err, p.file.Close(), unix.Close(p.wakeFD))
	}
	p.take = func(uintptr) bool {
		p.came, p.fault = happened(p.epoll, p.events[:])
		return p.came != 0 || p.fault != nil
	}
	return nil
}

// close is called when no goroutine runs any more.
func (p *poller) close() {
	if p.open {
		// They hold nothing that could be lost.
		_ = p.file.Close()
		_ = unix.Close(p.wakeFD)
		p.open = false
	}
}

// wake makes the goroutine look at Runner.fresh and at stopped tasks. The caller
// holds Runner.mu.
func (p *poller) wake() {
	if p.asleep {
		p.asleep = false
		count(unix.SYS_WRITE, p.wakeFD)
	}
}

// run works until no direct ask is under way.
func (p *poller) run(r *Runner) {
	var fresh []*task
	for {
		if len(p.under) == 0 {
			p.tell(r)
		}
		r.mu.Lock()
		p.asleep = false
		fresh = r.takeFresh(fresh[:0])
		off := p.calledOff()
		idle := len(fresh) == 0 && off == nil
		if idle && len(p.under) == 0 {
			r.polling = false
			r.mu.Unlock()
			return
		}
		p.asleep = idle
		r.mu.Unlock()
		switch {
		case idle:
			p.sleep(r)
		case off != nil:
			p.end(off, Unknown, "the ask was called off")
		}
		for _, t := range fresh {
			p.begin(t)
		}
	}
}

// calledOff returns an exchange whose task has been stopped, or nil. The caller
// holds Runner.mu.
func (p *poller) calledOff() *exchange {
	for _, x := range p.under {
		if x.t.stopped {
			return x
		}
	}
	return nil
}

func (p *poller) begin(t *task) {
	var x *exchange
	if n := len(p.spare); n > 0 {
		x, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		x = &exchange{}
	}
	*x = exchange{t: t, place: t.direct.best, fd: -1, begin: time.Now(), reply: x.reply}
	x.reply.reset()
	p.under = append(p.under, x)
	p.connect(x)
}

// connect begins a connection and writes the request.
func (p *poller) connect(x *exchange) {
	d := x.t.direct
	to := &d.to[x.place]
	fd, err := socket(to.family)
	if err != nil {
		p.refused(x, "socket", err)
		return
	}
	x.fd = fd
	if d.http != nil {
		x.out = d.http.request
	}
	switch err := connect(fd, &to.at); {
	case err == nil:
	case !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR):
		p.refused(x, "connect", err)
		return
	case d.http == nil:
		// The kernel connects to itself within connect(2), and says so when it is
		// asked again.
		if err := connect(fd, &to.at); errors.Is(err, unix.EALREADY) || errors.Is(err, unix.EINTR) {
			p.watch(x)
			return
		} else if err != nil && !errors.Is(err, unix.EISCONN) {
			p.refused(x, "connect", err)
			return
		}
	}
	p.advance(x)
}

// advance does what can be done without waiting.
func (p *poller) advance(x *exchange) {
	if x.t.direct.http == nil {
		p.opened(x)
		return
	}
	if len(x.out) > 0 {
		if p.write(x); x.t != nil && len(x.out) == 0 {
			p.await(x) // nobody answers that fast
		}
		return
	}
	p.read(x)
}

func (p *poller) write(x *exchange) {
	for len(x.out) > 0 {
		n, err := send(x.fd, x.out)
		switch {
		case again(err):
			p.watch(x)
			return
		case err != nil && len(x.out) == len(x.t.direct.http.request):
			p.refused(x, "connect", err) // what connect(2) has not waited for
			return
		case err != nil:
			p.fail(x, "write", err)
			return
		}
		x.out = x.out[n:]
	}
	x.t.direct.best = x.place
}

// await leaves x until its answer may have come: one look at all answers costs
// less than to be woken by each. Who does not share that work is watched at once.
func (p *poller) await(x *exchange) {
	if x.t.ease == 0 || x.watched {
		p.watch(x)
		return
	}
	if p.look.IsZero() {
		p.look = time.Now().Add(maxHold)
	}
}

// watch has x advanced when its descriptor is ready for what is next.
func (p *poller) watch(x *exchange) {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(x.fd)}
	if len(x.out) > 0 || x.t.direct.http == nil {
		e.Events = unix.EPOLLOUT
	}
	how := unix.EPOLL_CTL_ADD
	if x.watched {
		how = unix.EPOLL_CTL_MOD
	}
	if err := unix.EpollCtl(p.epoll, how, x.fd, &e); err != nil {
		p.end(x, Unknown, "cannot ask: "+os.NewSyscallError("epoll_ctl", err).Error()) // no memory (epoll_ctl(2))
		return
	}
	x.watched = true
}

func (p *poller) read(x *exchange) {
	a := &x.reply
	a.buf = slices.Grow(a.buf, readSize)
	n, err := receive(x.fd, a.buf[len(a.buf):cap(a.buf)])
	switch {
	case again(err):
		if !x.watched {
			p.watch(x)
		}
		return
	case err != nil:
		p.fail(x, "read", err)
		return
	}
	a.buf = a.buf[:len(a.buf)+n]
	if answer, detail, done := x.t.direct.http.judge(a, n == 0); done {
		p.end(x, answer, detail)
	} else if !x.watched {
		p.watch(x)
	}
}

// opened answers an ask for a plain connection.
func (p *poller) opened(x *exchange) {
	code, err := unix.GetsockoptInt(x.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		p.fail(x, "getsockopt", err)
	case code != 0:
		p.refused(x, "connect", unix.Errno(code))
	case toItself(x.fd):
		p.refused(x, "connect", unix.ECONNREFUSED)
	default:
		x.t.direct.best = x.place
		p.end(x, Yes, "")
	}
}

// sleep waits until something has happened, and sees to what has.
func (p *poller) sleep(r *Runner) {
	n, err := p.wait(p.next())
	if err != nil {
		for len(p.under) > 0 {
			p.end(p.under[0], Unknown, "cannot ask: "+err.Error())
		}
		return
	}
	for _, e := range p.events[:n] {
		if int(e.Fd) == p.wakeFD {
			count(unix.SYS_READ, p.wakeFD)
			continue
		}
		if i := slices.IndexFunc(p.under, func(x *exchange) bool { return x.fd == int(e.Fd) }); i >= 0 {
			p.advance(p.under[i])
		}
	}
	now := time.Now()
	look := !p.look.IsZero() && !now.Before(p.look)
	if look {
		p.look = time.Time{}
	}
	// Backwards, for end takes what is at an index out of under.
	for i := len(p.under) - 1; i >= 0; i-- {
		x := p.under[i]
		if look && !x.watched {
			p.read(x)
		}
		if x.t != nil && !now.Before(x.deadline()) {
			p.end(x, No, "no answer in time")
		}
	}
	if len(p.over) > 0 && now.Sub(p.since) >= maxHold {
		p.tell(r)
	}
}

// next is when there is something to do even if nothing happens.
func (p *poller) next() time.Time {
	next := p.under[0].deadline()
	for _, x := range p.under[1:] {
		next = earlier(next, x.deadline())
	}
	if !p.look.IsZero() {
		next = earlier(next, p.look)
	}
	if len(p.over) > 0 {
		next = earlier(next, p.since.Add(maxHold))
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// wait returns how many events have come; none when the time is up.
func (p *poller) wait(until time.Time) (int, error) {
	p.came = 0
	err := p.file.SetReadDeadline(until)
	if err == nil {
		err = p.conn.Read(p.take)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil
	case err == nil:
		err = p.fault
	}
	return p.came, err
}

func (x *exchange) deadline() time.Time { return x.begin.Add(x.t.timeout) }

// refused goes on to the next place, or ends the exchange when there is none.
func (p *poller) refused(x *exchange, call string, err error) {
	err = x.error(call, err)
	if x.why == nil || ownFault(x.why) && !ownFault(err) {
		x.why = err
	}
	places := x.t.direct.to
	if x.tried++; x.tried == len(places) {
		p.no(x, x.why)
		return
	}
	p.hangUp(x)
	x.place = (x.place + 1) % len(places)
	p.connect(x)
}

// fail ends an exchange with an error of a system call.
func (p *poller) fail(x *exchange, call string, err error) { p.no(x, x.error(call, err)) }

func (p *poller) no(x *exchange, err error) {
	if ownFault(err) {
		p.end(x, Unknown, "cannot ask: "+err.Error())
		return
	}
	p.end(x, No, err.Error())
}

// error is what package net would say.
func (x *exchange) error(call string, err error) error {
	op := call
	if call == "socket" || call == "connect" {
		op = "dial"
	}
	to := x.t.direct.to[x.place].name
	return &net.OpError{Op: op, Net: to.Network(), Addr: to, Err: os.NewSyscallError(call, err)}
}

// hangUp closes the connection; the kernel takes it out of the epoll set.
func (p *poller) hangUp(x *exchange) {
	if x.fd >= 0 {
		closeSocket(x.fd)
	}
	x.fd, x.watched = -1, false
}

// end closes the connection. The outcome waits for tell.
func (p *poller) end(x *exchange, answer Answer, detail string) {
	now := time.Now()
	if len(p.over) == 0 {
		p.since = now
	}
	p.over = append(p.over, outcome{x.t, Result{Answer: answer, Detail: detail, Took: now.Sub(x.begin)}})
	x.t = nil
	p.hangUp(x)
	i := slices.Index(p.under, x)
	p.under = slices.Delete(p.under, i, i+1)
	if len(p.spare) < maxSpare && cap(x.reply.buf) <= maxSpareBuffer {
		p.spare = append(p.spare, x)
	}
}

// tell reports what is over.
func (p *poller) tell(r *Runner) {
	for i, o := range p.over {
		p.over[i] = outcome{}
		// It is this goroutine that dispatch speaks to, so it never asks for
		// another.
		_ = r.finish(o.t, o.res)
	}
	p.over = p.over[:0]
}
