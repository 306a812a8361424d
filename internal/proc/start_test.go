//go:build linux

package proc

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	for _, code := range []int{0, 1, 7, 100, 127, 255} {
		x := start(t, h, roleSpec("exit", itoa(code)))
		// Nothing is left of it, so both come in one notice.
		if diff := cmp.Diff(Notice{Exited: true, Exit: Exit{Code: code}, Gone: true}, x.notice()); diff != "" {
			t.Error(diff)
		}
		x.quiet()
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	for name, want := range map[string]Exit{
		"KILL":    {Code: 137, Signal: "SIGKILL"},
		"SIGUSR1": {Code: 138, Signal: "SIGUSR1"},
		"RTMIN+3": {Code: 165, Signal: "SIGRTMIN+3"},
	} {
		spec := roleSpec("")
		spec.Argv = []string{"sleep", "1000"} // a program without Go's handlers of signals
		x := start(t, h, spec)
		if err := x.Signal(name); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, x.end()); diff != "" {
			t.Error(name, diff)
		}
		// After the end it is a quiet nothing, whoever has the number now (N13).
		if err := x.Signal("KILL"); err != nil {
			t.Error(err)
		}
		if err := x.Kill(); err != nil {
			t.Error(err)
		}
		x.quiet()
	}
}

func TestCoreDumped(t *testing.T) {
	t.Parallel()
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || strings.HasPrefix(string(pattern), "|") || strings.HasPrefix(string(pattern), "/") || os.Geteuid() != 0 {
		t.Skip("this system writes no core file into the directory of the process")
	}
	h := testHost(t, Options{})
	spec := roleSpec("")
	spec.Argv, spec.Dir = []string{"sleep", "1000"}, t.TempDir()
	spec.Rlimits = []Rlimit{{Name: "core", Soft: Unlimited, Hard: Unlimited}}
	x := start(t, h, spec)
	if err := x.Signal("ABRT"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Exit{Code: 134, Signal: "SIGABRT", CoreDumped: true}, x.end()); diff != "" {
		t.Error(diff)
	}
}

// P8, W3: a program that cannot be run is an error at once, in words.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	dir := t.TempDir()
	plain := writeFile(t, 0o644, "#!/bin/sh\n")
	onPath := filepath.Join(dir, "tool")
	if err := os.WriteFile(onPath, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 3<<20)
	low := 022
	for name, c := range map[string]struct {
		spec Spec
		why  string
		is   error
	}{
		"not in PATH":     {Spec{Argv: []string{"no-such-tool"}, Env: []string{"PATH=" + dir}}, "not found in PATH", syscall.ENOENT},
		"no file":         {Spec{Argv: []string{"/no/such/file"}}, "no such file", syscall.ENOENT},
		"no relative":     {Spec{Argv: []string{"./nothing"}, Dir: dir}, "no such file", syscall.ENOENT},
		"mode":            {Spec{Argv: []string{plain}}, "permission denied (the file is not executable", syscall.EACCES},
		"mode in PATH":    {Spec{Argv: []string{"tool"}, Env: []string{"PATH=" + dir}}, "not executable", syscall.EACCES},
		"a directory":     {Spec{Argv: []string{dir}}, "it is a directory", syscall.EACCES},
		"no directory":    {Spec{Argv: []string{"true"}, Dir: "/no/such/dir"}, `the directory "/no/such/dir" does not exist`, syscall.ENOENT},
		"file as dir":     {Spec{Argv: []string{"true"}, Dir: plain}, "is not a directory", syscall.ENOTDIR},
		"interpreter":     {Spec{Argv: []string{writeFile(t, 0o755, "#!/no/such/sh\n")}}, "the interpreter", syscall.ENOENT},
		"no program":      {Spec{Argv: []string{writeFile(t, 0o755, "just text")}}, "no program of this system", syscall.ENOEXEC},
		"too long":        {Spec{Argv: []string{"true", long}}, "too long", syscall.E2BIG},
		"empty":           {Spec{}, "the command is empty", syscall.EINVAL},
		"NUL":             {Spec{Argv: []string{"true", "a\x00b"}}, "NUL", syscall.EINVAL},
		"user":            {Spec{Argv: []string{"true"}, User: "nobody-of-that-name"}, `user "nobody-of-that-name" is not known`, nil},
		"group":           {Spec{Argv: []string{"true"}, Group: "no-such-group"}, `group "no-such-group" is not known`, nil},
		"shim: no file":   {Spec{Argv: []string{"/no/such/file"}, Umask: &low}, "no such file", syscall.ENOENT},
		"shim: directory": {Spec{Argv: []string{"true"}, Dir: "/no/such/dir", Umask: &low}, `cannot enter the directory "/no/such/dir"`, syscall.ENOENT},
		"shim: limit":     {Spec{Argv: []string{"true"}, Rlimits: []Rlimit{{Name: "nofile", Soft: 9, Hard: 5}}}, "cannot set the limit nofile to 9:5", syscall.EINVAL},
	} {
		_, err := h.Start(c.spec, func(n Notice) { t.Errorf("%s: notice %+v", name, n) })
		var se *StartError
		if !errors.As(err, &se) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if !strings.Contains(se.Why, c.why) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v (%v), want %q", name, err, se.Err, c.why)
		}
	}
}

