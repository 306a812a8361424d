package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// How the shim is told what to do: its first argument, and a variable that it
// takes out of the environment again.
const (
	shimArg = "__perdure_exec"
	shimEnv = "__PERDURE_EXEC="
)

// shimOrder is what the shim does before it becomes Path.
type shimOrder struct {
	Path        string              `json:"path"`
	Dir         string              `json:"dir,omitempty"`
	Umask       *int                `json:"umask,omitempty"`
	Rlimits     []Rlimit            `json:"rlimits,omitempty"`
	Nice        *int                `json:"nice,omitempty"`
	OOMScoreAdj *int                `json:"oom_score_adj,omitempty"`
	NoNewPrivs  bool                `json:"no_new_privs,omitempty"`
	Credential  *syscall.Credential `json:"credential,omitempty"`
	// Report is the descriptor on which it tells why it failed, behind all of the
	// program's own. It closes by itself when the program is executed.
	Report int `json:"report"`
}

// shimFailure is what it reports.
type shimFailure struct {
	// Step is what could not be done; empty means the exec itself.
	Step  string `json:"step,omitempty"`
	Errno int    `json:"errno"`
}

func needsShim(s *Spec) bool {
	return s.Umask != nil || len(s.Rlimits) > 0 || s.Nice != nil || s.OOMScoreAdj != nil || s.NoNewPrivs
}

// useShim makes l execute self first. What needs the rights of root (a higher
// priority, a hard limit) comes before the change of the user, so that is left
// to the shim too, and with it the directory, which the user must may enter.
func (l *launch) useShim(self string) error {
	order, err := json.Marshal(shimOrder{Path: l.path, Dir: l.attr.Dir, Umask: l.spec.Umask, Rlimits: l.spec.Rlimits, Nice: l.spec.Nice,
		OOMScoreAdj: l.spec.OOMScoreAdj, NoNewPrivs: l.spec.NoNewPrivs, Credential: l.sys.Credential, Report: len(l.attr.Files)})
	if err == nil {
		l.report, l.shimEnd, err = os.Pipe()
	}
	if err != nil {
		return startError(l.spec, "its settings cannot be handed over: "+err.Error(), err)
	}
	l.sys.Credential, l.attr.Dir = nil, ""
	l.attr.Env = append(l.attr.Env[:len(l.attr.Env):len(l.attr.Env)], shimEnv+string(order))
	l.attr.Files = append(l.attr.Files, l.shimEnd.Fd())
	l.argv = append([]string{self, shimArg}, l.argv...)
	l.path = self
	return nil
}

// readReport waits until the shim has become the program or says why not.
func (l *launch) readReport() error {
	_ = l.shimEnd.Close() //ok: our copy only; without this the read would not end
	b, err := io.ReadAll(io.LimitReader(l.report, 4096))
	if err != nil {
		return startError(l.spec, "its settings cannot be applied: "+err.Error(), err)
	}
	if len(b) == 0 {
		return nil
	}
	var f shimFailure
	if err := json.Unmarshal(b, &f); err != nil {
		return startError(l.spec, "its settings cannot be applied: "+string(b), err)
	}
	errno := syscall.Errno(f.Errno)
	if f.Step != "" {
		return startError(l.spec, "cannot "+f.Step+": "+errno.Error(), errno)
	}
	return explainErrno(l.spec, l.argv[2], errno)
}

func explain(l *launch, err error) error {
	if l.report != nil {
		return startError(l.spec, "our own program "+quote(l.path)+", which applies its settings, cannot be run: "+err.Error(), err)
	}
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
		return startError(l.spec, "it cannot be put in its cgroup "+l.cgroup+": "+err.Error(), err)
	}
	return explainErrno(l.spec, l.path, err)
}

// Shim must be called first thing in main, with os.Args. It returns at once,
// unless this process is the middle of a Start with settings that Go cannot
// apply between fork and exec: then it applies them, becomes the program, and
// does not return.
func Shim(args []string) {
	if len(args) < 3 || args[1] != shimArg {
		return
	}
	// nice and no_new_privs belong to a thread: the one that executes.
	runtime.LockOSThread()
	order := shimOrder{Report: 2} // until it is known
	env, text := shimEnviron()
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		order.fail("read its settings", unix.EINVAL)
	}
	unix.CloseOnExec(order.Report)
	if step, err := order.apply(); err != nil {
		order.fail(step, err)
	}
	order.fail("", syscall.Exec(order.Path, args[2:], env))
}

// shimEnviron splits the order from the environment of the program. The names
// of the runtime (GODEBUG and such) stay: they are the program's.
func shimEnviron() (env []string, order string) {
	all := os.Environ()
	env = make([]string, 0, len(all))
	for _, v := range all {
		if text, is := strings.CutPrefix(v, shimEnv); is {
			order = text
			continue
		}
		env = append(env, v)
	}
	return env, order
}

func (o *shimOrder) fail(step string, err error) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = syscall.EIO
	}
	b, _ := json.Marshal(shimFailure{Step: step, Errno: int(errno)}) //ok: a string and a number
	_, _ = unix.Write(o.Report, b)                                   //ok: nobody is left to tell
	os.Exit(127)
}

// apply goes from what needs rights to what gives them up.
func (o *shimOrder) apply() (step string, err error) {
	for _, r := range o.Rlimits {
		n, known := rlimitNumber(r.Name)
		if !known {
			return "set the limit " + r.Name + " (it is not known)", unix.EINVAL
		}
		if err := unix.Setrlimit(n, &unix.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
			return fmt.Sprintf("set the limit %s to %s:%s", r.Name, limitText(r.Soft), limitText(r.Hard)), err
		}
	}
	if o.Nice != nil {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, *o.Nice); err != nil {
			return "set the priority to " + strconv.Itoa(*o.Nice), err
		}
	}
	if o.OOMScoreAdj != nil {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*o.OOMScoreAdj)), 0); err != nil {
			return "set oom_score_adj to " + strconv.Itoa(*o.OOMScoreAdj), err
		}
	}
	if o.Umask != nil {
		unix.Umask(*o.Umask)
	}
	if step, err := o.changeUser(); err != nil {
		return step, err
	}
	if o.Dir != "" {
		if err := os.Chdir(o.Dir); err != nil {
			return "enter the directory " + quote(o.Dir), err
		}
	}
	if o.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return "set no_new_privs", err
		}
	}
	return "", nil
}

func (o *shimOrder) changeUser() (step string, err error) {
	c := o.Credential
	if c == nil {
		return "", nil
	}
	if !c.NoSetGroups {
		groups := make([]int, len(c.Groups))
		for i, g := range c.Groups {
			groups[i] = int(g)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return "set the supplementary groups", err
		}
	}
	if err := syscall.Setgid(int(c.Gid)); err != nil {
		return fmt.Sprintf("change to group %d", c.Gid), err
	}
	if err := syscall.Setuid(int(c.Uid)); err != nil {
		return fmt.Sprintf("change to user %d", c.Uid), err
	}
	return "", nil
}

func limitText(n uint64) string {
	if n == Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// rlimitNumber knows the names of getrlimit(2) in small letters.
func rlimitNumber(name string) (int, bool) {
	n, known := map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "core": unix.RLIMIT_CORE, "as": unix.RLIMIT_AS,
		"cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE, "memlock": unix.RLIMIT_MEMLOCK,
		"stack": unix.RLIMIT_STACK}[name]
	return n, known
}
