//go:build unix

package server

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/api"
)

// descriptorsEach is how many open files the supervisor needs for a process
// that has written: its pidfd, two FIFOs and the log with its index.
const descriptorsEach = 5

// diskLow is the free space below which the state directory is in danger: a few
// log segments and a journal segment.
const diskLow = 200 << 20

// surroundings tells what of the system could stand in the way: open files, disk.
func surroundings(stateDir string, processes int) []api.Finding {
	var out []api.Finding
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		need := uint64(processes*descriptorsEach + 100)
		if uint64(lim.Max) < need {
			out = append(out, finding("error", "raise the hard limit of open files (ulimit -Hn) before `perdure up`",
				"%d processes may need %d open files, and the limit is %d", processes, need, lim.Max))
		} else {
			out = append(out, finding("ok", "", "the limit of open files (%d) is enough for %d processes", lim.Max, processes))
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(stateDir, &fs); err != nil {
		out = append(out, finding("error", "", "the state directory %s cannot be looked at: %v", stateDir, err))
	} else if free := uint64(fs.Bavail) * uint64(fs.Bsize); free < diskLow { //nolint:unconvert // the types differ from system to system
		out = append(out, finding("warning", "make space; when the disk is full, starts wait until there is some",
			"the disk of %s has %d MiB left", stateDir, free>>20))
	} else {
		out = append(out, finding("ok", "", "the disk of %s has %d MiB left", stateDir, free>>20))
	}
	if runtime.GOOS != "linux" {
		out = append(out, finding("warning", "see docs/reference/platforms.md", "on %s some things cannot be done that Linux can", runtime.GOOS))
	}
	return out
}
