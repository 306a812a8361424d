package proc

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Adopt begins to watch a process that another supervisor has started. It
// returns ErrGone unless id names a process that lives, or its zombie: the boot,
// the pid and the start time must agree (P1, P2, P3, K8). Of a zombie the notice
// comes at once, or when its parent reaps it. Where it is not our child and the
// kernel does not keep exit codes, its code is unknown.
func (h *Host) Adopt(id Identity, notify func(Notice)) (*Process, error) {
	if id.BootID != h.bootID || id.PID <= 0 || id.StartTime == 0 {
		return nil, ErrGone
	}
	// Opened first, then verified: what the pidfd stands for cannot change.
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("cannot adopt process %d: %w", id.PID, err)
	}
	st, err := readStat(id.PID)
	if err != nil || st.start != id.StartTime {
		unix.Close(fd)
		return nil, ErrGone
	}
	return h.adoptFD(id, fd, nil, notify)
}

// AdoptFD is Adopt with a pidfd that somebody has held for us (PidFD). The
// process may have ended meanwhile: then the notice comes at once, with the
// exit that its reaper knows, if it is given, or that the kernel has kept. The
// descriptor is taken over, except with an error.
func (h *Host) AdoptFD(id Identity, fd int, known *Exit, notify func(Notice)) (*Process, error) {
	if id.BootID != h.bootID {
		return nil, ErrGone
	}
	pid, err := pidOf(fd)
	if err != nil {
		return nil, fmt.Errorf("cannot adopt process %d by a descriptor: %w", id.PID, err)
	}
	if pid != id.PID && (pid > 0 || !pidfdEnded(fd)) {
		return nil, ErrGone
	}
	if pid > 0 {
		if st, err := readStat(pid); err == nil && st.start != id.StartTime && !pidfdEnded(fd) {
			return nil, ErrGone
		}
	}
	return h.adoptFD(id, fd, known, notify)
}

func (h *Host) adoptFD(id Identity, fd int, known *Exit, notify func(Notice)) (*Process, error) {
	unix.CloseOnExec(fd)
	p := &Process{h: h, id: id, notify: notify, fd: fd, events: -1, told: known, adopted: true}
	if err := h.add(p); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return p, nil
}

// identities describes the live processes that carry marker.
func (h *Host) identities(snap *snapshot, marker string) []Identity {
	var found []stat
	for _, pid := range snap.withMarker(marker) {
		if st := snap.byPID[pid]; st.alive() {
			found = append(found, st)
		}
	}
	leads := func(s stat) int {
		if s.pid == s.session {
			return 0
		}
		return 1
	}
	slices.SortFunc(found, func(a, b stat) int {
		return cmp.Or(cmp.Compare(leads(a), leads(b)), cmp.Compare(a.start, b.start), cmp.Compare(a.pid, b.pid))
	})
	out := make([]Identity, 0, len(found))
	for _, st := range found {
		id := Identity{BootID: h.bootID, PID: st.pid, StartTime: st.start, Marker: marker, Leads: st.pid == st.session}
		if h.cgroups != nil {
			id.Cgroup = h.cgroups.ours(st.pid)
		}
		out = append(out, id)
	}
	return out
}

// Sweep ends what is left of a process whose leader is gone, so that nobody
// watches it any more: all of its cgroup, and whatever carries its marker. Live
// tells how much of it still lives; call again until it is 0, or an error says
// why that will not be. Without cgroup and marker nothing can be told from
// strangers, so nothing is touched.
func (h *Host) Sweep(id Identity) (live int, err error) {
	if id.BootID != h.bootID {
		return 0, nil
	}
	if id.Cgroup != "" && populated(id.Cgroup) {
		live++
		if err := h.cgroups.kill(id.Cgroup); err != nil {
			return live, fmt.Errorf("cannot kill the cgroup %s: %w", id.Cgroup, err)
		}
	}
	if id.Marker == "" {
		return live, nil
	}
	snap, err := h.scans.take()
	if err != nil {
		return live, fmt.Errorf("cannot look for what process %d has left: %w", id.PID, err)
	}
	left := snap.tree(&id)
	for _, st := range left {
		if h.managed(st.pid) {
			continue
		}
		live++
		if err := killExact(st, unix.SIGKILL); err != nil {
			return live, fmt.Errorf("cannot kill process %d, which process %d has left: %w", st.pid, id.PID, err)
		}
	}
	return live + h.dying(id.Marker, left), nil
}

// dying counts who was met in earlier sweeps for a marker, still lives, and is not
// in left: the environment of a process that ends goes with its memory, a moment
// before it is a zombie, and then nothing tells whose it is. What is left is noted
// for the next sweep, until nothing is.
func (h *Host) dying(marker string, left []stat) (live int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, st := range h.swept[marker] {
		met := func(other stat) bool { return other.pid == st.pid && other.start == st.start }
		if slices.ContainsFunc(left, met) {
			continue
		}
		if now, err := readStat(st.pid); err == nil && now.start == st.start && now.alive() {
			left = append(left, st)
			live++
		}
	}
	if len(left) == 0 {
		delete(h.swept, marker)
		return 0
	}
	h.swept[marker] = left
	return live
}

// Variable returns a variable of the environment with which a live process was
// started, empty if that cannot be told.
func (h *Host) Variable(id Identity, key string) string {
	b, err := readFile(procPath(id.PID, "environ"), make([]byte, 16<<10))
	if err != nil {
		return ""
	}
	value, _ := lookupEnviron(b, key)
	// The pid may have been another's when its environment was read.
	if st, err := readStat(id.PID); err != nil || st.start != id.StartTime {
		return ""
	}
	return value
}
