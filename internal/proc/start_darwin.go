package proc

import "golang.org/x/sys/unix"

// startTime is when a process was started, in microseconds since 1970; a zombie
// has none.
func startTime(pid int) (uint64, error) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return 0, err
	}
	const zombie = 5 // SZOMB of sys/proc.h
	if k.Proc.P_stat == zombie || int(k.Proc.P_pid) != pid {
		return 0, unix.ESRCH
	}
	t := k.Proc.P_starttime
	return uint64(t.Sec)*1e6 + uint64(t.Usec), nil
}
