package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// cgroups is the folder under which each process gets a cgroup v2 of its own.
// No controllers are turned on: what we need (cgroup.kill, cgroup.events,
// cpu.stat) is there without any, so that this works beside anything else.
type cgroups struct {
	mount, dir string
	fd         int

	// sound holds the folders that we have made and that were never killed. The
	// kernel counts the kills of a cgroup, and where it compares that count with
	// the one of the parent's own cgroup (cgroup_css_set_fork; seen in Linux 6.18)
	// it kills whatever is forked into a folder that was killed before, for ever.
	mu    sync.Mutex
	sound map[string]struct{}
}

// openCgroups makes name beneath the cgroup that we are in ourselves.
func openCgroups(name string) (*cgroups, error) {
	if err := checkCgroupName(name); err != nil {
		return nil, err
	}
	mount, err := cgroupMount()
	if err != nil {
		return nil, err
	}
	own, err := cgroupOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(mount, own, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("cannot make a cgroup: %w", err)
	}
	if unix.Access(dir+"/cgroup.procs", unix.W_OK) != nil {
		return nil, fmt.Errorf("cannot write in the cgroup %s", dir)
	}
	if unix.Access(dir+"/cgroup.kill", unix.W_OK) != nil {
		return nil, errors.New("the kernel has no cgroup.kill (Linux 5.14 has)")
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &cgroups{mount: mount, dir: dir, fd: fd, sound: map[string]struct{}{}}, nil
}

// checkCgroupName refuses what is no single folder, or a name of the kernel's.
func checkCgroupName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 200 || strings.ContainsAny(name, "/\n\x00") ||
		strings.HasPrefix(name, "cgroup.") || strings.HasPrefix(name, "cpu.") {
		return fmt.Errorf("%q cannot be the name of a cgroup", name)
	}
	return nil
}

// cgroupMount finds where cgroup v2 is mounted (proc_pid_mountinfo(5)).
func cgroupMount() (string, error) {
	b, err := readFile("/proc/self/mountinfo", make([]byte, 8<<10))
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		before, after, ok := bytes.Cut(line, []byte(" - "))
		if f := bytes.Fields(before); ok && len(f) >= 5 && bytes.HasPrefix(after, []byte("cgroup2 ")) {
			return strings.ReplaceAll(string(f[4]), `\040`, " "), nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}

// cgroupOf returns the path of a process's cgroup v2, from its root.
func cgroupOf(pid int) (string, error) {
	b, err := readFile(procPath(pid, "cgroup"), make([]byte, 1<<10))
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		if path, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			return string(bytes.TrimSuffix(bytes.TrimRight(path, "\n"), []byte(" (deleted)"))), nil
		}
	}
	return "", errors.New("the process has no cgroup v2")
}

// open returns a descriptor of the folder for name, which is made when it is
// missing and must be empty: a new generation never joins the old one (S4, R6).
// A folder that is not known to be sound is made anew.
func (c *cgroups) open(name string) (fd int, path string, err error) {
	if err := checkCgroupName(name); err != nil {
		return -1, "", err
	}
	path = c.dir + "/" + name
	c.mu.Lock()
	_, sound := c.sound[path]
	c.mu.Unlock()
	if !sound {
		if populated(path) {
			return -1, "", fmt.Errorf("processes of an earlier run are left in its cgroup %s", path)
		}
		if err := removeCgroup(path); err != nil {
			return -1, "", err
		}
	}
	flags := unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	made := false
	if fd, err = unix.Openat(c.fd, name, flags, 0); err == unix.ENOENT {
		if err = unix.Mkdirat(c.fd, name, 0o755); err != nil && err != unix.EEXIST {
			return -1, "", fmt.Errorf("its cgroup %s cannot be made: %w", path, err)
		}
		made = err == nil
		fd, err = unix.Openat(c.fd, name, flags, 0)
	}
	if err != nil {
		return -1, "", fmt.Errorf("its cgroup %s cannot be opened: %w", path, err)
	}
	if !made && populatedAt(fd, "cgroup.events") {
		unix.Close(fd)
		return -1, "", fmt.Errorf("processes of an earlier run are left in its cgroup %s", path)
	}
	if !sound {
		c.mu.Lock()
		c.sound[path] = struct{}{}
		c.mu.Unlock()
	}
	return fd, path, nil
}

// kill ends whatever is in a cgroup, which is not sound any more. Without a
// folder of ours (c is nil) it does the same to one of another Host.
func (c *cgroups) kill(path string) error {
	if c != nil {
		c.unsound(path)
	}
	return killCgroup(path)
}

func (c *cgroups) unsound(path string) {
	c.mu.Lock()
	delete(c.sound, path)
	c.mu.Unlock()
}

func (c *cgroups) remove(name string) error {
	if err := checkCgroupName(name); err != nil {
		return err
	}
	c.unsound(c.dir + "/" + name)
	return removeCgroup(c.dir + "/" + name)
}

// removeCgroup removes a cgroup and those that its processes made within.
func removeCgroup(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	entries, _ := os.ReadDir(dir) //ok: then the rmdir below says why
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return fmt.Errorf("cannot remove the cgroup %s: %w", dir, err)
	}
	return nil
}

// close removes the folder when nothing is left in it.
func (c *cgroups) close() {
	unix.Close(c.fd)
	_ = unix.Rmdir(c.dir) //ok: it stays as long as processes that outlive us need it
}

// populated says whether a cgroup or one within has a process that lives;
// zombies do not count (cgroups(7)). A cgroup that was removed has none.
func populated(dir string) bool { return populatedAt(unix.AT_FDCWD, dir+"/cgroup.events") }

func populatedAt(dir int, path string) bool {
	var buf [128]byte
	n := 0
	fd, err := retry(func() (int, error) { return unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err == nil {
		n, err = retry(func() (int, error) { return unix.Read(fd, buf[:]) }) // all of it is in one read
		unix.Close(fd)
	}
	if err != nil {
		return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) // unknown is not empty
	}
	return !bytes.Contains(buf[:n], []byte("populated 0"))
}

func killCgroup(dir string) error {
	fd, err := unix.Open(dir+"/cgroup.kill", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("1"))
	if err == unix.ENODEV {
		return nil
	}
	return err
}

// ours returns the cgroup of pid if it is one of this folder, else "".
func (c *cgroups) ours(pid int) string {
	path, err := cgroupOf(pid)
	if err != nil {
		return ""
	}
	name, is := strings.CutPrefix(path, strings.TrimPrefix(c.dir, c.mount)+"/")
	if !is {
		return ""
	}
	name, _, _ = strings.Cut(name, "/")
	return c.dir + "/" + name
}
