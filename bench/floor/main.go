//go:build linux

// Command floor is the least that a Go program can do to keep N programs
// running: fork, wait, fork again. It keeps nothing and promises nothing, and
// is what the benchmarks compare with.
//
//	floor N CHILD SOCKET PREFIX
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
)

func main() {
	if len(os.Args) < 5 {
		os.Exit(2)
	}
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(2)
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	names := make(map[int]int, n)
	for i := range n {
		names[start(i)] = i
	}
	var ending atomic.Bool
	self := os.Getpid()
	go func() {
		<-terminated
		ending.Store(true)
		endChildren(self)
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return // no child is left
		}
		i := names[pid]
		delete(names, pid)
		if !ending.Load() {
			names[start(i)] = i
		}
	}
}

// endChildren sends TERM to each child, as the kernel lists them.
func endChildren(self int) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", self))
	if err != nil {
		return
	}
	for _, task := range tasks {
		list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", self, task.Name()))
		if err != nil {
			continue
		}
		pid := 0
		for _, c := range list {
			if c == ' ' {
				_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended by itself
				pid = 0
				continue
			}
			pid = pid*10 + int(c-'0')
		}
	}
}

func start(i int) int {
	pid, err := syscall.ForkExec(os.Args[2], []string{os.Args[2], os.Args[3], fmt.Sprintf("%s%04d", os.Args[4], i)},
		&syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor: cannot start:", err)
		os.Exit(1)
	}
	return pid
}
