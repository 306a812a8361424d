package proc

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Host starts and watches processes. One goroutine waits for all of them in
// one epoll: there is no thread and no goroutine per process.
//
// Order of locks: Process.mu, then Host.mu. Neither is held while a notice is
// given.
type Host struct {
	opt     Options
	bootID  string
	null    *os.File
	cgroups *cgroups // nil means none
	scans   scanner
	notes   []string

	relay relay

	// groupByFD says that a group can be signalled through its leader's pidfd
	// (PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9): such a signal can never meet
	// another group that has got the same number (N13, S4).
	groupByFD bool

	poller
	sigchld chan os.Signal
	ended   sync.WaitGroup
	stopped chan struct{} // closed by Close

	mu       sync.Mutex
	closed   bool
	slots    map[int32]*Process
	byPID    map[int]*Process
	polled   map[*Process]struct{}
	swept    map[string][]stat // by marker; see dying
	lastSlot int32
	reaping
}

// reaping says when unknown children are not reaped; guarded by Host.mu.
type reaping struct {
	// starting counts forks whose pid is not in byPID yet: while there are any,
	// an unknown child may be one of them and must not be reaped as an orphan.
	starting  int
	reapAgain bool
	keeping   bool // see KeepZombies
}

// poller is the epoll and what wakes it up.
type poller struct {
	epoll, wake int
	// ready is the epoll as a file of the runtime's own poller: a goroutine that
	// waits there takes no thread.
	ready     *os.File
	readyConn syscall.RawConn
	// pass is held while the loop looks; paused says that it does no more.
	pass   sync.Mutex
	paused atomic.Bool
}

// The kinds of what the epoll reports, kept in the upper half of its data.
const (
	readyPidfd int32 = iota
	readyCgroup
	readyWake
)

// NewHost prepares the watching of processes. It fails where the system lacks
// what nothing can be done without: pidfds (Linux 5.4). All open descriptors of
// this process but 0, 1 and 2 become close-on-exec.
func NewHost(o Options) (*Host, error) {
	h := &Host{opt: o, poller: poller{epoll: -1, wake: -1}, slots: map[int32]*Process{}, byPID: map[int]*Process{}, polled: map[*Process]struct{}{}, swept: map[string][]stat{},
		stopped: make(chan struct{}), relay: relay{looks: exitLooks}}
	if err := h.open(); err != nil {
		h.closeFiles()
		return nil, err
	}
	if o.Adopting {
		h.starting++
	}
	h.ended.Go(h.loop)
	if o.Subreaper {
		h.sigchld = make(chan os.Signal, 1)
		signal.Notify(h.sigchld, syscall.SIGCHLD)
		h.ended.Go(func() {
			for range h.sigchld {
				h.wakeUp()
			}
		})
	}
	return h, nil
}

func (h *Host) open() (err error) {
	if h.bootID, err = BootID(); err != nil {
		return fmt.Errorf("cannot read the boot id of the system: %w", err)
	}
	if h.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	// What we have inherited open from whoever started us is for us alone.
	if err = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		h.note("descriptors that the supervisor has inherited are inherited by processes too (Linux 5.11 can prevent it)")
	}
	if h.opt.Self == "" {
		if h.opt.Self, err = os.Executable(); err != nil {
			return fmt.Errorf("cannot find our own program: %w", err)
		}
	}
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("cannot make an epoll: %w", err)
	}
	if err = unix.SetNonblock(h.epoll, true); err != nil { // NewFile polls what is so
		return fmt.Errorf("cannot make an epoll: %w", err)
	}
	h.ready = os.NewFile(uintptr(h.epoll), "epoll")
	if h.readyConn, err = h.ready.SyscallConn(); err == nil {
		err = h.ready.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return fmt.Errorf("cannot wait for an epoll: %w", err)
	}
	if h.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("cannot make an eventfd: %w", err)
	}
	if err = h.watch(h.wake, unix.EPOLLIN|unix.EPOLLET, 0, readyWake); err != nil {
		return err
	}
	if err = h.probe(); err != nil {
		return err
	}
	if h.opt.Subreaper {
		if err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("cannot become the parent of orphans (PR_SET_CHILD_SUBREAPER): %w", err)
		}
	}
	return nil
}

