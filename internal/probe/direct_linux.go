package probe

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// direct is an ask that poller can make: it needs no name and no TLS.
type direct struct {
	family  int
	to      unix.Sockaddr
	address net.Addr   // the same, for messages
	http    *httpAsker // nil when an open connection is the answer
}

// newDirect returns nil where a cannot be asked by a poller.
func newDirect(a asker) *direct {
	switch a := a.(type) {
	case *httpAsker:
		if d := direction(a.network, a.address); d != nil && a.tls == nil {
			d.http = a
			return d
		}
	case tcpAsker:
		return direction(a.network, a.address)
	}
	return nil
}

// maxSunPath is how long the path of a Unix socket may be, in bytes (unix(7)).
const maxSunPath = 107

func direction(network, address string) *direct {
	if network == "unix" {
		if len(address) > maxSunPath {
			return nil
		}
		return &direct{family: unix.AF_UNIX, to: &unix.SockaddrUnix{Name: address}, address: &net.UnixAddr{Name: address, Net: network}}
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	ip, errIP := netip.ParseAddr(host)
	port, errPort := strconv.ParseUint(service, 10, 16)
	if errIP != nil || errPort != nil || ip.Zone() != "" || ip.IsUnspecified() {
		return nil // package net knows what to make of it
	}
	ip = ip.Unmap()
	d := &direct{address: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(port)))}
	if ip.Is4() {
		d.family, d.to = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: ip.As4()}
	} else {
		d.family, d.to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	}
	return d
}

// exchange is an ask that a poller makes.
type exchange struct {
	t      *task // nil once it has ended
	fd     int
	out    []byte // of the request, what is still to be written
	reply  reply
	begin  time.Time
	events int16 // what it waits for (poll(2))
}

// poller makes all direct asks of a Runner on one goroutine, which lives as long
// as one of them is under way: it begins all that are due and then waits for
// whatever answers first.
type poller struct {
	wakeFD int // an eventfd(2); valid when open
	open   bool
	asleep bool // in poll(2) or on the way, and nobody has woken it; guarded by Runner.mu

	// The goroutine's own:

	under []*exchange
	polls []unix.PollFd
	spare []*exchange // with their buffers, for the next asks
	over  []outcome   // not yet reported
	since time.Time   // when the first of over ended
}

// outcome is an ask that has ended.
type outcome struct {
	t   *task
	res Result
}

// maxHold is how long the outcome of an ask is held while others are under way.
// Who takes reports is woken once for all that come within it.
const maxHold = time.Millisecond

// maxSpare and maxSpareBuffer bound what a poller keeps for the next asks.
const (
	maxSpare       = 8
	maxSpareBuffer = 4 << 10
)

// ready says whether the poller can work. The caller holds Runner.mu.
func (p *poller) ready() bool {
	if !p.open {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return false // out of descriptors: a goroutine asks, and says so
		}
		p.wakeFD, p.open = fd, true
	}
	return true
}

// close is called when no goroutine runs any more.
func (p *poller) close() {
	if p.open {
		_ = unix.Close(p.wakeFD) // an eventfd holds nothing that could be lost
		p.open = false
	}
}

// wake makes the goroutine look at Runner.fresh and at stopped tasks. The caller
// holds Runner.mu.
func (p *poller) wake() {
	if !p.asleep {
		return
	}
	p.asleep = false
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(p.wakeFD, one[:]) // fails only when so much is in it that it wakes anyhow (eventfd(2))
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

// begin connects and writes the request.
func (p *poller) begin(t *task) {
	var x *exchange
	if n := len(p.spare); n > 0 {
		x, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		x = &exchange{}
	}
	*x = exchange{t: t, fd: -1, begin: time.Now(), events: unix.POLLOUT, reply: x.reply}
	x.reply.reset()
	p.under = append(p.under, x)
	d := t.direct
	fd, err := unix.Socket(d.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		p.fail(x, "socket", err)
		return
	}
	x.fd = fd
	if d.http != nil {
		x.out = d.http.request
	}
	switch err := unix.Connect(fd, d.to); {
	case err == nil:
		p.advance(x)
	case !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR):
		p.fail(x, "connect", err)
	case x.out != nil:
		// The kernel connects to itself within connect(2): the request may go.
		p.advance(x)
	}
}

