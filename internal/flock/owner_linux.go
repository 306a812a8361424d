package flock

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// self is the calling process.
func self() Owner {
	o := Owner{PID: os.Getpid(), Boot: boot()}
	_, o.Start = stat("self")
	return o
}

func boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// stat returns the fields 3 and 22 of /proc/PID/stat (proc_pid_stat(5)); the
// name in field 2 may hold anything, so they are counted from its end.
func stat(pid string) (state byte, start uint64) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, 0
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0, 0
	}
	return fields[0][0], start
}

// state tells what has become of an owner. One of another boot is gone: a disk
// that two machines share must keep locks for both.
func (o Owner) state() fate {
	now := boot()
	if o.PID <= 0 || o.Start == 0 || o.Boot == "" || now == "" {
		return unknown
	}
	if o.Boot != now {
		return gone
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(o.PID)); errors.Is(err, os.ErrNotExist) {
		return gone
	}
	switch state, start := stat(strconv.Itoa(o.PID)); {
	case start == 0:
		return unknown
	case start != o.Start, state == 'Z', state == 'X':
		return gone
	}
	return alive
}

// inheritors names the processes that have the lock file open, as far as we may
// look, for a message.
func inheritors(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == path {
			if pid := strings.Split(link, "/")[2]; pid != strconv.Itoa(os.Getpid()) {
				return fmt.Sprintf(" (pid %s: end it)", pid)
			}
		}
	}
	return ""
}
