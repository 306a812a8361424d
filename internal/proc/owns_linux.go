package proc

import (
	"strings"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the walk from a process to its ancestors.
const maxDepth = 64

// Owns says whether a process belongs to the tree of a generation: it is in its
// cgroup or its session, carries its marker, or descends from its leader. Without
// an id, while the start is under way, the marker alone tells. It reads only what
// concerns this one process and its ancestors.
func (h *Host) Owns(id *Identity, marker string, pid int) bool {
	st, err := readStat(pid)
	if err != nil || !st.alive() {
		return false
	}
	if id != nil {
		if id.Cgroup != "" && h.inCgroup(id.Cgroup, pid) {
			return true
		}
		if st.start >= id.StartTime && (pid == id.PID || st.session == id.PID) && leads(id) {
			return true
		}
	}
	if carries(pid, marker) {
		return true
	}
	return id != nil && descends(st, id)
}

// leads says that the number of the leader is still the leader's, or nobody's.
func leads(id *Identity) bool {
	lead, err := readStat(id.PID)
	return err != nil || lead.start == id.StartTime
}

// inCgroup says whether a process is in a cgroup or in one within.
func (h *Host) inCgroup(dir string, pid int) bool {
	if h.cgroups == nil {
		return false
	}
	path, err := cgroupOf(pid)
	if err != nil {
		return false
	}
	own := strings.TrimPrefix(dir, h.cgroups.mount)
	return path == own || strings.HasPrefix(path, own+"/")
}

func carries(pid int, marker string) bool {
	key, value, ok := strings.Cut(marker, "=")
	if !ok {
		return false
	}
	env, err := readFile(procPath(pid, "environ"), make([]byte, 16<<10))
	if err != nil {
		return false
	}
	v, has := lookupEnviron(env, key)
	return has && v == value
}

// descends walks from a process to its ancestors, none of which is younger.
func descends(st stat, id *Identity) bool {
	for range maxDepth {
		if st.pid == id.PID {
			return st.start == id.StartTime
		}
		if st.ppid <= 1 || st.start < id.StartTime {
			return false
		}
		parent, err := readStat(st.ppid)
		if err != nil {
			return false
		}
		st = parent
	}
	return false
}

// Tree lists the processes of a generation, the leader's descendants and what has
// escaped from among them. Nil for no id.
func (h *Host) Tree(id *Identity) []int {
	if id == nil {
		return nil
	}
	var s sampler
	s.begin()
	if id.Cgroup != "" {
		if s.members(id.Cgroup) == nil {
			s.nested(id.Cgroup)
		}
		return s.pids
	}
	h.sampleTree(&s, id)
	return s.pids
}

// OpenFiles counts the open descriptors of processes. What cannot be read counts
// as none: it has ended, or belongs to another user.
func OpenFiles(pids []int) int {
	n := 0
	for _, pid := range pids {
		n += countFiles(pid)
	}
	return n
}

func countFiles(pid int) int {
	// The size of /proc/PID/fd is the number of descriptors (Linux 6.2; before
	// that it is 0, and they are counted one by one).
	var st unix.Stat_t
	if unix.Stat(procPath(pid, "fd"), &st) == nil && st.Size > 0 {
		return int(st.Size)
	}
	fd, err := unix.Open(procPath(pid, "fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	n := 0
	buf := make([]byte, 8<<10)
	for {
		size, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil || size == 0 {
			return n
		}
		_, count, _ := unix.ParseDirent(buf[:size], -1, nil)
		n += count
	}
}
