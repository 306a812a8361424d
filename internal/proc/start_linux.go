package proc

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start runs a program in a session, a group and (with a Name) a cgroup of its
// own, with /dev/null as its standard input and no other descriptors than 0, 1,
// 2 and Extra (P4, P15, P31). It returns once the program itself has been executed;
// any other end is a *StartError, and then there is no notice. The soft limit
// of open files is the one that we were started with, not the raised one of
// the Go runtime.
//
// Resource limits, umask, nice, the OOM score and no_new_privs take effect
// between fork and exec, where Go runs no code of ours. With any of them our own
// program is executed first, applies them to itself and becomes the program
// (see Shim), with the same pid.
func (h *Host) Start(spec Spec, notify func(Notice)) (*Process, error) {
	l, err := newLaunch(h, &spec)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := h.beginStart(); err != nil {
		return nil, startError(&spec, err.Error(), err)
	}
	defer h.endStart()
	pid, err := l.fork()
	if err != nil {
		return nil, err
	}
	p := &Process{h: h, notify: notify, fd: l.pidfd, events: -1,
		id: Identity{BootID: h.bootID, PID: pid, Cgroup: l.cgroup, Marker: spec.Marker}}
	if p.fd < 0 { // a kernel that has pidfds, but not from clone(2)
		p.fd, err = unix.PidfdOpen(pid, 0)
	}
	var st stat
	if err == nil {
		st, err = readStat(pid) // our child: at least its zombie is there
	}
	if err == nil {
		p.id.StartTime = st.start
		err = h.add(p)
	}
	if err != nil {
		l.abandon(pid)
		p.closeFiles()
		return nil, startError(&spec, "it was started, but cannot be watched, and was ended again: "+err.Error(), err)
	}
	return p, nil
}

// launch is one start on its way.
type launch struct {
	spec     *Spec
	path     string
	argv     []string
	attr     syscall.ProcAttr
	sys      syscall.SysProcAttr
	pidfd    int
	cgroup   string
	cgroupFD int
	cgroups  *cgroups
	// Of the shim: both ends of the pipe on which it tells why it failed.
	report, shimEnd *os.File
}

func newLaunch(h *Host, spec *Spec) (*launch, error) {
	path, err := lookup(spec)
	if err != nil {
		return nil, err
	}
	cred, env, err := credential(spec)
	if err != nil {
		return nil, err
	}
	l := &launch{spec: spec, path: path, argv: spec.Argv, pidfd: -1, cgroupFD: -1, cgroups: h.cgroups}
	l.sys = syscall.SysProcAttr{Setsid: true, PidFD: &l.pidfd, Credential: cred}
	out, errOut := h.null, h.null
	if spec.Stdout != nil {
		out = spec.Stdout
	}
	if spec.Stderr != nil {
		errOut = spec.Stderr
	}
	// Fd also makes the description blocking, as a child expects it.
	l.attr = syscall.ProcAttr{Dir: spec.Dir, Env: env, Files: []uintptr{h.null.Fd(), out.Fd(), errOut.Fd()}, Sys: &l.sys}
	for _, f := range spec.Extra {
		if f == nil {
			l.attr.Files = append(l.attr.Files, ^uintptr(0)) // ForkExec closes it
			continue
		}
		l.attr.Files = append(l.attr.Files, f.Fd())
	}
	if h.cgroups != nil && spec.Name != "" {
		if l.cgroupFD, l.cgroup, err = h.cgroups.open(spec.Name); err != nil {
			return nil, startError(spec, err.Error(), err)
		}
		l.sys.UseCgroupFD, l.sys.CgroupFD = true, l.cgroupFD
	}
	if needsShim(spec) {
		if err := l.useShim(h.opt.Self); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *launch) close() {
	if l.cgroupFD >= 0 {
		unix.Close(l.cgroupFD)
	}
	for _, f := range []*os.File{l.report, l.shimEnd} {
		if f != nil {
			_ = f.Close() //ok: a pipe that nobody writes to any more
		}
	}
}

// fork returns once the program has been executed.
func (l *launch) fork() (pid int, err error) {
	pid, err = syscall.ForkExec(l.path, l.argv, &l.attr)
	if err != nil {
		return 0, explain(l, err)
	}
	if l.report == nil {
		return pid, nil
	}
	if err := l.readReport(); err != nil {
		l.abandon(pid)
		if l.pidfd >= 0 {
			unix.Close(l.pidfd)
		}
		return 0, err
	}
	return pid, nil
}

// abandon ends a child that nobody was told of.
func (l *launch) abandon(pid int) {
	_ = unix.Kill(-pid, unix.SIGKILL) //ok: it is our unreaped child, or has ended by itself
	if l.cgroup != "" {
		_ = l.cgroups.kill(l.cgroup) //ok: as above; the next start refuses a cgroup that is not empty
	}
	_, _ = retry(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) }) //ok: only the zombie is of interest
}
