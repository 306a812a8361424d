// Package flock holds lock files: one owner at a time, and the lock is free as
// soon as its owner is dead, however it died.
package flock

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ErrHeld is returned by Take when somebody else holds the lock.
var ErrHeld = errors.New("the lock is held")

// Lock is a lock that is held.
type Lock struct{ f *os.File }

// Take takes the lock file at path and writes the caller's pid into it. When it
// is held, the error wraps ErrHeld and names the holder's pid. The file stays
// when the lock is released: removing it would let two owners hold two files.
func Take(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot lock %s (pid %d has it): %w", path, Holder(path), err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot write %s: %w", path, err)
	}
	return &Lock{f}, nil
}

// Release frees the lock, also where a child that is being started holds a copy
// of the descriptor for the moment between fork and exec.
func (l *Lock) Release() error { return errors.Join(unlock(l.f), l.f.Close()) }

// Held reports whether somebody holds the lock at path, and who: the pid is 0
// when the file does not say.
func Held(path string) (pid int, held bool) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return 0, false
	}
	defer func() { _ = f.Close() }()
	if err := tryLock(f); err == nil {
		return 0, false
	}
	return Holder(path), true
}

// Holder is the pid that the file at path names, 0 when it names none.
func Holder(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}
