package proc

import (
	"bytes"
	"os"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Linux runs on today (time(7)).
const tick = time.Second / 100

// Sample measures what id and its tree use now. ErrGone says that nothing of it
// lives.
func (h *Host) Sample(id Identity) (Sample, error) { return SampleTree(id) }

// SampleTree is Host.Sample for those who have no Host, in any process (P9).
// With a cgroup that is the tree, else it is the leader and its descendants.
func SampleTree(id Identity) (Sample, error) {
	s := sampler{buf: make([]byte, 4<<10), page: int64(os.Getpagesize())}
	if id.Cgroup != "" {
		return s.cgroup(id.Cgroup)
	}
	lead, err := readStat(id.PID)
	if err != nil || lead.start != id.StartTime || !lead.alive() {
		return Sample{}, ErrGone
	}
	s.process(lead)
	s.children(id.PID)
	return s.sum, nil
}

type sampler struct {
	buf  []byte
	page int64
	sum  Sample
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