// P15, P31: no terminal, no inherited descriptor, /dev/null to read from, a
// session and a group of its own; and nothing of our environment.
func TestChildSees(t *testing.T) {
	t.Parallel()
	h := testHost(t, withCgroup(t))
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	leak, err := os.Open("/dev/zero") // close-on-exec, as all that Go opens
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	for _, shim := range []bool{false, true} {
		var spec Spec
		f := runFacts(t, h, func(s *Spec) {
			s.Name, s.Dir = "sees", dir
			s.Env = append(s.Env, "A=b=c", "EMPTY=")
			if shim {
				s.NoNewPrivs = true
			}
			spec = *s
		})
		got := facts{Cwd: f.Cwd, Env: f.Env, Args: f.Args, Stdin: f.Stdin, HasTTY: f.HasTTY, NoNewPrivs: f.NoNewPrivs}
		want := facts{Cwd: dir, Env: spec.Env, Args: spec.Argv, Stdin: "/dev/null", NoNewPrivs: shim}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("shim %v: %s", shim, diff)
		}
		if f.SID != f.PID || f.PGID != f.PID {
			t.Errorf("pid %d is in session %d, group %d", f.PID, f.SID, f.PGID)
		}
		if len(f.FDs) != 3 {
			t.Errorf("shim %v: descriptors %q", shim, f.FDs)
		}
		if !strings.HasSuffix(f.Cgroup, "/sees") {
			t.Errorf("cgroup %q", f.Cgroup)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	umask, nice, oom := 0o027, 7, 321
	f := runFacts(t, h, func(s *Spec) {
		s.Umask, s.Nice, s.OOMScoreAdj, s.NoNewPrivs = &umask, &nice, &oom, true
		s.Rlimits = []Rlimit{{Name: "nofile", Soft: 301, Hard: 302}, {Name: "core", Soft: 0, Hard: 4096}}
	})
	if f.Umask != umask || f.Nice != nice || f.OOM != "321" || !f.NoNewPrivs || f.Core != [2]uint64{0, 4096} {
		t.Errorf("%+v", f)
	}
	// The Go runtime of the child raises its soft limit to just below the hard one.
	if f.Nofile[1] != 302 {
		t.Errorf("nofile %v", f.Nofile)
	}
	spec := roleSpec("")
	spec.Argv, spec.Rlimits = []string{"sh", "-c", "ulimit -Sn; ulimit -Hn"}, []Rlimit{{Name: "nofile", Soft: 301, Hard: 302}}
	_, out, err := h.Run(t.Context(), spec, 100)
	if err != nil || string(out) != "301\n302\n" {
		t.Errorf("%q %v", out, err)
	}
}

// The child gets the soft limit of open files that we were started with.
func TestNofileIsOriginal(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := testHost(t, Options{})
	for _, more := range []string{"", "umask"} {
		spec := roleSpec("nofile", more)
		// sh sets the limit, then becomes a supervisor that starts a sh that shows it.
		spec.Argv = []string{"sh", "-c", `ulimit -Sn 333; ulimit -Hn 4096; exec "$0" "$@"`, self, more}
		_, out, err := h.Run(t.Context(), spec, 100)
		if err != nil || string(out) != "333\n4096\n" {
			t.Errorf("with %q: %q %v", more, out, err)
		}
	}
}

func TestUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root changes users")
	}
	h := testHost(t, Options{})
	umask := 0o077
	for _, shim := range []bool{false, true} {
		spec := roleSpec("")
		spec.Argv = []string{"sh", "-c", "id -u; id -g; id -G; echo $HOME $USER $LOGNAME"}
		spec.User, spec.Group = "nobody", "12345"
		spec.Env = append(spec.Env, "USER=kept")
		if shim {
			spec.Umask = &umask
		}
		e, out, err := h.Run(t.Context(), spec, 1000)
		lines := strings.Split(string(out), "\n")
		if err != nil || e != (Exit{}) || len(lines) < 4 || lines[0] != "65534" || lines[1] != "12345" || lines[3] != "/nonexistent kept nobody" {
			t.Errorf("shim %v: %q %+v %v", shim, out, e, err)
		}
		if slices.Contains(strings.Fields(lines[2]), "0") {
			t.Errorf("shim %v: it still has the groups of root: %s", shim, lines[2])
		}
	}
	if _, err := h.Start(Spec{Argv: []string{"true"}, User: "4242424"}, nil); err == nil || !strings.Contains(err.Error(), "its group must be given") {
		t.Error(err)
	}
}

func TestPathOfSpecIsUsed(t *testing.T) {
	t.Parallel()
	h := testHost(t, Options{})
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "tool"), []byte("#!/bin/sh\necho \"$1\"; exit 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []Spec{
		{Argv: []string{"tool", "a"}, Env: []string{"PATH=/nowhere:" + dir + "/bin"}},
		{Argv: []string{"tool", "a"}, Env: []string{"PATH=bin"}, Dir: dir},
		{Argv: []string{"bin/tool", "a"}, Dir: dir},
	} {
		// Only a fork of another test at the wrong moment holds the file open.
		e, out, err := h.Run(t.Context(), spec, 10)
		if errors.Is(err, syscall.ETXTBSY) {
			e, out, err = h.Run(t.Context(), spec, 10)
		}
		if err != nil || e.Code != 5 || string(out) != "a\n" {
			t.Errorf("%v: %+v %q %v", spec.Argv, e, out, err)
		}
	}
}
