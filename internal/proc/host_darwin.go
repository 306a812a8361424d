package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Host starts and watches processes: on systems other than Linux with groups
// alone, and one waiting goroutine for each process (see Notes).
type Host struct {
	bootID  string
	null    *os.File
	stopped chan struct{}
	ended   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	live   map[*Process]struct{}
}

// A Process is one that a Host has started or adopted.
type Process struct {
	h      *Host
	id     Identity
	child  bool
	notify func(Notice)

	mu    sync.Mutex
	ended bool // the leader has been waited for
	gone  bool
}

// NewHost prepares the watching of processes. Subreaper and CgroupName are for
// Linux only and change nothing here.
func NewHost(Options) (*Host, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Host{bootID: boot, null: null, stopped: make(chan struct{}), live: map[*Process]struct{}{}}, nil
}

// Notes says in sentences what this system cannot do for us.
func (h *Host) Notes() []string {
	return []string{
		"this system has no cgroups and no subreaper: descendants that leave their group (setsid) are not found",
		"this system keeps no exit codes for those who are not the parent: what ends while no supervisor lives has an unknown exit code",
		"umask, rlimits, nice, oom_score_adj and no_new_privs cannot be set for a process on this system",
	}
}

// Start runs a program in a session and group of its own, with /dev/null as its
// standard input; any failure is a *StartError.
func (h *Host) Start(spec Spec, notify func(Notice)) (*Process, error) {
	if spec.Umask != nil || len(spec.Rlimits) > 0 || spec.Nice != nil || spec.OOMScoreAdj != nil || spec.NoNewPrivs {
		return nil, startError(&spec, "umask, rlimits, nice, oom_score_adj and no_new_privs are not supported on this system", errors.ErrUnsupported)
	}
	path, err := lookup(&spec)
	if err != nil {
		return nil, err
	}
	cred, env, err := credential(&spec)
	if err != nil {
		return nil, err
	}
	files := []uintptr{h.null.Fd(), h.null.Fd(), h.null.Fd()}
	for i, f := range []*os.File{spec.Stdout, spec.Stderr} {
		if f != nil {
			files[i+1] = f.Fd()
		}
	}
	for _, f := range spec.Extra {
		if f == nil {
			files = append(files, ^uintptr(0)) // ForkExec closes it
			continue
		}
		files = append(files, f.Fd())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, startError(&spec, ErrClosed.Error(), ErrClosed)
	}
	pid, err := syscall.ForkExec(path, spec.Argv, &syscall.ProcAttr{Dir: spec.Dir, Env: env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: cred}})
	if err != nil {
		return nil, explainErrno(&spec, path, err)
	}
	p := &Process{h: h, child: true, notify: notify, id: Identity{BootID: h.bootID, PID: pid, Marker: spec.Marker}}
	p.id.StartTime, _ = startTime(pid) //ok: 0 is never adopted
	h.add(p)
	return p, nil
}

