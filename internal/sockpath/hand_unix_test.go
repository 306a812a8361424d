//go:build unix

package sockpath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A listener that is handed over refuses nobody: who connects before the next one
// accepts is accepted by that.
func TestHandedOver(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.sock")
	old, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := Hand(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	between, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer between.Close()
	next, err := Inherited(path, fd)
	if err != nil {
		t.Fatal(err)
	}
	served, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if next.Addr().String() != path {
		t.Errorf("it listens at %s", next.Addr())
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	if _, err := Inherited(path, fd); err == nil {
		t.Error("a closed descriptor was taken over")
	}
}
