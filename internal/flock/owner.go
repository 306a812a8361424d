package flock

import (
	"fmt"
	"io"
	"os"
)

// Owner is who has written itself into a lock file. A pid alone is reused; with
// the start time and the boot it is not. Start and Boot are empty where the
// system does not tell them, and in files of early versions.
type Owner struct {
	PID int
	// Start is field 22 of /proc/PID/stat (proc_pid_stat(5)), in clock ticks.
	Start uint64
	// Boot is the name of the boot (/proc/sys/kernel/random/boot_id).
	Boot string
}

// Read returns the owner that the lock file at path names; the zero value when
// it names none. It does not tell whether the lock is held.
func Read(path string) Owner {
	f, err := os.Open(path)
	if err != nil {
		return Owner{}
	}
	defer func() { _ = f.Close() }()
	return readOwner(f)
}

// ownerLine is the longest content of a lock file.
const ownerLine = 128

func readOwner(f *os.File) Owner {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, ownerLine))
	if err != nil {
		return Owner{}
	}
	var o Owner
	// What is missing stays empty.
	_, _ = fmt.Sscan(string(b), &o.PID, &o.Start, &o.Boot)
	return o
}

// write makes the file name the owner. It is written in place, which a full disk
// allows where the file has had an owner before. Where it cannot be written it
// names nobody: the lock holds all the same, and a full disk is no reason to
// keep nothing alive.
func (o Owner) write(f *os.File) {
	line := fmt.Appendln(nil, o.PID, o.Start, o.Boot)
	_, err := f.WriteAt(line, 0)
	if err == nil {
		err = f.Truncate(int64(len(line)))
	}
	if err != nil {
		_ = f.Truncate(0) // frees space, so it does not fail for the lack of it
	}
}

// String names the owner for people.
func (o Owner) String() string {
	if o.PID == 0 {
		return "nobody"
	}
	return fmt.Sprintf("pid %d", o.PID)
}

// lives says that the owner is known to live.
func (o Owner) lives() bool { return o.state() == alive }

// dead says that the owner is known to be dead.
func (o Owner) dead() bool { return o.state() == gone }

// fate is what can be told of an owner.
type fate uint8

const (
	unknown fate = iota
	alive
	gone
)
