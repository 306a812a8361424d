package proc

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

type phase uint8

const (
	phaseAlive  phase = iota
	phaseExited       // the leader has ended, something of it is left
	phaseGone
)

// A Process is one that a Host has started or adopted. Its methods may be
// called from any goroutine at any time.
type Process struct {
	h      *Host
	id     Identity
	slot   int32
	notify func(Notice)

	// Guarded by Host.mu.
	wait     time.Duration
	nextPoll time.Time

	mu        sync.Mutex
	fd        int // pidfd of the leader, kept until it is gone; then -1
	events    int // cgroup.events while we wait for it, else -1
	phase     phase
	killed    bool
	adopted   bool   // its orphans may be somebody else's children
	told      *Exit  // from whoever has reaped it, see Host.Told
	exitLooks int    // looks for an exit that somebody else must bring
	looks     int    // looks at what the leader has left
	strays    []stat // what has been found in /proc besides the leader
}

// Identity names the process for good.
func (p *Process) Identity() Identity { return p.id }

// PID is the leader's; it is also the number of its group and session.
func (p *Process) PID() int { return p.id.PID }

// PidFD returns a new descriptor of the process, close-on-exec, for another
// process to hold: while any is held, the kernel keeps the exit code for
// AdoptFD (Linux 6.15). The caller closes it. After Gone it is ErrGone.
func (p *Process) PidFD() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return -1, ErrGone
	}
	return unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 3)
}

// Signal sends a signal, named as ParseSignal reads it, to the group. When
// nothing is left it does nothing. It never reaches another group that has got
// the same number (S4, N13, K8).
func (p *Process) Signal(name string) error {
	n, err := signalNumber(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == phaseGone || p.fd < 0 {
		return nil
	}
	if err := p.signalGroup(unix.Signal(n)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot send %s to process %d: %w", signalName(n), p.id.PID, err)
	}
	return nil
}

// signalGroup needs p.mu. Signal 0 asks whether the group has a member.
func (p *Process) signalGroup(sig unix.Signal) error {
	if p.h.groupByFD {
		return unix.PidfdSendSignal(p.fd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	}
	if p.phase != phaseAlive || !p.unreaped() {
		// The number of a group is free again as soon as its last member is
		// gone. A process that has it as its pid is its new owner.
		if st, err := readStat(p.id.PID); err == nil && st.start != p.id.StartTime {
			return unix.ESRCH
		}
	}
	return unix.Kill(-p.id.PID, sig)
}

// unreaped says whether the pidfd still stands for a process or its zombie.
func (p *Process) unreaped() bool { return unix.PidfdSendSignal(p.fd, 0, nil, 0) == nil }

// Kill sends SIGKILL to the group, to all of the cgroup, and to descendants that
// have escaped from both. It goes on to do so until Gone; repeats are fine.
// Without a cgroup it first reads /proc, which many calls at once share.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == phaseGone || p.fd < 0 {
		return nil
	}
	if p.id.Cgroup == "" {
		// Who descends from whom is only known as long as all live (P4).
		p.mu.Unlock()
		snap, err := p.h.scans.take()
		p.mu.Lock()
		if p.phase == phaseGone || p.fd < 0 {
			return nil
		}
		p.killed = true
		if err != nil {
			_ = p.signalGroup(unix.SIGKILL) //ok: the error of the scan is told, the loop tries again
			p.h.pollSoon(p, true)
			p.h.wakeUp()
			return fmt.Errorf("cannot look for descendants of process %d: %w", p.id.PID, err)
		}
		p.addStrays(snap.tree(&p.id))
	}
	p.killed = true
	err := p.strike()
	// The end of the leader is an event, but what outlives it may be one for
	// nobody: look until it is gone.
	if p.phase != phaseAlive || p.id.Cgroup == "" {
		p.h.pollSoon(p, true)
		p.h.wakeUp()
	}
	return err
}

func (p *Process) addStrays(found []stat) {
	for _, st := range found {
		if st.pid != p.id.PID && !slices.ContainsFunc(p.strays, func(o stat) bool { return o.pid == st.pid && o.start == st.start }) {
			p.strays = append(p.strays, st)
		}
	}
}

// strike sends SIGKILL to all that is known of the process. It needs p.mu.
func (p *Process) strike() error {
	var first error
	keep := func(err error) {
		if err != nil && !errors.Is(err, unix.ESRCH) && first == nil {
			first = fmt.Errorf("cannot kill process %d: %w", p.id.PID, err)
		}
	}
	if p.id.Cgroup != "" {
		keep(p.h.cgroups.kill(p.id.Cgroup))
	}
	keep(p.signalGroup(unix.SIGKILL))
	for _, st := range p.strays {
		keep(killExact(st, unix.SIGKILL))
	}
	return first
}

