package session

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/internal/sockpath"
	"github.com/perdure/perdure/internal/wire"
)

// datagrams is the socket of sd_notify messages.
type datagrams struct {
	watched
	e       *Endpoint
	waiting []datagram // were read and are not yet taken
}

// datagram is one message and what came with it.
type datagram struct {
	text  string
	cut   bool // it was longer than what is read
	pid   int
	uid   int
	known bool // pid and uid are the kernel's word
	files []int
}

// maxNotifyRound is how many messages are read in one round.
const maxNotifyRound = 32

// maxNotifyWaiting is how many reports may wait to be made durable before no
// more messages are read; the sender then waits.
const maxNotifyWaiting = 256

func (n *epoll) listenNotify(e *Endpoint, s *sockets) error {
	if e.spec.Notify != "" {
		fd, err := notifySocket(e.spec.Notify)
		if err != nil {
			return err
		}
		s.notify = &datagrams{e: e}
		s.notify.watched = n.put(fd, s.notify)
		if err := s.notify.set(unix.EPOLLIN); err != nil {
			return err
		}
	}
	if e.spec.Newline != "" {
		fd, err := openFIFO(e.spec.Newline)
		if err != nil {
			return err
		}
		s.newline = &newline{e: e}
		s.newline.watched = n.put(fd, s.newline)
		return s.newline.set(unix.EPOLLIN)
	}
	return nil
}

// notifySocket makes the socket. A path with "@" before it is of the abstract
// namespace (unix(7)), which has no modes: there the kernel's word on the sender
// is the only check.
func notifySocket(path string) (int, error) {
	var fd int
	var err error
	if path[0] == '@' {
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				_ = unix.Close(fd)
			}
		}
	} else {
		fd, err = sockpath.ListenFD(path, true)
	}
	if err != nil {
		return -1, fmt.Errorf("cannot listen for sd_notify messages on %s: %w", path, err)
	}
	// SO_PASSCRED (unix(7)): each message comes with who sent it.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("cannot ask for the senders of sd_notify messages: %w", err)
	}
	return fd, nil
}

func (d *datagrams) ready(n *epoll, _ uint32) func() {
	if len(d.e.queue) > maxNotifyWaiting {
		// Level-triggered: it is asked again, but not in a loop without rest.
		_ = d.set(0)
		n.hub.later(d.e, n.hub.o.Retry/100, func() { _ = d.set(unix.EPOLLIN) })
		return nil
	}
	for range maxNotifyRound {
		g, ok := d.read(n)
		if !ok {
			break
		}
		d.waiting = append(d.waiting, g)
	}
	return func() { d.take(n) }
}

// read reads one message.
func (d *datagrams) read(n *epoll) (datagram, bool) {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*253)) // 253: SCM_MAX_FD of the kernel
	size, ctl, flags, _, err := unix.Recvmsg(d.fd, n.buf[:maxNotify], oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return datagram{}, false
	}
	g := datagram{text: string(n.buf[:size]), cut: flags&unix.MSG_TRUNC != 0}
	list, err := unix.ParseSocketControlMessage(oob[:ctl])
	if err != nil {
		return g, true
	}
	for i := range list {
		if cred, err := unix.ParseUnixCredentials(&list[i]); err == nil {
			g.pid, g.uid, g.known = int(cred.Pid), int(cred.Uid), true
		} else if files, err := unix.ParseUnixRights(&list[i]); err == nil {
			g.files = append(g.files, files...)
		}
	}
	return g, true
}

// take looks who sent the messages, and takes them in order.
func (d *datagrams) take(n *epoll) {
	generation := d.e.handler.Welcome().Generation
	list := d.waiting
	d.waiting = nil
	peers := make([]Peer, len(list))
	for i, g := range list {
		if peers[i] = (Peer{UID: -1, Foreign: "the system does not tell who sent the message"}); g.known {
			peers[i] = d.e.judge(g.pid, g.uid)
		}
	}
	n.hub.lock()
	defer n.hub.unlock()
	for i, g := range list {
		switch {
		case d.e.closed:
		case peers[i].Foreign != "":
			d.e.reject(peers[i])
		case g.cut:
			d.e.enqueue(invalidNotify("the message is longer than 65536 bytes", g.text))
		default:
			d.e.notified(g.text, peers[i], generation)
		}
		// BARRIER=1 waits for this: what was sent before has been taken.
		for _, fd := range g.files {
			_ = unix.Close(fd)
		}
	}
}

// newline is the FIFO on which a process says ready by a line, as s6 programs do.
type newline struct {
	watched
	e *Endpoint
}

// openFIFO makes a FIFO and opens it both ways, so that the process can write to
// it whoever serves it (fifo(7)).
func openFIFO(path string) (int, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && err != unix.EEXIST {
		return -1, fmt.Errorf("cannot make the FIFO %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// ReadyEnd returns the end of a Spec.Newline for the process. It is open both
// ways, so that a program that says ready while nobody serves the FIFO does not
// get SIGPIPE; what it writes waits.
func ReadyEnd(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) }

func (l *newline) ready(n *epoll, _ uint32) func() {
	size, err := unix.Read(l.fd, n.buf)
	if err != nil || size <= 0 {
		return nil
	}
	for _, b := range n.buf[:size] {
		if b == '\n' {
			return func() { l.tell(n) }
		}
	}
	return nil
}

func (l *newline) tell(n *epoll) {
	generation := l.e.handler.Welcome().Generation
	n.hub.lock()
	defer n.hub.unlock()
	l.e.enqueue(Report{Type: "process.worker_ready", Kind: wire.Ready, By: "newline", Generation: generation, Data: []byte(`{"by":"newline"}`)})
}
