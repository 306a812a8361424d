package flock

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The children of these tests are this test binary.
func TestMain(m *testing.M) {
	path := os.Getenv("FLOCK_TEST")
	if path == "" {
		os.Exit(m.Run())
	}
	if os.Getenv("FLOCK_TAKE") != "" {
		if _, err := Take(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fmt.Println("here")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the test ends it
}

// child starts this binary; it ends with the test at the latest.
func child(t *testing.T, path string, env ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(append(os.Environ(), "FLOCK_TEST="+path), env...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "here\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	return c
}

// A lock is free with its owner's SIGKILL, and the next one does not wait for
// whoever has the owner's pid by then.
func TestKilledOwnerIsRecognised(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	c := child(t, path, "FLOCK_TAKE=1")
	if o := Read(path); o.PID != c.Process.Pid || !o.lives() || o.dead() {
		t.Errorf("the file names %+v, the owner is %d", o, c.Process.Pid)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if o := Read(path); o.lives() || !o.dead() {
		t.Errorf("%+v counts as alive", o)
	}
	l, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Release()
}

// What a dead owner has let its child inherit is told apart from an owner. A
// Lock itself is never inherited: it is close-on-exec.
func TestInheritedLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(l.f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the lock's descriptor is inherited: flags %#x, %v", flags, err)
	}
	_ = child(t, path)
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := tryLock(f); err != nil {
		t.Fatalf("the child has the lock: %v", err)
	}
	// A dead owner, and a child with its descriptor.
	dead := self()
	dead.Start++
	dead.write(f)
	heir := exec.Command(os.Args[0])
	heir.Env = append(os.Environ(), "FLOCK_TEST="+path)
	heir.ExtraFiles = []*os.File{f}
	in, err := heir.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := heir.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = heir.Wait()
	})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Take(path)
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "is dead") || !strings.Contains(err.Error(), fmt.Sprintf("pid %d: end it", heir.Process.Pid)) {
		t.Errorf("Take: %v", err)
	}
}

// A free lock whose owner lives: the file system does not keep locks. The owner
// here is process 1, which lives longer than the wait.
func TestLiveOwnerOfAFreeLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	_, start := stat("1")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	(Owner{PID: 1, Start: start, Boot: boot()}).write(f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(path); err == nil || !strings.Contains(err.Error(), "pid 1) lives") {
		t.Errorf("Take: %v", err)
	}
	// Of another boot it is nobody.
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	(Owner{PID: 1, Start: start, Boot: "another"}).write(f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Release()
}

// File systems without locks are told as such.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	for _, errno := range []error{unix.ENOLCK, unix.ENOSYS, unix.EOPNOTSUPP} {
		if err := explain("/x/lock", errno); !strings.Contains(err.Error(), "keeps no locks") || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if err := explain("/x/lock", unix.EIO); strings.Contains(err.Error(), "keeps no locks") {
		t.Errorf("EIO: %v", err)
	}
}
