// Package proc starts, watches, signals and proves the end of operating system
// processes. It is the only package that forks. It knows nothing of restarts,
// policies or logs.
//
// Every process gets a session and a group of its own, and on Linux a cgroup v2
// of its own where that is writable. "Gone" always means: the leader has been
// waited for, its group is empty (kill(-pgid, 0) == ESRCH), its cgroup is
// empty, and no descendant that escaped from both is left.
package proc

import (
	"errors"
	"os"
	"time"
)

// Spec is what is needed to start one process. Argv[0] is looked up in the PATH
// of Env when it has no slash.
type Spec struct {
	// Name is the name of the cgroup, unique among live processes of one Host;
	// "" takes no cgroup (short commands).
	Name string
	Argv []string
	// Path is the file to execute. Default: Argv[0], looked up.
	Path string
	Dir  string
	// Env is the whole environment, "KEY=value".
	Env []string
	// Marker is one "KEY=value" of Env that no other process carries. By it
	// descendants are found that have left both group and cgroup; empty means
	// that they cannot be. It must not be changed by the program itself.
	Marker string
	// Stdout and Stderr are the child's ends; nil means /dev/null. Standard
	// input is always /dev/null. Extra are its descriptors from 3 on; nil stands for
	// one that is closed. The caller keeps and closes its own copies of all.
	Stdout, Stderr *os.File
	Extra          []*os.File

	// User and Group are names or numbers; empty means unchanged.
	User, Group string
	Umask       *int
	Rlimits     []Rlimit
	Nice        *int
	OOMScoreAdj *int
	NoNewPrivs  bool
}

// OwnImage is a Path that executes the program that runs now, whatever has
// become of its file: on Linux the kernel keeps it (proc_pid_exe(5)). Elsewhere
// it is the file.
func OwnImage() string {
	const image = "/proc/self/exe"
	if _, err := os.Stat(image); err == nil {
		return image
	}
	self, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return self
}

// Rlimit is one resource limit; Name is as in api.Definition.Rlimits, and
// Unlimited stands for RLIM_INFINITY.
type Rlimit struct {
	Name       string
	Soft, Hard uint64
}

// Unlimited is the value of a limit that is none.
const Unlimited = ^uint64(0)

// Identity names one operating system process for good: a pid alone is reused,
// a pid with its start time and the boot it belongs to is not.
type Identity struct {
	BootID string `json:"boot_id"`
	PID    int    `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat (proc_pid_stat(5)), in clock ticks.
	StartTime uint64 `json:"start_time"`
	// Cgroup is the path of its cgroup v2 folder, or empty.
	Cgroup string `json:"cgroup,omitempty"`
	// Marker is Spec.Marker.
	Marker string `json:"marker,omitempty"`
	// Leads says that it leads a session, as every process does that a Host has
	// started. Only Find sets it.
	Leads bool `json:"-"`
}

// Exit is how a leader ended. Code is 128+n after signal n.
type Exit struct {
	Code       int    `json:"code"`
	Signal     string `json:"signal,omitempty"` // "SIGKILL", or empty
	CoreDumped bool   `json:"core_dumped,omitempty"`
	// Unknown says that it ended, but how cannot be told.
	Unknown bool `json:"unknown,omitempty"`
}

// Options say how a Host works. The zero value works everywhere.
type Options struct {
	// Subreaper makes this process the parent of orphaned descendants
	// (PR_SET_CHILD_SUBREAPER(2const)), so that those that escape are found and
	// no zombie is left. The Host then reaps EVERY child of this process: no
	// other code may start children with os/exec. Linux only.
	Subreaper bool
	// CgroupName is the folder for the cgroups of this Host, beneath our own
	// cgroup v2 folder. Empty means no cgroups.
	CgroupName string
	// Self is the program that calls Shim first in main. Default: os.Executable.
	Self string
	// OnOrphan, with Subreaper, is told of each child that was reaped and that
	// nobody here has started: a descendant that the kernel gave us. It comes from
	// the goroutine of the Host and must not block. May be nil.
	OnOrphan func(Identity, Exit)
	// Adopting, with Subreaper, says that this process has children already that
	// are going to be adopted: it was another program before. Until Adopted is
	// called no child counts as an orphan.
	Adopting bool
	// NoPidfdInfo acts as on Linux before 6.15: the kernel keeps no exit code of
	// a process that is not our child. For tests.
	NoPidfdInfo bool
}

// Notice tells the owner of a process what became of it. For each process there
// is exactly one notice with Exited set and exactly one with Gone set, in this
// order; both may be in one notice. Notices come from one goroutine of the Host,
// perhaps before Start or Adopt has returned; the function that takes them must
// not block, and must not wait for a call of Kill to return.
type Notice struct {
	Exited bool
	Exit   Exit
	Gone   bool
}

// ErrGone is returned by Adopt when the identity does not name a live process.
var ErrGone = errors.New("the process is gone")

// ErrClosed is returned by a Host that has been closed.
var ErrClosed = errors.New("the host of processes is closed")

// StartError says why a process could not be started; its text is for people:
// `cannot run "x": not found in PATH`.
type StartError struct {
	Argv0 string
	Why   string
	Err   error
}

// Error returns the sentence.
func (e *StartError) Error() string { return "cannot run " + quote(e.Argv0) + ": " + e.Why }

// Unwrap returns the system's error.
func (e *StartError) Unwrap() error { return e.Err }

// Sample is what a process tree uses.
type Sample struct {
	// CPU is the user and system time used so far by all processes that are
	// alive in the tree. With a cgroup it also holds what has ended there, from
	// the making of the cgroup on. Either way only differences tell a load.
	CPU time.Duration
	// RSS is their resident memory in bytes.
	RSS int64
	// Count is the number of processes.
	Count int
}

func quote(s string) string { return "\"" + s + "\"" }
