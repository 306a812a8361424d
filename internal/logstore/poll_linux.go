package logstore

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const fionread = unix.TIOCINQ

// timerSlot is the number under which the poller knows its timer.
const timerSlot = ^uint32(0)

// ready is a stream that has bytes.
type ready struct {
	slot   uint32
	stream int
}

// poller watches FIFOs with one epoll descriptor, which itself waits in the
// runtime's: an idle capture holds no thread.
type poller struct {
	fd    int
	timer int
	// files is the folder /proc/self/fd, -1 where there is none: from there the
	// way to a descriptor is short.
	files int
	file  *os.File
	conn  syscall.RawConn
	buf   [64]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	p := &poller{fd: fd, timer: timer, files: -1, file: os.NewFile(uintptr(fd), "epoll")}
	if files, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		p.files = files
	}
	p.conn, err = p.file.SyscallConn()
	if err == nil {
		err = p.add(timer, timerSlot, 0)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// event puts slot and stream where the kernel gives them back.
func event(slot uint32, stream int) *unix.EpollEvent {
	return &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(slot), Pad: int32(stream)}
}

func (p *poller) add(fd int, slot uint32, stream int) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, event(slot, stream))
}

// pause stops (on) or goes on to watch; it cannot fail for a descriptor that
// was added.
func (p *poller) pause(fd int, slot uint32, stream int, on bool) {
	e := event(slot, stream)
	if on {
		e.Events = 0
	}
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, e)
}

func (p *poller) remove(fd int) { _ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// wait appends the streams that have bytes; timer says that wakeIn has come.
// Only one goroutine waits.
func (p *poller) wait(to []ready) (_ []ready, timer bool, _ error) {
	var n int
	var err error
	rerr := p.conn.Read(func(uintptr) bool {
		for {
			n, err = unix.EpollWait(p.fd, p.buf[:], 0)
			if err != unix.EINTR {
				return n != 0 || err != nil
			}
		}
	})
	if err := errors.Join(rerr, err); err != nil {
		return to, false, err
	}
	for _, e := range p.buf[:n] {
		if uint32(e.Fd) == timerSlot {
			var b [8]byte
			_, _ = unix.Read(p.timer, b[:]) // only to make it unreadable
			timer = true
			continue
		}
		to = append(to, ready{slot: uint32(e.Fd), stream: int(e.Pad)})
	}
	return to, timer, nil
}

// wakeIn lets wait return after d.
func (p *poller) wakeIn(d time.Duration) {
	t := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	_ = unix.TimerfdSettime(p.timer, 0, &t, nil) // fails only for arguments that are wrong
}

func (p *poller) close() error {
	if p.files >= 0 {
		unix.Close(p.files)
	}
	return errors.Join(p.file.Close(), unix.Close(p.timer))
}

// openChildEnd opens the very FIFO that fd is, even if its name was removed.
func (p *poller) openChildEnd(path string, fd int) (int, error) {
	if p.files < 0 {
		return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	return unix.Openat(p.files, strconv.Itoa(fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
}

func setPipeSize(fd, size int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size)
	return err
}

// move splices from the FIFO to the end of the segment. The kernel takes bytes
// out of the FIFO only as far as the file has them.
func (s *Sink) move(stream int, w *writer, limit int64) (int64, error) {
	if s.copying {
		return s.copyTo(stream, w, limit)
	}
	for {
		off := w.off
		n, err := unix.Splice(int(s.fifo[stream]), nil, w.log, &off, int(limit), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, nil
		case unix.EINVAL, unix.ENOSYS:
			s.copying = true
			return s.copyTo(stream, w, limit)
		}
		return max(0, n), err
	}
}
