package proc

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// snapshot is all processes of the system at one time.
type snapshot struct {
	byPID    map[int]stat
	children map[int][]int

	mu     sync.Mutex
	marked map[string]map[string][]int // variable, then value, to pids
}

func takeSnapshot() (*snapshot, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	s := &snapshot{byPID: make(map[int]stat, len(names)), children: map[int][]int{}, marked: map[string]map[string][]int{}}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil { // else it has ended meanwhile
			s.byPID[pid] = st
			s.children[st.ppid] = append(s.children[st.ppid], pid)
		}
	}
	return s, nil
}

// withMarker returns who has marker in its environment. The environments are
// read once for all markers of the same variable.
func (s *snapshot) withMarker(marker string) []int {
	key, value, ok := strings.Cut(marker, "=")
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	values := s.marked[key]
	if values == nil {
		values = map[string][]int{}
		s.marked[key] = values
		buf := make([]byte, 16<<10)
		for pid := range s.byPID {
			b, err := readFile(procPath(pid, "environ"), buf)
			if err != nil {
				continue // ended, or not ours to read: then not ours to end
			}
			if v, ok := lookupEnviron(b, key); ok {
				values[v] = append(values[v], pid)
			}
		}
	}
	return values[value]
}

func lookupEnviron(b []byte, key string) (string, bool) {
	for v := range bytes.SplitSeq(b, []byte{0}) {
		if len(v) > len(key) && v[len(key)] == '=' && string(v[:len(key)]) == key {
			return string(v[len(key)+1:]), true
		}
	}
	return "", false
}

// tree returns whatever lives and belongs to id: its group, its session, all
// that carries its marker, and the descendants of all of these. The leader is
// among them while it lives.
func (s *snapshot) tree(id *Identity) []stat {
	seen := map[int]bool{}
	var queue []int
	// A process with the leader's pid and another start time has taken over the
	// number: whatever is in that group is not ours (K8, N13).
	lead, there := s.byPID[id.PID]
	ours := !there || lead.start == id.StartTime
	for pid, st := range s.byPID {
		if ours && st.start >= id.StartTime && (pid == id.PID || st.pgrp == id.PID || st.session == id.PID) {
			queue = append(queue, pid)
		}
	}
	if id.Marker != "" {
		queue = append(queue, s.withMarker(id.Marker)...)
	}
	var out []stat
	for len(queue) > 0 {
		pid := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		st := s.byPID[pid]
		if st.start < id.StartTime {
			continue
		}
		if st.alive() {
			out = append(out, st)
		}
		queue = append(queue, s.children[pid]...)
	}
	return out
}

// scanner shares one reading of /proc among all who ask at the same time: each
// gets a snapshot that was begun after it asked.
type scanner struct {
	mu      sync.Mutex
	running *scan
	next    *scan
}

type scan struct {
	done chan struct{}
	snap *snapshot
	err  error
}

func (c *scanner) take() (*snapshot, error) {
	c.mu.Lock()
	if c.running != nil {
		if c.next == nil {
			c.next = &scan{done: make(chan struct{})}
			mine, before := c.next, c.running
			c.mu.Unlock()
			<-before.done
			return c.run(mine)
		}
		s := c.next
		c.mu.Unlock()
		<-s.done
		return s.snap, s.err
	}
	s := &scan{done: make(chan struct{})}
	c.running = s
	c.mu.Unlock()
	return c.finish(s)
}

// run makes the waiting scan the running one, unless a third asker was quicker
// to begin one after the last had ended; then it waits for that too.
func (c *scanner) run(s *scan) (*snapshot, error) {
	c.mu.Lock()
	for c.running != nil {
		before := c.running
		c.mu.Unlock()
		<-before.done
		c.mu.Lock()
	}
	c.running, c.next = s, nil
	c.mu.Unlock()
	return c.finish(s)
}

func (c *scanner) finish(s *scan) (*snapshot, error) {
	s.snap, s.err = takeSnapshot()
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	close(s.done)
	return s.snap, s.err
}

// killExact ends the process that st describes and no other that may have its
// pid by now: the pidfd is opened first and then verified (K8).
func killExact(st stat, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(st.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	now, err := readStat(st.pid)
	if err != nil || now.start != st.start {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

// markedOrphans returns those of our own children that no one has started here
// and that carry marker: descendants that the kernel gave to us as subreaper.
// It gives them to the thread that leads our process (reparent_leader in the
// kernel's exit.c), so one list tells all.
func markedOrphans(self int, marker string, managed func(pid int) bool) []stat {
	key, value, ok := strings.Cut(marker, "=")
	if !ok {
		return nil
	}
	var out []stat
	var space [4096]byte
	b, err := readFile(procPath(self, "task/"+strconv.Itoa(self)+"/children"), space[:])
	if err != nil {
		return nil
	}
	var env []byte
	fields(b, func(pid int) {
		if managed(pid) {
			return
		}
		if env == nil {
			env = make([]byte, 16<<10)
		}
		e, err := readFile(procPath(pid, "environ"), env)
		if err != nil {
			return
		}
		if v, has := lookupEnviron(e, key); has && v == value {
			if st, err := readStat(pid); err == nil && st.alive() {
				out = append(out, st)
			}
		}
	})
	return out
}
