package flock

import (
	"errors"
	"os"
	"path/filepath"
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
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if _, held := Held(path); held {
		t.Fatal("a released lock is still held")
	}
	l, err = Take(path)
	if err != nil {
		t.Fatalf("Take after release: %v", err)
	}
	_ = l.Release()
}
