package flock

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Two owners of one state directory would run everything twice (P16, O9).
func TestOnlyOneOwner(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Take(path); !errors.Is(err, ErrHeld) {
		t.Fatalf("second Take: %v, want ErrHeld", err)
	}
	if pid, held := Held(path); !held || pid != os.Getpid() {
		t.Fatalf("Held = %d, %v", pid, held)
	}
	if o := Read(path); o != self() {
		t.Errorf("the file names %+v, not %+v", o, self())
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if _, held := Held(path); held {
		t.Fatal("a released lock is still held")
	}
	if o := Read(path); o != (Owner{}) {
		t.Errorf("a released lock names %+v", o)
	}
	l, err = Take(path)
	if err != nil {
		t.Fatalf("Take after release: %v", err)
	}
	_ = l.Release()
}

// A holder whose file was removed or replaced finds out: another one may hold a
// lock at the same path.
func TestReplacedLockIsNoticed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "lock")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Release() }()
	if err := l.Check(); err != nil {
		t.Errorf("an untouched lock: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(); !errors.Is(err, ErrReplaced) {
		t.Errorf("with its folder removed: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	other, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Release() }()
	if err := l.Check(); !errors.Is(err, ErrReplaced) {
		t.Errorf("with another in its place: %v", err)
	}
	if err := other.Check(); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

// What is written by an early version, or not at all, names what it can.
func TestOwnersOfOtherVersions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	for text, want := range map[string]Owner{
		"":                 {},
		"17\n":             {PID: 17},
		"17 99 boot\n":     {PID: 17, Start: 99, Boot: "boot"},
		"no pid\n":         {},
		"17 99 boot more ": {PID: 17, Start: 99, Boot: "boot"},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Read(path); got != want {
			t.Errorf("%q names %+v, not %+v", text, got, want)
		}
	}
}

// Whoever looks whether a lock is held takes it for a moment. That keeps nobody
// from taking it.
func TestLookingKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	done := make(chan struct{})
	var looking sync.WaitGroup
	defer looking.Wait()
	defer close(done)
	for range 4 {
		looking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					Held(path)
				}
			}
		})
	}
	for range 200 {
		l, err := Take(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
}