// probe finds out what the kernel can do.
func (h *Host) probe() error {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("cannot open a pidfd (Linux 5.4 or later is needed): %w", err)
	}
	defer unix.Close(self)
	h.groupByFD = unix.PidfdSendSignal(self, 0, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP) != unix.EINVAL
	if !h.groupByFD {
		h.note("this kernel cannot signal a group by pidfd (Linux 6.9 can): groups are signalled by number, after a check")
	}
	if h.opt.NoPidfdInfo || !canReadExit(self) {
		h.opt.NoPidfdInfo = true
		h.note("this kernel does not keep exit codes for those who are not the parent (Linux 6.15 does): " +
			"what has lost its supervisor has an unknown exit code when it ends, unless the server lives that started that supervisor")
	}
	if h.opt.CgroupName != "" {
		var why error
		if h.cgroups, why = openCgroups(h.opt.CgroupName); why != nil {
			h.note("no cgroup for each process (" + why.Error() + "): escaped descendants are looked for in /proc")
		}
	}
	if h.cgroups == nil && !h.opt.Subreaper {
		h.note("neither cgroups nor subreaper: descendants that leave their group are found only when their process is killed")
	}
	return nil
}

func (h *Host) note(s string) { h.notes = append(h.notes, s) }

// Notes says in sentences what this system cannot do for us; empty is best.
func (h *Host) Notes() []string { return append([]string(nil), h.notes...) }

// Close ends the watching and waits for its end; it kills nothing. No notice
// comes after it has returned, and what lives can be adopted by another Host.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	live := make([]*Process, 0, len(h.slots))
	for _, p := range h.slots {
		live = append(live, p)
	}
	h.mu.Unlock()
	if h.sigchld != nil {
		signal.Stop(h.sigchld)
		close(h.sigchld)
	}
	h.wakeUp()
	h.ended.Wait()
	close(h.stopped)
	for _, p := range live {
		p.mu.Lock()
		p.closeFiles()
		p.mu.Unlock()
	}
	h.closeFiles()
	return nil
}

func (h *Host) closeFiles() {
	if h.null != nil {
		_ = h.null.Close() //ok: nothing was written
	}
	if h.ready != nil {
		_ = h.ready.Close() //ok: it closes the epoll, which holds no data
	} else if h.epoll >= 0 {
		unix.Close(h.epoll)
	}
	if h.wake >= 0 {
		unix.Close(h.wake)
	}
	if h.cgroups != nil {
		h.cgroups.close()
	}
}

func (h *Host) watch(fd int, events uint32, slot, kind int32) error {
	ev := unix.EpollEvent{Events: events, Fd: slot, Pad: kind}
	if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("cannot watch a process: %w", err)
	}
	return nil
}

func (h *Host) wakeUp() {
	one := [8]byte{1}
	_, _ = unix.Write(h.wake, one[:]) //ok: EAGAIN means that it is awake already
}

// Shortest and longest wait between two looks at what is left of a process,
// where the system offers no event for it.
const (
	pollFirst = time.Millisecond
	pollLast  = 50 * time.Millisecond
)

// loop is the goroutine of the Host. All notices come from it, so their order
// is the order of what it saw.
func (h *Host) loop() {
	var events [128]unix.EpollEvent
	for {
		n := h.await(events[:])
		if !h.lookAt(events[:n]) {
			return
		}
	}
}

