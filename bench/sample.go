//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const markVariable = "PERDURE_BENCH_MARK"

// marked lists the processes that carry the mark in their environment, without
// the programs under supervision, which inherit it; with child "" all of them.
func marked(mark, child string) []int {
	want := []byte(markVariable + "=" + mark + "\x00")
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var out []int
	for _, d := range dirs {
		env, err := os.ReadFile(d + "/environ")
		if err != nil || !bytes.Contains(append(env, 0), want) {
			continue
		}
		if exe, err := os.Readlink(d + "/exe"); err != nil || exe == child {
			continue // a zombie has no exe
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// killMarked ends the processes of a peer that its own stop has left.
func killMarked(mark, child string) int {
	pids := marked(mark, child)
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may have ended by itself
		ended(fd, 2*time.Second)
		_ = unix.Close(fd)
	}
	return len(pids)
}

// parent is the parent of a process (proc_pid_stat(5)).
func parent(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name of our programs has no bracket
	var state string
	var ppid int
	if _, err := fmt.Sscan(rest, &state, &ppid); err != nil {
		return 0, fmt.Errorf("cannot read the parent of %d: %w", pid, err)
	}
	return ppid, nil
}

// pss is the sum of the proportional set sizes in bytes (smaps_rollup in
// proc_pid_smaps(5)): pages that several processes share count once.
func pss(pids []int) (float64, error) {
	total := 0.0
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, fmt.Errorf("cannot read the memory of %d: %w", pid, err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "Pss:" {
				kb, err := strconv.ParseFloat(f[1], 64)
				if err != nil {
					return 0, err
				}
				total += kb * 1024
			}
		}
	}
	return total, nil
}

// cpu is the time that the processes have been on a CPU (the first field of
// schedstat, in nanoseconds, of each thread).
func cpu(pids []int) time.Duration {
	var total time.Duration
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			continue
		}
		for _, t := range tasks {
			text, err := os.ReadFile(t)
			if err != nil {
				continue // the thread has ended
			}
			first, _, _ := strings.Cut(string(text), " ")
			if ns, err := strconv.ParseInt(first, 10, 64); err == nil {
				total += time.Duration(ns)
			}
		}
	}
	return total
}
