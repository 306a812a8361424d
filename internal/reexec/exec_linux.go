package reexec

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory makes a file that lives in memory (memfd_create(2)).
func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// sigaction is struct sigaction of the kernel on 64-bit Linux (rt_sigaction(2)):
// a handler, flags, the restorer and the mask. Only the handler is looked into.
type sigaction [4]uint64

const sigIgnore = 1 // SIG_IGN

// deaf ignores the signals that have a handler now and end the program without
// one: exec sets handlers back to the default. The runtime of the next program
// takes over from its first moment, so what is sent within is lost, and must not
// kill. The returned function undoes it.
func deaf() (restore func()) {
	signals := []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGQUIT}
	before := make([]sigaction, len(signals))
	set := func(sig unix.Signal, new, old *sigaction) {
		// It fails for no signal of the list.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(new)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	}
	for i, sig := range signals {
		set(sig, &sigaction{sigIgnore}, &before[i])
	}
	return func() {
		for i, sig := range signals {
			set(sig, &before[i], nil)
		}
	}
}