// lookAt is one pass of the loop; false is its end.
func (h *Host) lookAt(events []unix.EpollEvent) bool {
	h.pass.Lock()
	defer h.pass.Unlock()
	woken := false
	for _, ev := range events {
		if ev.Pad == readyWake {
			woken = true
			continue
		}
		if h.paused.Load() {
			continue
		}
		h.mu.Lock()
		p, closed := h.slots[ev.Fd], h.closed
		h.mu.Unlock()
		if p != nil && !closed {
			p.look(nil)
		}
	}
	if woken {
		h.drainWake()
	}
	if h.isClosed() {
		return false
	}
	if h.paused.Load() {
		return true
	}
	h.poll()
	if h.opt.Subreaper {
		h.reapOrphans()
	}
	return true
}

// Adopted says that all is adopted of what Options.Adopting speaks of. Once is
// enough, and without that option it does nothing.
func (h *Host) Adopted() {
	if h.opt.Adopting {
		h.opt.Adopting = false
		h.endStart()
	}
}

// Pause ends the watching but not the starting: nothing is reaped and no notice
// comes once it has returned, so that all that was seen can be written down. What
// ends from now on is for another Host, or for the program that this process
// becomes.
func (h *Host) Pause() {
	h.pass.Lock()
	defer h.pass.Unlock()
	h.paused.Store(true)
}

func (h *Host) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

func (h *Host) drainWake() {
	var b [8]byte
	_, _ = unix.Read(h.wake, b[:]) //ok: EAGAIN means that it is empty
}

