package proc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is siginfo_t as waitid(2) fills it in on 64-bit Linux: the union
// begins at byte 16.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

// From asm-generic/siginfo.h.
const (
	cldExited = 1
	cldDumped = 3
)

// waitid returns pid 0 when nobody has ended yet. x/sys has the call, but keeps
// the fields of siginfo_t to itself.
func waitid(kind, id, options int) (int, Exit, error) {
	for {
		var info siginfo
		_, _, errno := unix.RawSyscall6(unix.SYS_WAITID, uintptr(kind), uintptr(id), uintptr(unsafe.Pointer(&info)), uintptr(options), 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return 0, Exit{}, errno
		case info.pid == 0:
			return 0, Exit{}, nil
		case info.code == cldExited:
			return int(info.pid), Exit{Code: int(info.status)}, nil
		}
		return int(info.pid), Exit{Code: 128 + int(info.status), Signal: signalName(int(info.status)), CoreDumped: info.code == cldDumped}, nil
	}
}

func fromWaitStatus(w syscall.WaitStatus) Exit {
	if w.Signaled() {
		return Exit{Code: 128 + int(w.Signal()), Signal: signalName(int(w.Signal())), CoreDumped: w.CoreDump()}
	}
	return Exit{Code: w.ExitStatus()}
}
