package session

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/internal/sockpath"
)

// acceptRound is how many connections of one endpoint are accepted in one round.
const acceptRound = 16

// epoll serves all sockets with one goroutine. Its epoll descriptor itself
// waits in the runtime's, so that an idle hub holds no thread, and an idle
// connection costs no goroutine and no buffer.
type epoll struct {
	hub  *Hub
	fd   int
	file *os.File
	conn syscall.RawConn
	done chan struct{}

	targets map[uint64]target // guarded by the hub's lock
	last    uint64
	buf     []byte
	events  [128]unix.EpollEvent
}

// target is what a descriptor is for. ready is called with the hub locked; what
// it returns is called without.
type target interface {
	ready(n *epoll, events uint32) (after func())
}

func newTransport(h *Hub, portable bool) (transport, error) {
	if portable {
		return newNet(h), nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot watch sockets: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	n := &epoll{hub: h, fd: fd, file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}),
		targets: map[uint64]target{}, buf: make([]byte, readSize)}
	if n.conn, err = n.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, n.file.Close())
	}
	go n.loop()
	return n, nil
}

// loop runs until the epoll descriptor is closed.
func (n *epoll) loop() {
	defer close(n.done)
	var after []func()
	for {
		count, err := n.wait()
		if err != nil {
			return // the descriptor is closed: nothing else can fail here
		}
		n.hub.lock()
		for i := range n.events[:count] {
			ev := &n.events[i]
			// Closed within this round: its number means nothing any more.
			if t := n.targets[uint64(uint32(ev.Fd))|uint64(uint32(ev.Pad))<<32]; t != nil {
				if f := t.ready(n, ev.Events); f != nil {
					after = append(after, f)
				}
			}
		}
		n.hub.unlock()
		for _, f := range after {
			f()
		}
		clear(after)
		after = after[:0]
	}
}

func (n *epoll) wait() (count int, err error) {
	rerr := n.conn.Read(func(uintptr) bool {
		for {
			count, err = unix.EpollWait(n.fd, n.events[:], 0)
			if err != unix.EINTR {
				return count != 0 || err != nil
			}
		}
	})
	return count, errors.Join(rerr, err)
}

// watched is a descriptor in the epoll set.
type watched struct {
	n      *epoll
	fd     int
	number uint64 // 0: closed
	events uint32 // 0: not in the set
}

// put gives a descriptor its number.
func (n *epoll) put(fd int, t target) watched {
	n.last++
	n.targets[n.last] = t
	return watched{n: n, fd: fd, number: n.last}
}

// set watches for events. What is watched for nothing is taken out of the set:
// a hang-up would be told for ever. Adding fails only for want of memory.
func (w *watched) set(events uint32) error {
	if events == w.events {
		return nil
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case events == 0:
		op = unix.EPOLL_CTL_DEL
	case w.events == 0:
		op = unix.EPOLL_CTL_ADD
	}
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(w.number)), Pad: int32(uint32(w.number >> 32))}
	if err := unix.EpollCtl(w.n.fd, op, w.fd, &ev); err != nil {
		return err
	}
	w.events = events
	return nil
}

// drop closes the descriptor.
func (w *watched) drop() {
	if w.number != 0 {
		delete(w.n.targets, w.number)
		_ = unix.Close(w.fd) // takes it out of the set; sockets lose nothing by it
		w.number, w.events = 0, 0
	}
}

// listener accepts for an endpoint.
type listener struct {
	watched
	e *Endpoint
}

// sockets are all that an endpoint listens on.
type sockets struct {
	workers *listener
	notify  *datagrams
	newline *newline
}

func (n *epoll) listen(e *Endpoint) (err error) {
	s := &sockets{}
	e.net = s
	defer func() {
		if err != nil {
			n.unlisten(e)
		}
	}()
	if e.spec.NoWorkers {
		return n.listenNotify(e, s)
	}
	var fd int
	if e.spec.Path != "" {
		fd, err = sockpath.ListenFD(e.spec.Path, false)
	} else {
		fd, e.port, err = listenTCP(e.spec.Port)
	}
	if err != nil {
		return err
	}
	s.workers = &listener{e: e}
	s.workers.watched = n.put(fd, s.workers)
	if err := s.workers.set(unix.EPOLLIN); err != nil {
		return err
	}
	return n.listenNotify(e, s)
}

