//go:build unix

package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// defaultPath is where programs are looked for when Env has no PATH.
const defaultPath = "/usr/local/bin:/usr/bin:/bin"

func startError(spec *Spec, why string, err error) *StartError {
	name := ""
	if len(spec.Argv) > 0 {
		name = spec.Argv[0]
	}
	return &StartError{Argv0: name, Why: why, Err: err}
}

func envValue(env []string, key string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if v := env[i]; len(v) > len(key) && v[len(key)] == '=' && v[:len(key)] == key {
			return v[len(key)+1:], true
		}
	}
	return "", false
}

// lookup returns the path to execute; a relative one counts from Dir.
func lookup(spec *Spec) (string, error) {
	if len(spec.Argv) == 0 || spec.Argv[0] == "" {
		return "", startError(spec, "the command is empty", syscall.EINVAL)
	}
	for _, texts := range [][]string{spec.Argv, spec.Env} {
		for _, s := range texts {
			if strings.IndexByte(s, 0) >= 0 {
				return "", startError(spec, "an argument or variable holds a NUL byte", syscall.EINVAL)
			}
		}
	}
	if spec.Path != "" {
		return spec.Path, nil
	}
	name := spec.Argv[0]
	if strings.Contains(name, "/") {
		return name, nil // the kernel resolves it after the change of directory
	}
	path, ok := envValue(spec.Env, "PATH")
	if !ok || path == "" {
		path = defaultPath
	}
	refused := false
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "." // as in every shell
		}
		file := filepath.Join(dir, name)
		if !filepath.IsAbs(file) {
			file = filepath.Join(spec.Dir, file)
		}
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&0o111 != 0 {
			return absolute(file)
		}
		refused = true
	}
	if refused {
		return "", startError(spec, "permission denied (the file in PATH is not executable; try chmod +x)", syscall.EACCES)
	}
	return "", startError(spec, "not found in PATH ("+path+")", syscall.ENOENT)
}

// absolute keeps a path right when the child changes its directory first.
func absolute(file string) (string, error) {
	if filepath.IsAbs(file) {
		return file, nil
	}
	return filepath.Abs(file)
}

// explainErrno says in words why a program could not be executed. It looks at
// the files only now, after the failure: a start that works pays nothing.
func explainErrno(spec *Spec, path string, err error) error {
	if why := explainDir(spec, err); why != "" {
		return startError(spec, why, err)
	}
	file := path
	if !filepath.IsAbs(file) {
		file = filepath.Join(spec.Dir, file)
	}
	info, statErr := os.Stat(file)
	why := err.Error()
	switch {
	case errors.Is(err, syscall.ENOENT) && statErr == nil:
		why = "the interpreter that it names (in its line #!, or its ELF loader) does not exist"
	case errors.Is(err, syscall.ENOENT):
		why = "no such file"
	case errors.Is(err, syscall.ENOTDIR):
		why = "no such file (a part of its path is not a directory)"
	case errors.Is(err, syscall.EACCES) && statErr == nil && info.IsDir():
		why = "permission denied (it is a directory)"
	case errors.Is(err, syscall.EACCES) && statErr == nil && info.Mode()&0o111 == 0:
		why = "permission denied (the file is not executable; try chmod +x)"
	case errors.Is(err, syscall.EACCES):
		why = "permission denied" + forUser(spec)
	case errors.Is(err, syscall.EPERM):
		why = "operation not permitted" + forUser(spec)
	case errors.Is(err, syscall.ENOEXEC):
		why = "it is no program of this system (a script needs a first line #!)"
	case errors.Is(err, syscall.E2BIG):
		why = "its arguments and environment are too long together for the system"
	case errors.Is(err, syscall.EAGAIN):
		why = "the limit on the number of processes is reached (see rlimit nproc, pids.max of the cgroup)"
	case errors.Is(err, syscall.ENOMEM):
		why = "the system has no memory for it"
	case errors.Is(err, syscall.ETXTBSY):
		why = "the file is being written to (text file busy)"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		why = "too many open files (raise the limit nofile of the supervisor)"
	}
	return startError(spec, why, err)
}

func forUser(spec *Spec) string {
	if spec.User == "" && spec.Group == "" {
		return ""
	}
	return fmt.Sprintf(" (as user %q, group %q)", spec.User, spec.Group)
}

// explainDir is empty when the directory is not to blame.
func explainDir(spec *Spec, err error) string {
	if spec.Dir == "" {
		return ""
	}
	info, statErr := os.Stat(spec.Dir)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return "the directory " + quote(spec.Dir) + " does not exist"
	case statErr == nil && !info.IsDir():
		return quote(spec.Dir) + " is not a directory"
	case errors.Is(err, syscall.EACCES) && statErr != nil:
		return "the directory " + quote(spec.Dir) + " cannot be entered: " + statErr.Error()
	}
	return ""
}
