package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxHeldLine is the longest line that comes with descriptors; it goes in one
// piece, so that its descriptors are with its first byte.
const maxHeldLine = 16 << 10

// maxLineFDs is the greatest number of descriptors with one line.
const maxLineFDs = 3

// sendFDs writes one line and its descriptors (SCM_RIGHTS, unix(7)). It waits
// while the other end does not read.
func sendFDs(ctx context.Context, conn net.Conn, l heldLine, fds []int) error {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("cannot pass descriptors over a %T", conn)
	}
	line, err := json.Marshal(l)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(line) > maxHeldLine || len(fds) > maxLineFDs {
		return fmt.Errorf("cannot pass %d descriptors with a line of %d bytes: at most %d and %d are allowed", len(fds), len(line), maxLineFDs, maxHeldLine)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := uc.WriteMsgUnix(line, rights, nil)
	for errors.Is(err, unix.ETOOMANYREFS) {
		// More are on their way than we may have open (unix(7)): the other end has
		// to take some first, and there is no event for that.
		select {
		case <-time.After(tooManyPause):
		case <-ctx.Done():
			return ctx.Err()
		}
		n, _, err = uc.WriteMsgUnix(line, rights, nil)
	}
	if err == nil && n < len(line) {
		_, err = uc.Write(line[n:])
	}
	return err
}

const tooManyPause = 5 * time.Millisecond

// fdReader reads lines that come with descriptors. It reads by recvmsg alone,
// which gives the descriptors of at most one line at a time.
type fdReader struct {
	conn   *net.UnixConn
	buf    []byte // what was read, up to end
	start  int
	end    int
	oob    []byte
	groups []fdGroup // of lines that have begun in buf, oldest first
}

// fdGroup are the descriptors of one line.
type fdGroup struct {
	fds []int
	cut bool // the system had no room for all of them
}

// newFDReader goes on where lines has ended, which must not have read ahead.
func newFDReader(conn net.Conn, lines *lineReader) (*fdReader, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok || lines != nil && lines.r.Buffered() > 0 {
		return nil, errors.New("cannot take descriptors here: the connection is no Unix socket, or was read ahead")
	}
	return &fdReader{conn: uc, buf: make([]byte, 2*maxHeldLine), oob: make([]byte, unix.CmsgSpace(4*maxLineFDs))}, nil
}

// next returns the next line with its descriptors. When the system had no room
// for them it returns none.
func (r *fdReader) next() (heldLine, []int, error) {
	var l heldLine
	for {
		if i := bytes.IndexByte(r.buf[r.start:r.end], '\n'); i >= 0 {
			line := r.buf[r.start : r.start+i]
			r.start += i + 1
			if err := json.Unmarshal(line, &l); err != nil {
				return l, nil, fmt.Errorf("cannot read a line: %w", err)
			}
			return l, r.take(l.FDs), nil
		}
		if err := r.read(); err != nil {
			return l, nil, err
		}
	}
}

// take returns the descriptors of a line that says how many it has.
func (r *fdReader) take(n int) []int {
	if n == 0 || len(r.groups) == 0 {
		return nil
	}
	g := r.groups[0]
	r.groups = r.groups[1:]
	if g.cut || len(g.fds) != n {
		CloseFDs(g.fds)
		return nil
	}
	return g.fds
}

func (r *fdReader) read() error {
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	if r.end == len(r.buf) {
		return errLineTooLong
	}
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(r.buf[r.end:], r.oob)
	// Without any room the system gives nothing but the flag.
	if oobn > 0 || flags&unix.MSG_CTRUNC != 0 {
		r.groups = append(r.groups, parseRights(r.oob[:oobn], flags))
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	r.end += n
	return nil
}

func parseRights(oob []byte, flags int) fdGroup {
	g := fdGroup{cut: flags&unix.MSG_CTRUNC != 0}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		g.cut = true
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			g.cut = true
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd) // ReadMsgUnix asks for it already where it can
		}
		g.fds = append(g.fds, fds...)
	}
	return g
}

// close closes what nobody has taken.
func (r *fdReader) close() {
	for _, g := range r.groups {
		CloseFDs(g.fds)
	}
	r.groups = nil
}

// CloseFDs closes descriptors of a Held.
func CloseFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// HandOver is the way from a server to a supervisor that it starts.
type HandOver struct {
	// Theirs is the end that the supervisor inherits. The caller closes it.
	Theirs *os.File
	conn   net.Conn
}

// NewHandOver makes one. Where descriptors cannot be passed it is
// errors.ErrUnsupported.
func NewHandOver() (*HandOver, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make a pair of sockets: %w", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "hand-over")
	defer ours.Close()
	theirs := os.NewFile(uintptr(pair[1]), "hand-over")
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot hand over: %w", err), theirs.Close())
	}
	return &HandOver{Theirs: theirs, conn: conn}, nil
}

// inherited makes a connection of a descriptor and closes that.
func inherited(fd int) (net.Conn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "hand-over")
	if f == nil {
		return nil, fmt.Errorf("%d is no descriptor", fd)
	}
	defer f.Close()
	return net.FileConn(f)
}
