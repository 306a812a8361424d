package proc

import (
	"bytes"
	"os"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Linux runs on today (time(7)).
const tick = time.Second / 100

// Sample measures what id and its tree use now, and with files how many
// descriptors are open in it. ErrGone says that nothing of it lives. Beside what
// SampleTree counts there is what has escaped from the leader and was given to us.
func (h *Host) Sample(id Identity, files bool) (Sample, int, error) {
	var s sampler
	s.begin()
	var err error
	if id.Cgroup != "" {
		_, err = s.cgroup(id.Cgroup)
	} else if h.sampleTree(&s, &id); s.sum.Count == 0 {
		err = ErrGone
	}
	if err != nil || !files {
		return s.sum, 0, err
	}
	return s.sum, OpenFiles(s.pids), nil
}

// sampleTree measures a tree without a cgroup.
func (h *Host) sampleTree(s *sampler, id *Identity) {
	s.leader(id)
	if !h.opt.Subreaper || id.Marker == "" {
		return
	}
	for _, st := range markedOrphans(os.Getpid(), id.Marker, h.managed) {
		if st.start >= id.StartTime {
			s.process(st)
			s.children(st.pid)
		}
	}
}

// SampleTree is Host.Sample for those who have no Host, in any process (P9).
// With a cgroup that is the tree, else it is the leader and its descendants.
func SampleTree(id Identity) (Sample, error) {
	var s sampler
	s.begin()
	if id.Cgroup != "" {
		return s.cgroup(id.Cgroup)
	}
	if !s.leader(&id) {
		return Sample{}, ErrGone
	}
	return s.sum, nil
}

type sampler struct {
	buf  []byte
	page int64
	sum  Sample
	pids []int
}

func (s *sampler) begin() {
	s.buf, s.page = make([]byte, 4<<10), int64(os.Getpagesize())
}

// leader measures a leader, which must live, and its descendants.
func (s *sampler) leader(id *Identity) bool {
	lead, err := readStat(id.PID)
	if err != nil || lead.start != id.StartTime || !lead.alive() {
		return false
	}
	s.process(lead)
	s.children(id.PID)
	return true
}

func (s *sampler) cgroup(dir string) (Sample, error) {
	if err := s.members(dir); err != nil {
		return Sample{}, ErrGone
	}
	if s.sum.Count == 0 {
		s.nested(dir)
	}
	if s.sum.Count == 0 {
		return Sample{}, ErrGone
	}
	b, err := readFile(dir+"/cpu.stat", s.buf)
	if err != nil {
		return Sample{}, ErrGone
	}
	if _, v, ok := bytes.Cut(b, []byte("usage_usec ")); ok {
		s.sum.CPU = time.Duration(number(v)) * time.Microsecond
	}
	return s.sum, nil
}

func (s *sampler) members(dir string) error {
	b, err := readFile(dir+"/cgroup.procs", s.buf)
	if err != nil {
		return err
	}
	fields(bytes.Clone(b), func(pid int) {
		s.sum.Count++
		s.pids = append(s.pids, pid)
		s.sum.RSS += s.rss(pid)
	})
	return nil
}

// nested adds cgroups that the processes have made within their own.
func (s *sampler) nested(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			_ = s.members(dir + "/" + e.Name()) //ok: it has been removed meanwhile
			s.nested(dir + "/" + e.Name())
		}
	}
}

// rss is the second field of statm, in pages (proc_pid_statm(5)): cheap, where
// the exact sums of smaps cost a walk through all mappings.
func (s *sampler) rss(pid int) int64 {
	b, err := readFile(procPath(pid, "statm"), s.buf)
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(b, []byte(" "))
	return int64(number(after)) * s.page
}

func (s *sampler) process(st stat) {
	s.sum.Count++
	s.pids = append(s.pids, st.pid)
	s.sum.CPU += time.Duration(st.utime+st.stime) * tick
	s.sum.RSS += s.rss(st.pid)
}

// children follows /proc/PID/task/TID/children: much less to read than all of
// /proc.
func (s *sampler) children(pid int) {
	tasks, err := os.ReadDir(procPath(pid, "task"))
	if err != nil {
		return
	}
	for _, t := range tasks {
		b, err := readFile(procPath(pid, "task/"+t.Name()+"/children"), s.buf)
		if err != nil {
			continue
		}
		fields(bytes.Clone(b), func(child int) {
			if st, err := readStat(child); err == nil && st.alive() && st.ppid == pid {
				s.process(st)
				s.children(child)
			}
		})
	}
}
