package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/internal/fault"
)

// runDir returns the folder of the FIFOs: in memory where the system has a
// private place for it, because making thousands of them on a disk takes
// seconds, and nothing that uses them outlives the memory. The state directory's
// "run" leads there. Otherwise it is a plain folder. What is there stays in use:
// processes that live hold the FIFOs in it, and the environment in which this
// supervisor was started need not be that of the one before.
func runDir(stateDir, id string) (string, error) {
	link := filepath.Join(stateDir, "run")
	if fi, err := os.Lstat(link); err == nil && fi.IsDir() {
		return link, nil // made where there was no memory to be had
	}
	if to, err := os.Readlink(link); err == nil && filepath.Base(to) == runName(id) && private(to) {
		return to, nil
	}
	memory := memoryDir()
	if memory == "" {
		return link, os.MkdirAll(link, 0o700)
	}
	// The journal's name is random, so nobody else can have taken it.
	dir := filepath.Join(memory, runName(id))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return link, os.MkdirAll(link, 0o700)
	}
	if !private(dir) {
		return "", fmt.Errorf("cannot use %s for FIFOs: it is not ours alone", dir)
	}
	if to, err := os.Readlink(link); err == nil && to == dir {
		return dir, nil
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	fault.Here("supervisor.rundir.before_link")
	return dir, os.Symlink(dir, link)
}

func runName(id string) string { return "perdure-" + id }

// memoryDir is a folder in memory where we may make folders and nobody else may
// remove or replace them, or empty: the user's runtime directory (XDG Base
// Directory Specification), /run for root, or /dev/shm, which is sticky.
func memoryDir() string {
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run", "/dev/shm"} {
		var st unix.Statfs_t
		if dir == "" || unix.Statfs(dir, &st) != nil || st.Type != unix.TMPFS_MAGIC {
			continue
		}
		fi, err := os.Stat(dir)
		if err != nil || unix.Access(dir, unix.W_OK) != nil {
			continue
		}
		if fi.Mode()&fs.ModeSticky != 0 || fi.Mode().Perm()&0o022 == 0 && owned(fi) {
			return dir
		}
	}
	return ""
}

// private says that a folder is ours and closed to others.
func private(dir string) bool {
	fi, err := os.Lstat(dir)
	return err == nil && fi.IsDir() && fi.Mode().Perm()&0o077 == 0 && owned(fi)
}

func owned(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