// advance does what can be done without waiting.
func (p *poller) advance(x *exchange) {
	if x.t.direct.http == nil {
		p.opened(x)
		return
	}
	for len(x.out) > 0 {
		n, err := unix.SendmsgN(x.fd, x.out, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case again(err):
			return
		case err != nil && len(x.out) == len(x.t.direct.http.request):
			p.fail(x, "connect", err) // what connect(2) has not waited for
			return
		case err != nil:
			p.fail(x, "write", err)
			return
		}
		if x.out = x.out[n:]; len(x.out) == 0 {
			x.events = unix.POLLIN
			return // nobody answers that fast
		}
	}
	p.read(x)
}

func (p *poller) read(x *exchange) {
	a := &x.reply
	a.buf = slices.Grow(a.buf, readSize)
	n, err := unix.Read(x.fd, a.buf[len(a.buf):cap(a.buf)])
	switch {
	case again(err):
		return
	case err != nil:
		p.fail(x, "read", err)
		return
	}
	a.buf = a.buf[:len(a.buf)+n]
	if answer, detail, done := x.t.direct.http.judge(a, n == 0); done {
		p.end(x, answer, detail)
	}
}

// opened answers an ask for a plain connection.
func (p *poller) opened(x *exchange) {
	code, err := unix.GetsockoptInt(x.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		p.fail(x, "getsockopt", err)
	case code != 0:
		p.fail(x, "connect", unix.Errno(code))
	case toItself(x.fd):
		p.fail(x, "connect", unix.ECONNREFUSED)
	default:
		p.end(x, Yes, "")
	}
}

// toItself says whether the kernel has taken the port that is asked, where
// nobody listens, for this side's own and has connected the socket to itself
// (RFC 9293, 3.5, figure 7).
func toItself(fd int) bool {
	here, err1 := unix.Getsockname(fd)
	there, err2 := unix.Getpeername(fd)
	if err1 != nil || err2 != nil {
		return false
	}
	switch h := here.(type) {
	case *unix.SockaddrInet4:
		t, ok := there.(*unix.SockaddrInet4)
		return ok && h.Port == t.Port && h.Addr == t.Addr
	case *unix.SockaddrInet6:
		t, ok := there.(*unix.SockaddrInet6)
		return ok && h.Port == t.Port && h.Addr == t.Addr
	}
	return false
}

func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// sleep waits until something has happened, and sees to what has.
func (p *poller) sleep(r *Runner) {
	next := p.under[0].deadline()
	p.polls = append(p.polls[:0], unix.PollFd{Fd: int32(p.wakeFD), Events: unix.POLLIN})
	for _, x := range p.under {
		p.polls = append(p.polls, unix.PollFd{Fd: int32(x.fd), Events: x.events})
		if d := x.deadline(); d.Before(next) {
			next = d
		}
	}
	left := max(0, time.Until(next))
	if len(p.over) > 0 {
		left = min(left, maxHold)
	}
	wait := unix.NsecToTimespec(int64(left))
	n, err := unix.Ppoll(p.polls, &wait, nil)
	if err != nil && !again(err) {
		// More than RLIMIT_NOFILE allows, or no memory (poll(2)).
		for len(p.under) > 0 {
			p.fail(p.under[0], "poll", err)
		}
		return
	}
	if p.polls[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(p.wakeFD, count[:]) // what it counts is of no interest
	}
	now := time.Now()
	// Backwards, for end takes what is at an index out of under.
	for i := len(p.polls) - 1; i > 0; i-- {
		x := p.under[i-1]
		if p.polls[i].Revents != 0 {
			p.advance(x)
		}
		if x.t != nil && !now.Before(x.deadline()) {
			p.end(x, No, "no answer in time")
		}
	}
	if n == 0 || len(p.over) > 0 && now.Sub(p.since) >= maxHold {
		p.tell(r)
	}
}

func (x *exchange) deadline() time.Time { return x.begin.Add(x.t.timeout) }

// fail ends an exchange with an error of a system call.
func (p *poller) fail(x *exchange, call string, err error) {
	op := call
	if call == "socket" || call == "connect" {
		op = "dial"
	}
	err = &net.OpError{Op: op, Net: x.t.direct.address.Network(), Addr: x.t.direct.address, Err: os.NewSyscallError(call, err)}
	if ownFault(err) || call == "poll" {
		p.end(x, Unknown, "cannot ask: "+err.Error())
		return
	}
	p.end(x, No, err.Error())
}

// end closes the connection. The outcome waits for tell.
func (p *poller) end(x *exchange, answer Answer, detail string) {
	now := time.Now()
	if len(p.over) == 0 {
		p.since = now
	}
	p.over = append(p.over, outcome{x.t, Result{Answer: answer, Detail: detail, Took: now.Sub(x.begin)}})
	x.t = nil
	if x.fd >= 0 {
		_ = unix.Close(x.fd) // the answer is read, or is no use
	}
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
