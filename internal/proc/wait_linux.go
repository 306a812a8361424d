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

// canReadExit says whether the kernel knows PIDFD_INFO_EXIT (Linux 6.15). The
// kernel tells it only about a process that has ended, so its version decides.
func canReadExit(self int) bool {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID}
	if unix.IoctlPidfdInfo(self, &info) != nil {
		return false
	}
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return false
	}
	major, minor := kernelVersion(uts.Release[:])
	return major > 6 || major == 6 && minor >= 15
}

func kernelVersion(release []byte) (major, minor uint64) {
	major = number(release)
	for i, c := range release {
		if c == '.' {
			return major, number(release[i+1:])
		}
	}
	return major, 0
}

// foreignExit returns how a process ended that is not our child: from the
// kernel once its parent has reaped it (linux/pidfd.h), or from its zombie.
// ok is false while it may still become known.
func (h *Host) foreignExit(p *Process) (e Exit, ok bool) {
	if !h.opt.NoPidfdInfo {
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		if unix.IoctlPidfdInfo(p.fd, &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			return fromWaitStatus(syscall.WaitStatus(info.Exit_code)), true
		}
	}
	st, err := readStat(p.id.PID)
	if err != nil || st.start != p.id.StartTime {
		return Exit{Unknown: true}, true // reaped, and nothing is kept of it
	}
	if st.alive() {
		return Exit{}, false
	}
	// The kernel shows 0 to those who may not trace the process, so a 0 proves
	// success to root only.
	if st.exit != 0 || unix.Geteuid() == 0 {
		return fromWaitStatus(syscall.WaitStatus(st.exit)), true
	}
	if h.opt.NoPidfdInfo || p.zombieLooks > zombieLooksMax {
		return Exit{Unknown: true}, true
	}
	p.zombieLooks++
	return Exit{}, false
}

// zombieLooksMax bounds how often we look whether a zombie's parent has reaped
// it: with the backoff of polls about half a second.
const zombieLooksMax = 15