// Adopt begins to watch a process that another supervisor has started; its exit
// code will be unknown. ErrGone means that id names no live process.
func (h *Host) Adopt(id Identity, notify func(Notice)) (*Process, error) {
	if !h.lives(id) {
		return nil, ErrGone
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	p := &Process{h: h, id: id, notify: notify}
	h.add(p)
	return p, nil
}

// AdoptFD is for Linux only.
func (h *Host) AdoptFD(Identity, int, *Exit, func(Notice)) (*Process, error) {
	return nil, fmt.Errorf("cannot adopt a process by a descriptor on this system: %w", errors.ErrUnsupported)
}

// Told does nothing: nobody but the parent of a process can tell its exit here.
func (h *Host) Told(Identity, Exit) {}

// Relayed does nothing; see Told.
func (h *Host) Relayed(bool) {}

// KeepZombies does nothing: orphans do not come to us.
func (h *Host) KeepZombies(bool) {}

func (h *Host) lives(id Identity) bool {
	if id.BootID != h.bootID || id.PID <= 0 || id.StartTime == 0 {
		return false
	}
	at, err := startTime(id.PID)
	return err == nil && at == id.StartTime
}

// add needs h.mu.
func (h *Host) add(p *Process) {
	h.live[p] = struct{}{}
	if p.child {
		go p.await() // ends with the process; see Close
		return
	}
	h.ended.Go(func() {
		if p.poll(func() bool { return !h.lives(p.id) }) {
			p.exited(Exit{Unknown: true})
		}
	})
}

// await waits for a child. A blocked wait4 cannot be ended by Close, so Close
// does not wait for it: after Close nothing is told any more.
func (p *Process) await() {
	var info unix.WaitStatus
	_, err := unix.Wait4(p.id.PID, &info, 0, nil)
	for err == unix.EINTR {
		_, err = unix.Wait4(p.id.PID, &info, 0, nil)
	}
	e := Exit{Code: info.ExitStatus()}
	if err != nil {
		e = Exit{Unknown: true}
	} else if info.Signaled() {
		e = Exit{Code: 128 + int(info.Signal()), Signal: signalName(int(info.Signal())), CoreDumped: info.CoreDump()}
	}
	p.exited(e)
}

func (p *Process) exited(e Exit) {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	if p.h.isClosed() {
		return
	}
	empty := func() bool { return unix.Kill(-p.id.PID, 0) == unix.ESRCH }
	gone := empty()
	if gone {
		p.forget()
	}
	p.notify(Notice{Exited: true, Exit: e, Gone: gone})
	if !gone && p.poll(empty) {
		p.forget()
		p.notify(Notice{Gone: true})
	}
}

// poll waits until done; false means that the Host was closed before.
func (p *Process) poll(done func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-p.h.stopped:
			return false
		}
	}
	return true
}

func (p *Process) forget() {
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	p.h.mu.Lock()
	delete(p.h.live, p)
	p.h.mu.Unlock()
}

func (h *Host) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// Identity names the process for good.
func (p *Process) Identity() Identity { return p.id }

// PID is the leader's; it is also the number of its group and session.
func (p *Process) PID() int { return p.id.PID }

// PidFD is for Linux only.
func (p *Process) PidFD() (int, error) {
	return -1, fmt.Errorf("cannot make a descriptor of a process on this system: %w", errors.ErrUnsupported)
}

// Signal sends a signal, named as ParseSignal reads it, to the group.
func (p *Process) Signal(name string) error {
	n, err := signalNumber(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	if p.ended || !p.child {
		// Whoever has the pid now with another start time owns the group.
		if at, err := startTime(p.id.PID); err == nil && at != p.id.StartTime {
			return nil
		}
	}
	if err := unix.Kill(-p.id.PID, syscall.Signal(n)); err != nil && err != unix.ESRCH {
		return fmt.Errorf("cannot send %s to process %d: %w", signalName(n), p.id.PID, err)
	}
	return nil
}

// Kill sends SIGKILL to the group; repeats are fine.
func (p *Process) Kill() error { return p.Signal("SIGKILL") }

// SampleTree is not supported here.
func SampleTree(Identity) (Sample, error) {
	return Sample{}, fmt.Errorf("cannot measure processes on this system: %w", errors.ErrUnsupported)
}

// Find finds nothing here: environments of others cannot be read.
func (h *Host) Find(string) []Identity { return nil }

// Variable tells nothing here.
func (h *Host) Variable(Identity, string) string { return "" }

// Sweep can tell nothing from strangers here, so it touches nothing.
func (h *Host) Sweep(Identity) (live int, err error) { return 0, nil }

// Adopted does nothing here: there are no orphans.
func (h *Host) Adopted() {}

// Pause does nothing here: what ends meanwhile is told to nobody.
func (h *Host) Pause() {}

// Release does nothing: there are no cgroups.
func (h *Host) Release(string) error { return nil }

// Close ends the watching; it kills nothing, and no notice comes after it.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	close(h.stopped)
	h.ended.Wait()
	return h.null.Close()
}

// Shim does nothing here: Start refuses what it is for.
func Shim([]string) {}

// BootID is the time of the boot.
func BootID() (string, error) {
	tv, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot time of the system: %w", err)
	}
	return strconv.FormatInt(int64(tv.Sec), 10), nil
}

// Now is a clock in nanoseconds that only goes forward.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		//ok: every kernel that Go runs on has this clock.
		panic("proc: the kernel has no CLOCK_MONOTONIC: " + err.Error())
	}
	return ts.Nano()
}