// await waits for events, or for the time of the next poll.
func (h *Host) await(events []unix.EpollEvent) (n int) {
	var err error
	_ = h.ready.SetReadDeadline(h.firstPoll()) //ok: open has tried that it works
	waited := h.readyConn.Read(func(fd uintptr) bool {
		n, err = unix.EpollWait(int(fd), events, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	if err == nil && waited != nil && !errors.Is(waited, os.ErrDeadlineExceeded) {
		err = waited
	}
	if err != nil && !errors.Is(err, unix.EINTR) {
		//ok: only a descriptor that this code has closed too early can do this.
		panic("proc: cannot wait for the epoll: " + err.Error())
	}
	return max(n, 0)
}

// firstPoll is the time of the next poll, or zero.
func (h *Host) firstPoll() (first time.Time) {
	if h.paused.Load() {
		return first
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.polled {
		if first.IsZero() || p.nextPoll.Before(first) {
			first = p.nextPoll
		}
	}
	return first
}

// poll looks at those whose time has come. All of them share one snapshot.
func (h *Host) poll() {
	h.mu.Lock()
	if len(h.polled) == 0 {
		h.mu.Unlock()
		return
	}
	now := time.Now()
	var due []*Process
	for p := range h.polled {
		if !p.nextPoll.After(now) {
			due = append(due, p)
			p.wait = min(max(p.wait*3/2, pollFirst), pollLast)
			p.nextPoll = now.Add(p.wait)
		}
	}
	h.mu.Unlock()
	shared := &lazySnapshot{}
	for _, p := range due {
		p.look(shared)
	}
}

// pollSoon makes the loop look at p without an event, at growing distances
// until it is gone. A reset begins again with the shortest.
func (h *Host) pollSoon(p *Process, reset bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, already := h.polled[p]; already && !reset {
		return
	}
	p.wait, p.nextPoll = pollFirst, time.Now().Add(pollFirst)
	h.polled[p] = struct{}{}
}

type lazySnapshot struct {
	snap *snapshot
	err  error
}

func (l *lazySnapshot) get() (*snapshot, error) {
	if l.snap == nil && l.err == nil {
		l.snap, l.err = takeSnapshot()
	}
	return l.snap, l.err
}

// reapOrphans waits for each ended child that nobody here has started: a
// descendant that the kernel gave us. Without it its zombie would stay, and
// its group would never be empty.
func (h *Host) reapOrphans() {
	for {
		pid, _, err := waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
		if err != nil || pid == 0 {
			return
		}
		h.mu.Lock()
		p := h.byPID[pid]
		var orphan Identity
		var exit Exit
		if p == nil {
			if h.starting > 0 || h.keeping {
				h.reapAgain = h.starting > 0
				h.mu.Unlock()
				return
			}
			// Until it is reaped the pid is its own.
			orphan = h.orphanOf(pid)
			_, exit, err = waitid(unix.P_PID, pid, unix.WEXITED|unix.WNOHANG)
		}
		h.mu.Unlock()
		if p != nil && !p.look(nil) {
			return
		}
		if p == nil && err == nil && orphan.StartTime != 0 && h.opt.OnOrphan != nil {
			h.opt.OnOrphan(orphan, exit)
		}
		if err != nil && !errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

// KeepZombies says whether dead orphans are left as they are: as long as one is
// not reaped, somebody else can still learn its exit (Adopt). What a Host has
// started itself is always reaped. Default: no.
func (h *Host) KeepZombies(on bool) {
	h.mu.Lock()
	h.keeping = on
	h.mu.Unlock()
	if !on {
		h.wakeUp()
	}
}

func (h *Host) beginStart() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	h.starting++
	return nil
}

func (h *Host) endStart() {
	h.mu.Lock()
	h.starting--
	again := h.starting == 0 && h.reapAgain
	if again {
		h.reapAgain = false
	}
	h.mu.Unlock()
	if again {
		h.wakeUp()
	}
}

// add makes p known and watches its pidfd. Edge triggered: one event when it
// ends, one more when somebody else's zombie is reaped. It holds p.mu, because
// the loop may meet p as an ended child before its pidfd is watched.
func (h *Host) add(p *Process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return ErrClosed
	}
	for {
		h.lastSlot++
		if _, used := h.slots[h.lastSlot]; !used {
			break
		}
	}
	p.slot = h.lastSlot
	h.slots[p.slot] = p
	h.byPID[p.id.PID] = p
	h.mu.Unlock()
	if err := h.watch(p.fd, unix.EPOLLIN|unix.EPOLLET, p.slot, readyPidfd); err != nil {
		p.phase = phaseGone // nothing is told of it
		h.forget(p)
		return err
	}
	return nil
}

func (h *Host) forget(p *Process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.slots, p.slot)
	delete(h.polled, p)
	h.unnumber(p)
}

// unnumber takes p out of byPID, where a later process may have its pid.
func (h *Host) unnumber(p *Process) {
	if h.byPID[p.id.PID] == p {
		delete(h.byPID, p.id.PID)
	}
}

func (h *Host) managed(pid int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, is := h.byPID[pid]
	return is
}

// Release removes the cgroup of name once nothing is in it; without one it does
// nothing.
func (h *Host) Release(name string) error {
	if h.cgroups == nil || name == "" {
		return nil
	}
	return h.cgroups.remove(name)
}

// CgroupOf is the folder of the cgroup of name, and empty without cgroups.
func (h *Host) CgroupOf(name string) string {
	if h.cgroups == nil {
		return ""
	}
	return h.cgroups.dir + "/" + name
}

// Dead returns what led a session in a cgroup, has ended, and is not waited for
// yet: whoever adopts it learns its exit.
func (h *Host) Dead(cgroup string) []Identity {
	if cgroup == "" {
		return nil
	}
	snap, err := h.scans.take()
	if err != nil {
		return nil
	}
	var out []Identity
	for pid, st := range snap.byPID {
		if !st.alive() && st.session == pid {
			if id := h.leaderOf(&st); id.Cgroup == cgroup {
				out = append(out, id)
			}
		}
	}
	return out
}

// Find returns what lives and carries marker ("KEY=value") in its environment,
// leaders of a session first, then by age.
func (h *Host) Find(marker string) []Identity {
	if !strings.Contains(marker, "=") {
		return nil
	}
	snap, err := h.scans.take()
	if err != nil {
		return nil
	}
	return h.identities(snap, marker)
}
