package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/perdure/perdure/internal/sockpath"
)

// portable serves each connection with two goroutines, in the way of package
// net. It is for systems where nothing better is written.
type portable struct {
	hub     *Hub
	running sync.WaitGroup
	streams map[*netStream]struct{} // guarded by the hub's lock
}

func newNet(h *Hub) *portable { return &portable{hub: h, streams: map[*netStream]struct{}{}} }

// netListener accepts for an endpoint.
type netListener struct {
	net.Listener
	more *sync.Cond // accepting has changed
	on   bool
	gone bool
}

func (n *portable) listen(e *Endpoint) error {
	var l net.Listener
	var err error
	switch {
	case e.spec.Notify != "" || e.spec.Newline != "":
		err = fmt.Errorf("sd_notify and a newline on a descriptor are for Linux alone: %w", errors.ErrUnsupported)
	case e.spec.Path != "":
		l, err = sockpath.Listen(e.spec.Path)
	default:
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: e.spec.Port})
	}
	if err != nil {
		return err
	}
	if addr, is := l.Addr().(*net.TCPAddr); is {
		e.port = addr.Port
	}
	nl := &netListener{Listener: l, more: sync.NewCond(&n.hub.mu), on: true}
	e.net = nl
	n.running.Go(func() { n.accept(e, nl) })
	return nil
}

// accept runs until the listener is closed.
func (n *portable) accept(e *Endpoint, l *netListener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		generation, p := e.handler.Welcome().Generation, e.netPeer(conn)
		n.hub.lock()
		for !l.on && !l.gone {
			l.more.Wait()
		}
		switch {
		case e.closed:
			_ = conn.Close()
		case p.Foreign != "":
			_ = conn.Close()
			e.reject(p)
		default:
			n.serve(e, conn, p, generation)
		}
		n.hub.unlock()
	}
}

// netPeer says who is at the other end, as far as package net tells.
func (e *Endpoint) netPeer(conn net.Conn) Peer {
	p := Peer{UID: -1}
	if e.spec.Path == "" {
		return p // a token is needed
	}
	if err := sockpath.CheckPeer(conn); err != nil {
		p.Foreign = err.Error()
		return p
	}
	p.Vouched = true
	return p
}

func (n *portable) accepting(e *Endpoint, on bool) {
	if l, is := e.net.(*netListener); is {
		l.on = on
		l.more.Broadcast()
	}
}

func (n *portable) unlisten(e *Endpoint) {
	if l, is := e.net.(*netListener); is && !l.gone {
		l.gone = true
		_ = l.Close() // it removes the file: the next hub makes it anew
		l.more.Broadcast()
	}
}

func (n *portable) close() error {
	n.hub.mu.Lock()
	for s := range n.streams {
		s.close()
	}
	n.hub.mu.Unlock()
	n.running.Wait()
	return nil
}

// netStream is one connection.
type netStream struct {
	n       *portable
	conn    net.Conn
	c       *conn
	changed *sync.Cond
	read    bool
	sending []byte // the sender has it
	sent    int    // that much has gone since the last write
	closed  bool
}

func (n *portable) serve(e *Endpoint, conn net.Conn, p Peer, generation uint64) {
	s := &netStream{n: n, conn: conn, changed: sync.NewCond(&n.hub.mu), read: true}
	s.c = e.open(s, p, generation)
	n.streams[s] = struct{}{}
	n.running.Go(s.receive)
	n.running.Go(s.send)
}

func (s *netStream) receive() {
	buf := make([]byte, 8<<10)
	for {
		got, err := s.conn.Read(buf)
		s.n.hub.lock()
		if got > 0 && !s.closed {
			s.c.received(buf[:got])
		}
		if err != nil && !s.closed {
			if errors.Is(err, io.EOF) {
				s.c.finished(nil)
			} else {
				s.c.finished(err)
			}
		}
		s.n.hub.unlock()
		s.n.hub.mu.Lock()
		for !s.read && !s.closed && err == nil {
			s.changed.Wait()
		}
		closed := s.closed
		s.n.hub.mu.Unlock()
		if closed || err != nil {
			return
		}
	}
}

func (s *netStream) send() {
	for {
		s.n.hub.mu.Lock()
		for len(s.sending) == 0 && !s.closed {
			s.changed.Wait()
		}
		p, closed := s.sending, s.closed
		s.n.hub.mu.Unlock()
		if closed {
			return
		}
		_, err := s.conn.Write(p)
		s.n.hub.lock()
		s.sending, s.sent = nil, len(p)
		switch {
		case s.closed:
		case err != nil:
			s.c.kick(err.Error())
		default:
			s.c.writable()
		}
		s.n.hub.unlock()
	}
}

// write tells how much of p has gone since it was last called, and sends the rest.
func (s *netStream) write(p []byte) (int, error) {
	if len(s.sending) > 0 {
		return 0, nil
	}
	n := s.sent
	s.sent = 0
	if n < len(p) {
		s.sending = append([]byte(nil), p[n:]...)
		s.changed.Broadcast()
	}
	return n, nil
}

func (s *netStream) watch(read, _ bool) {
	s.read = read
	s.changed.Broadcast()
}

func (s *netStream) close() {
	s.closed = true
	delete(s.n.streams, s)
	_ = s.conn.Close()
	s.changed.Broadcast()
}