// look finds out what has become of p and tells its owner. Only the loop calls
// it. It reports false when p is our child and cannot be waited for yet.
func (p *Process) look(shared *lazySnapshot) bool {
	p.mu.Lock()
	if p.phase == phaseGone || p.fd < 0 {
		p.mu.Unlock()
		return true
	}
	var n Notice
	if p.phase == phaseAlive {
		exit, ok := p.collect()
		if !ok {
			p.mu.Unlock()
			return false
		}
		n.Exited, n.Exit = true, exit
		p.phase = phaseExited
	}
	left := p.left(shared)
	if !left {
		n.Gone = true
		p.phase = phaseGone
		p.closeFiles()
		p.h.forget(p)
	}
	p.mu.Unlock()
	if left {
		p.waitForRest()
	}
	if n.Exited || n.Gone {
		p.notify(n)
	}
	return true
}

// collect waits for the leader without blocking. It needs p.mu.
func (p *Process) collect() (Exit, bool) {
	pid, exit, err := waitid(unix.P_PIDFD, p.fd, unix.WEXITED|unix.WNOHANG)
	switch {
	case err == nil && pid != 0:
		p.h.mu.Lock()
		p.h.unnumber(p)
		p.h.mu.Unlock()
		return exit, true
	case err == nil:
		return Exit{}, false
	}
	if !p.ended() {
		return Exit{}, false
	}
	exit, ok := p.h.foreignExit(p)
	if !ok {
		p.h.pollSoon(p, false)
	}
	return exit, ok
}

// ended says whether the process that the pidfd stands for has ended.
func (p *Process) ended() bool { return pidfdEnded(p.fd) }

func pidfdEnded(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// left says whether anything of p lives after its leader (R4, N8, N9). It needs
// p.mu. A process that has been killed is struck again as long as there is.
func (p *Process) left(shared *lazySnapshot) bool {
	err := p.signalGroup(0)
	left := err == nil || errors.Is(err, unix.EPERM)
	if p.id.Cgroup != "" && populated(p.id.Cgroup) {
		left = true
	} else if p.mustScan(left, shared) {
		left = p.leftInSnapshot(shared)
	} else if !left && p.id.Cgroup == "" && p.h.opt.Subreaper && p.id.Marker != "" {
		left = len(markedOrphans(unix.Getpid(), p.id.Marker, p.h.managed)) > 0
	}
	if left && p.killed {
		_ = p.strike() //ok: it is struck again at the next look, and Gone is only told when nothing is left
	}
	return left
}

// looksPerScan is how many polls pass between two readings of /proc; the first
// comes earlier.
const looksPerScan = 16

// mustScan says whether only /proc can tell if anything is left: without a cgroup
// after a kill, and of what was adopted, whose orphans need not come to us; and now
// and then for a group that may consist of zombies
// whose parent does not reap them: those count as members, but they are dead.
func (p *Process) mustScan(left bool, shared *lazySnapshot) bool {
	if (p.killed || p.adopted) && p.id.Cgroup == "" {
		return true
	}
	p.looks++
	return left && shared != nil && (p.looks == 4 || p.looks%looksPerScan == 0)
}

func (p *Process) leftInSnapshot(shared *lazySnapshot) bool {
	if shared == nil {
		shared = &lazySnapshot{}
	}
	snap, err := shared.get()
	if err != nil {
		return true // unknown is not gone
	}
	p.strays = slices.DeleteFunc(p.strays, func(st stat) bool {
		now, there := snap.byPID[st.pid]
		return !there || now.start != st.start || !now.alive()
	})
	p.addStrays(snap.tree(&p.id))
	return len(p.strays) > 0
}

// waitForRest arranges that the loop looks again: at an event of the cgroup
// where there is one, else after a while.
func (p *Process) waitForRest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != phaseExited || p.fd < 0 {
		return
	}
	if p.id.Cgroup == "" || !populated(p.id.Cgroup) {
		p.h.pollSoon(p, false)
		return
	}
	if p.events >= 0 {
		return
	}
	fd, err := unix.Open(p.id.Cgroup+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		p.events = fd
		// cgroup.events reports a change as POLLPRI (cgroups(7)).
		err = p.h.watch(fd, unix.EPOLLPRI|unix.EPOLLET, p.slot, readyCgroup)
	}
	if err != nil || !populated(p.id.Cgroup) { // emptied between the two
		p.h.pollSoon(p, false)
	}
}

// closeFiles needs p.mu.
func (p *Process) closeFiles() {
	for _, fd := range []*int{&p.fd, &p.events} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}
