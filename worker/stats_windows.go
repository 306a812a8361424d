package worker

import (
	"syscall"
	"time"
)

// cpuTime is GetProcessTimes of the process itself.
func cpuTime() (user, system time.Duration) {
	self, err := syscall.GetCurrentProcess()
	if err != nil {
		return 0, 0
	}
	var created, exited, kernel, mine syscall.Filetime
	if syscall.GetProcessTimes(self, &created, &exited, &kernel, &mine) != nil {
		return 0, 0
	}
	return ticks(mine), ticks(kernel)
}

// ticks turns a span of 100 ns ticks into a duration; Filetime.Nanoseconds is
// for points in time.
func ticks(f syscall.Filetime) time.Duration {
	return time.Duration(int64(f.HighDateTime)<<32|int64(f.LowDateTime)) * 100
}