// listenTCP listens on loopback and returns the descriptor and the port.
func listenTCP(port int) (int, int, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return -1, 0, err
	}
	defer l.Close() // the socket lives on in the copy
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	fd := -1
	var derr error
	err = raw.Control(func(own uintptr) { fd, derr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, derr); err != nil {
		return -1, 0, err
	}
	return fd, l.Addr().(*net.TCPAddr).Port, nil
}

func (n *epoll) accepting(e *Endpoint, on bool) {
	l := e.net.(*sockets).workers
	if l == nil || l.number == 0 {
		return
	}
	var events uint32
	if on {
		events = unix.EPOLLIN
	}
	if err := l.set(events); err != nil {
		n.hub.o.Logger.Error("Cannot accept workers", "process", e.spec.ProcessID, "error", err)
	}
}

func (n *epoll) unlisten(e *Endpoint) {
	s := e.net.(*sockets)
	if s.workers != nil {
		s.workers.drop()
	}
	if s.notify != nil {
		s.notify.drop()
	}
	if s.newline != nil {
		s.newline.drop()
	}
}

func (n *epoll) close() error {
	err := n.file.Close()
	<-n.done
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	for _, t := range n.targets {
		if s, is := t.(*socket); is {
			s.drop()
		}
	}
	return err
}

// arrival is a connection that has been accepted.
type arrival struct {
	fd   int
	peer Peer
}

// ready accepts. Who is there is looked up without the lock.
func (l *listener) ready(n *epoll, _ uint32) func() {
	var fds []int
	for len(fds) < acceptRound && len(l.e.conns)+len(fds) < MaxConns {
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			if err != unix.EAGAIN {
				n.hub.o.Logger.Error("Cannot accept a worker", "process", l.e.spec.ProcessID, "error", err)
			}
			break
		}
		fds = append(fds, fd)
	}
	if len(fds) == 0 {
		return nil
	}
	return func() {
		generation := l.e.handler.Welcome().Generation
		arrivals := make([]arrival, len(fds))
		for i, fd := range fds {
			arrivals[i] = arrival{fd, l.e.peerOf(fd)}
		}
		n.hub.lock()
		defer n.hub.unlock()
		for _, a := range arrivals {
			n.arrive(l.e, a, generation)
		}
	}
}

// arrive opens a connection, or turns it away.
func (n *epoll) arrive(e *Endpoint, a arrival, generation uint64) {
	if e.closed || a.peer.Foreign != "" {
		_ = unix.Close(a.fd)
		if !e.closed {
			e.reject(a.peer)
		}
		return
	}
	s := &socket{}
	s.watched = n.put(a.fd, s)
	s.c = e.open(s, a.peer, generation)
	if err := s.set(unix.EPOLLIN | unix.EPOLLRDHUP); err != nil {
		s.c.kick(err.Error())
	}
}

// socket is one connection.
type socket struct {
	watched
	c *conn
}

func (s *socket) ready(n *epoll, events uint32) func() {
	if events&(unix.EPOLLOUT) != 0 {
		s.c.writable()
	}
	if s.number == 0 || events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return nil
	}
	if s.c.ending {
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			s.c.hangUp() // nobody is there any more to be told anything
		}
		return nil
	}
	got, err := unix.Read(s.fd, n.buf)
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
	case err != nil:
		s.c.finished(err)
	case got == 0:
		s.c.finished(nil)
	default:
		s.c.received(n.buf[:got])
	}
	return nil
}

func (s *socket) write(p []byte) (int, error) {
	for {
		// unix.SendmsgN gives how much was sent; MSG_NOSIGNAL, because a
		// supervisor must not die of a worker that has gone.
		k, err := unix.SendmsgN(s.fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, nil
		}
		return max(0, k), err
	}
}

func (s *socket) watch(read, write bool) {
	if s.number == 0 {
		return
	}
	var events uint32
	if read {
		events = unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if write {
		events |= unix.EPOLLOUT
	}
	if err := s.set(events); err != nil {
		s.n.hub.o.Logger.Error("Cannot watch a worker's connection", "error", err)
	}
}

func (s *socket) close() { s.drop() }
