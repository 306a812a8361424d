package proc

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file reads what a pidfd knows. Whoever holds one learns how a process
// ended that is not its child: PIDFD_GET_INFO with PIDFD_INFO_EXIT (linux/pidfd.h,
// Linux 6.15) returns the wait status from the moment on at which its parent has
// reaped it, for as long as any pidfd of it is held.

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

// keptExit is what the kernel has kept of a process that has been reaped.
func (h *Host) keptExit(fd int) (Exit, bool) {
	if h.opt.NoPidfdInfo {
		return Exit{}, false
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	// ESRCH: it has been reaped, and nothing is kept. ENOTTY, EINVAL: an older
	// kernel, which canReadExit has told.
	if unix.IoctlPidfdInfo(fd, &info) != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Exit{}, false
	}
	return fromWaitStatus(syscall.WaitStatus(info.Exit_code)), true
}

// foreignExit returns how a process ended that is not our child: as its reaper
// has told it, from the kernel, or from its zombie. ok is false while it may
// still become known; then the loop looks again at growing distances, and at once
// when the pidfd tells that it has been reaped. It needs p.mu.
func (h *Host) foreignExit(p *Process) (e Exit, ok bool) {
	if p.told != nil {
		return *p.told, true
	}
	if e, ok := h.keptExit(p.fd); ok {
		return e, true
	}
	st, err := readStat(p.id.PID)
	if err != nil || st.start != p.id.StartTime {
		// It was reaped, perhaps only since the look before; the kernel keeps the
		// exit before it lets go of the pid (release_task in its exit.c).
		if e, ok := h.keptExit(p.fd); ok {
			return e, true
		}
		return Exit{Unknown: true}, !p.lookAgain(h.relay.on.Load())
	}
	if st.alive() {
		return Exit{}, false
	}
	// The kernel shows 0 to those who may not trace the process, so a 0 proves
	// success to root only.
	if st.exit != 0 || unix.Geteuid() == 0 {
		return fromWaitStatus(syscall.WaitStatus(st.exit)), true
	}
	return Exit{Unknown: true}, !p.lookAgain(!h.opt.NoPidfdInfo || h.relay.on.Load())
}

// lookAgain counts a look for an exit that somebody else must bring, if it may
// still come.
func (p *Process) lookAgain(mayCome bool) bool {
	p.exitLooks++
	return mayCome && p.exitLooks <= p.h.relay.looks
}

// exitLooks bounds how often we look for the exit of a zombie that its
// parent does not reap, or that its reaper does not tell: with the backoff of
// polls about half a second.
const exitLooks = 15

// relay is what we know of those who reap what we have adopted.
type relay struct {
	on    atomic.Bool // Told will bring the exits
	looks int         // exitLooks; tests want another number
}

// Relayed says whether somebody who reaps what we have adopted tells us of it
// by Told, so that an exit which the kernel does not keep is waited for, half a
// second at most. Default: nobody does.
func (h *Host) Relayed(on bool) { h.relay.on.Store(on) }

// Told brings how a process ended that we have adopted, from whoever has reaped
// it. What is not watched here, or has been noticed before, is ignored.
func (h *Host) Told(id Identity, exit Exit) {
	h.mu.Lock()
	p := h.byPID[id.PID]
	h.mu.Unlock()
	if p == nil || id.BootID != p.id.BootID || id.StartTime != p.id.StartTime {
		return
	}
	p.mu.Lock()
	p.told = &exit
	p.mu.Unlock()
	h.pollSoon(p, true)
	h.wakeUp()
}

// orphanOf is what the kernel tells of a dead child of somebody else's that is not
// reaped yet. Of one that led a session there is the cgroup as well: by that a
// supervisor knows what it has started and not written down.
func (h *Host) orphanOf(pid int) Identity {
	st, err := readStat(pid)
	if err != nil {
		return Identity{}
	}
	if st.session == pid && h.opt.OnOrphan != nil {
		return h.leaderOf(&st)
	}
	return Identity{BootID: h.bootID, PID: pid, StartTime: st.start}
}

// leaderOf is a process with the folder of its cgroup, where it has one.
func (h *Host) leaderOf(st *stat) Identity {
	id := Identity{BootID: h.bootID, PID: st.pid, StartTime: st.start}
	mount, err := cgroupMount()
	if err != nil {
		return id
	}
	if path, err := cgroupOf(st.pid); err == nil {
		id.Cgroup = mount + path
	}
	return id
}

// pidOf reads which process a pidfd stands for: -1 after it has been reaped
// (the line "Pid:" of its fdinfo, pidfd_open(2)).
func pidOf(fd int) (int, error) {
	b, err := readFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd), make([]byte, 512))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if text, is := bytes.CutPrefix(line, []byte("Pid:")); is {
			text = bytes.TrimSpace(text)
			if bytes.HasPrefix(text, []byte("-")) {
				return -1, nil
			}
			return int(number(text)), nil
		}
	}
	return 0, fmt.Errorf("descriptor %d is no pidfd", fd)
}
