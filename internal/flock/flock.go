// Package flock holds lock files: one owner at a time, and the lock is free as
// soon as its owner is dead, however it died.
package flock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ErrHeld is returned by Take when somebody else holds the lock.
var ErrHeld = errors.New("the lock is held")

// ErrReplaced is returned by Check when the path leads to another file now, or
// to none: whoever looks there does not see that the lock is held.
var ErrReplaced = errors.New("it was removed or replaced")

// Lock is a lock that is held.
type Lock struct {
	f    *os.File
	path string
}

// dying bounds the wait for an owner that has given the lock back but not yet
// ended: the kernel closes the files of a dying process before it is gone.
const dying = 2 * time.Second

// looking bounds the wait for somebody who holds the lock for a moment, only to
// see whether it is held (Held).
const looking = 500 * time.Millisecond

// Take takes the lock file at path and writes into it who the caller is. When
// the lock is held, the error wraps ErrHeld and names the holder. A file that a
// dead owner has left is taken over. Where the file system keeps no locks, or
// the owner that the file names lives although the lock is free, Take fails: a
// lock that does not lock is none. The file stays when the lock is released:
// removing it would let two owners hold two files.
func Take(path string) (*Lock, error) {
	late := time.Now().Add(looking)
	for {
		l, err := take(path)
		switch {
		case errors.Is(err, ErrHeld) && !Read(path).lives() && time.Now().Before(late):
			<-time.After(time.Millisecond)
			continue
		case err != nil:
			return nil, err
		}
		// Between open and lock somebody may have put another file there.
		if l.Check() == nil {
			return l, nil
		}
		_ = l.f.Close() // nothing but the owner was written, to a file that is gone
	}
}

func take(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = tryLock(f); err != nil {
		err = explain(path, err)
	} else {
		err = succeed(f)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	self().write(f)
	return &Lock{f, path}, nil
}

// succeed waits for the end of the owner before, if the file names one.
func succeed(f *os.File) error {
	before := readOwner(f)
	if before.PID == os.Getpid() {
		return nil
	}
	late := time.NewTimer(dying)
	defer late.Stop()
	for before.lives() {
		again := time.NewTimer(5 * time.Millisecond)
		select {
		case <-again.C:
		case <-late.C:
			again.Stop()
			return fmt.Errorf("cannot lock %s: it is free, but its owner (%s) lives; does its file system keep locks? "+
				"choose a --state-dir on a local disk", f.Name(), before)
		}
	}
	return nil
}

// explain says why a lock cannot be had.
func explain(path string, err error) error {
	if !errors.Is(err, ErrHeld) {
		if unsupported(err) {
			return fmt.Errorf("cannot lock %s: the file system of %s keeps no locks; choose a --state-dir on a local disk: %w",
				path, filepath.Dir(path), err)
		}
		return fmt.Errorf("cannot lock %s: %w", path, err)
	}
	owner := Read(path)
	if owner.dead() {
		return fmt.Errorf("cannot lock %s: its owner (%s) is dead, but a program that it started has inherited the lock%s: %w",
			path, owner, inheritors(path), err)
	}
	return fmt.Errorf("cannot lock %s (%s has it): %w", path, owner, err)
}

// Check returns an error that wraps ErrReplaced when the file at the lock's path
// is no longer the one that is locked. Then somebody else may hold a lock there.
func (l *Lock) Check() error {
	there, err := os.Stat(l.path)
	if err == nil {
		var ours os.FileInfo
		if ours, err = l.f.Stat(); err == nil && os.SameFile(there, ours) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot tell whether %s is still ours: %w", l.path, err)
	}
	return fmt.Errorf("%s is not the file that we hold: %w", l.path, ErrReplaced)
}

// Release frees the lock, also where a child that is being started holds a copy
// of the descriptor for the moment between fork and exec. The file names no
// owner any more.
func (l *Lock) Release() error { return errors.Join(l.f.Truncate(0), unlock(l.f), l.f.Close()) }

// FD is the lock's descriptor, for a program that this process becomes
// (execve(2)): the lock belongs to the open file, so it is held throughout if the
// descriptor is inherited, and Inherited takes it over.
func (l *Lock) FD() int { return int(l.f.Fd()) }

// Inherited takes over a lock whose descriptor the program before has handed
// over. It fails when the file is not the locked one any more.
func Inherited(path string, fd int) (*Lock, error) {
	f := os.NewFile(uintptr(fd), path)
	if f == nil {
		return nil, fmt.Errorf("cannot take %s over: %d is no descriptor", path, fd)
	}
	l := &Lock{f, path}
	err := tryLock(f) // of the same open file: it is held already
	if err == nil {
		err = l.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot take %s over: %w", path, err)
	}
	self().write(f)
	return l, nil
}

// Held reports whether somebody holds the lock at path, and who: the pid is 0
// when the file does not say.
func Held(path string) (pid int, held bool) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		f, err = os.Open(path) // on a file system that cannot be written now
	}
	if err != nil {
		return 0, false
	}
	defer func() { _ = f.Close() }()
	if err := tryLock(f); err == nil {
		return 0, false
	}
	return readOwner(f).PID, true
}
