//go:build unix

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// procStat is what /proc says of one process.
type procStat struct {
	pid, ppid int
	state     string
	start     string
	comm      string
}

// statOf reads /proc/PID/stat (proc_pid_stat(5)).
func statOf(pid int) (procStat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, false
	}
	text := string(b)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	f := strings.Fields(text[end+1:])
	if open < 0 || len(f) < 20 {
		return procStat{}, false
	}
	ppid, err := strconv.Atoi(f[1])
	return procStat{pid: pid, ppid: ppid, state: f[0], start: f[19], comm: text[open+1 : end]}, err == nil
}

// allStats are all processes of the system but the zombies.
func allStats() []procStat {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var out []procStat
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if st, ok := statOf(pid); ok && st.state != "Z" && st.state != "X" {
			out = append(out, st)
		}
	}
	return out
}

// marked are the living processes that carry the mark in their environment.
func (r *rig) marked() []procStat {
	var out []procStat
	for _, st := range allStats() {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(st.pid) + "/environ")
		if err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+r.mark+"\x00")) && st.pid != os.Getpid() {
			out = append(out, st)
		}
	}
	return out
}

// tree are all living descendants of a process.
func tree(root int) []procStat {
	all := allStats()
	in := map[int]bool{root: true}
	var out []procStat
	for grown := true; grown; {
		grown = false
		for _, st := range all {
			if in[st.ppid] && !in[st.pid] {
				in[st.pid], grown = true, true
				out = append(out, st)
			}
		}
	}
	return out
}

// stillThere are those of a list that live now.
func stillThere(list []procStat) []procStat {
	var out []procStat
	for _, st := range list {
		if now, ok := statOf(st.pid); ok && now.start == st.start && now.state != "Z" && now.state != "X" {
			out = append(out, st)
		}
	}
	return out
}

// alive says whether a pid lives.
func alive(pid int) bool {
	st, ok := statOf(pid)
	return ok && st.state != "Z" && st.state != "X"
}
