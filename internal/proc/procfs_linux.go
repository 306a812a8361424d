package proc

import (
	"bytes"
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/internal/fault"
)

// stat is what we need of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	pid, ppid, pgrp, session int
	state                    byte
	utime, stime             uint64 // clock ticks
	start                    uint64 // clock ticks since boot
	exit                     int    // wait status; 0 where we may not read it
}

// alive is false for a zombie: it has ended, only its status is left (P3).
func (s *stat) alive() bool { return s.state != 'Z' && s.state != 'X' }

// readFile reads a file of /proc or of a cgroup into buf, without os.File: the
// poller of the runtime can do nothing with these and costs two system calls.
func readFile(path string, buf []byte) ([]byte, error) {
	return readAt(unix.AT_FDCWD, path, buf)
}

func readAt(dir int, path string, buf []byte) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for {
		if n == len(buf) {
			if n >= 4<<20 {
				return buf[:n], nil
			}
			buf = append(buf, make([]byte, max(len(buf), 512))...)
		}
		m, err := retry(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return nil, err
		}
		if m == 0 {
			return buf[:n], nil
		}
		n += m
	}
}

func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func readStat(pid int) (stat, error) {
	var buf [512]byte
	b, err := readFile(procPath(pid, "stat"), buf[:])
	if err != nil {
		return stat{}, err
	}
	s, ok := parseStat(b)
	if !ok {
		return stat{}, unix.ESRCH
	}
	return s, nil
}

// parseStat splits behind the last ")": the name before it may hold anything.
func parseStat(b []byte) (stat, bool) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || shut < open || shut+2 >= len(b) {
		return stat{}, false
	}
	s := stat{pid: int(number(b[:open-1]))}
	rest := b[shut+2:]
	s.state = rest[0]
	for field := 3; len(rest) > 0; field++ {
		end := bytes.IndexByte(rest, ' ')
		if end < 0 {
			end = len(rest)
		}
		v := rest[:end]
		switch field {
		case 4:
			s.ppid = int(number(v))
		case 5:
			s.pgrp = int(number(v))
		case 6:
			s.session = int(number(v))
		case 14:
			s.utime = number(v)
		case 15:
			s.stime = number(v)
		case 22:
			s.start = number(v)
		case 52:
			s.exit = int(number(v))
		}
		rest = rest[min(end+1, len(rest)):]
	}
	return s, s.pid > 0 && s.start > 0
}

// number reads the leading digits.
func number(b []byte) uint64 {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

// BootID names this boot of the system; it is new after each.
func BootID() (string, error) {
	if boot := fault.Boot(); boot != "" {
		return boot, nil
	}
	var buf [64]byte
	b, err := readFile("/proc/sys/kernel/random/boot_id", buf[:])
	return string(bytes.TrimSpace(b)), err
}

// Now is CLOCK_BOOTTIME in nanoseconds: it only goes forward, and goes on while
// the system sleeps (clock_gettime(2)). The call cannot block, and made raw it
// wakes no thread of the runtime that would watch it.
func Now() int64 {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		//ok: every kernel that Go runs on has this clock.
		panic("proc: the kernel has no CLOCK_BOOTTIME: " + errno.Error())
	}
	return ts.Nano()
}

// fields calls f with each number of a list split by white space.
func fields(b []byte, f func(n int)) {
	for v := range bytes.FieldsSeq(b) {
		f(int(number(v)))
	}
}
