//go:build unix

package reexec

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type parcel struct {
	Round int
	File  int
	Pid   int
}

// The program that replaces itself is this test binary.
func TestMain(m *testing.M) {
	if os.Getenv("REEXEC_TEST") == "" {
		os.Exit(m.Run())
	}
	if err := rounds(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// rounds becomes itself three times and hands a file over each time; then it says
// what it has found.
func rounds() error {
	var p parcel
	again, err := Take("test", &p)
	if err != nil {
		return err
	}
	if !again {
		f, err := os.CreateTemp("", "reexec")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		p = parcel{File: int(f.Fd()), Pid: os.Getpid()}
		// A signal of the gap must not kill.
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
	}
	if os.Getenv(Var) != "" {
		return errors.New("the variable is still there")
	}
	if p.Pid != os.Getpid() {
		return fmt.Errorf("pid %d, it was %d", os.Getpid(), p.Pid)
	}
	file := os.NewFile(uintptr(p.File), "file")
	if _, err := fmt.Fprintln(file, p.Round); err != nil {
		return err
	}
	if p.Round == 3 {
		text := make([]byte, 100)
		n, err := file.ReadAt(text, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		fmt.Println(strings.Fields(string(text[:n])), os.Args[1:])
		return nil
	}
	p.Round++
	return Exec(os.Args[0], []string{os.Args[0], fmt.Sprint("round", p.Round)}, "test", p, []int{p.File})
}

func TestExec(t *testing.T) {
	t.Parallel()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "REEXEC_TEST=1")
	out, err := c.CombinedOutput()
	if err != nil || string(out) != "[0 1 2 3] [round3]\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// When the program cannot be executed everything is as before: descriptors are
// close-on-exec, and signals are handled.
func TestFailedExecChangesNothing(t *testing.T) {
	// Not parallel: it sends a signal to this process.
	f, err := os.CreateTemp(t.TempDir(), "file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, path := range []string{t.TempDir() + "/none", f.Name()} {
		err = Exec(path, []string{"x"}, "test", 1, []int{int(f.Fd())})
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the descriptor is inherited: %#x, %v", flags, err)
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGUSR2)
	defer signal.Stop(got)
	if err := Exec("/none", []string{"x"}, "test", 1, nil); err == nil {
		t.Fatal("executed")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
	case <-time.After(10 * time.Second):
		t.Error("the signal did not come")
	}
}

// A variable that was inherited from a program that was become is not for us.
func TestParcelOfAnother(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := json.NewEncoder(w).Encode(parcel{Round: 7}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Setenv(Var, fmt.Sprintf("%d:%d:test", r.Fd(), os.Getppid()))
	var p parcel
	if was, err := Take("test", &p); was || err != nil || p.Round != 0 {
		t.Errorf("%v, %v: %+v", was, err, p)
	}
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line == "" {
		t.Errorf("it was read: %q, %v", line, err)
	}
}
