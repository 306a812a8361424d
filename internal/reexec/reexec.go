// Package reexec replaces the program of this process by another one: same pid,
// same children, and with the descriptors that are handed over. What the other
// program must know travels in a file in memory that is one of them.
//
// Execve(2) ends all threads and closes what is close-on-exec, which with Go is
// everything; children, the parent of orphans (PR_SET_CHILD_SUBREAPER(2const)),
// the working directory, limits and standard streams stay.
package reexec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Var names the descriptor of the parcel and whom it is for, in the environment
// of the program that is executed. Take removes it.
const Var = "PERDURE_REEXEC"

// ErrUnsupported says that this system cannot replace a running program.
var ErrUnsupported = errors.New("this system cannot replace a running program")

// Exec becomes the program at path, with argv and the environment of this one.
// Kind is a word that says which part of the program the parcel is for. It is
// written as JSON; fds are inherited under the same numbers. It
// returns only with an error, and then everything is as it was before: in the
// gap, signals that would end the program without a handler are ignored.
func Exec(path string, argv []string, kind string, parcel any, fds []int) error {
	data, err := json.Marshal(parcel)
	if err != nil {
		return fmt.Errorf("cannot write the hand-over: %w", err)
	}
	f, err := memory("perdure-handover")
	if err != nil {
		return fmt.Errorf("cannot make the hand-over: %w", err)
	}
	defer func() { _ = f.Close() }() // nobody reads it any more
	if _, err = f.Write(data); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("cannot write the hand-over: %w", err)
	}
	fd := int(f.Fd())
	env := append(without(os.Environ()), fmt.Sprintf("%s=%d:%d:%s", Var, fd, os.Getpid(), kind))
	return become(path, argv, env, append(slices.Clone(fds), fd))
}

func without(env []string) []string {
	return slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, Var+"=") })
}

// Take reads the parcel of a kind that the program before has left for this one
// into v. It returns false when there is none: this program was started, not
// become, or the parcel is for another part of it.
func Take(kind string, v any) (bool, error) {
	parts := strings.Split(os.Getenv(Var), ":")
	if len(parts) != 3 || parts[2] != kind {
		return false, nil
	}
	if err := os.Unsetenv(Var); err != nil {
		return false, err
	}
	if parts[1] != strconv.Itoa(os.Getpid()) {
		return false, nil // it was for a program that has started this one
	}
	fd, err := strconv.Atoi(parts[0])
	if err != nil {
		return false, fmt.Errorf("cannot read %s: %w", Var, err)
	}
	f := os.NewFile(uintptr(fd), "hand-over")
	if f == nil {
		return false, fmt.Errorf("cannot read %s: %d is no descriptor", Var, fd)
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := json.NewDecoder(f).Decode(v); err != nil {
		return false, fmt.Errorf("cannot read what the program before has handed over: %w", err)
	}
	return true, nil
}
