//go:build unix

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

func closeOnExec(fd int) { syscall.CloseOnExec(fd) }

// InvocationOf tells how a running program was started (proc_pid_cmdline(5),
// proc_pid_environ(5)), where the system tells it.
func InvocationOf(pid int) (p Invocation, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	argv, err1 := os.ReadFile(dir + "/cmdline")
	env, err2 := os.ReadFile(dir + "/environ")
	p.Dir, err = os.Readlink(dir + "/cwd")
	if err = errors.Join(err1, err2, err); err != nil {
		return p, fmt.Errorf("cannot tell how it was started: %w", err)
	}
	list := func(b []byte) []string { return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00") }
	p.Argv, p.Env = list(argv), list(env)
	return p, nil
}

// EndAll kills processes, none of which sees the death of another. A pid of 0 is
// none.
func EndAll(pids ...int) error {
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range pids {
			if pid == 0 {
				continue
			}
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// Detach starts a program in a session of its own (setsid(2)), with its output
// appended to the file logPath, and waits until it reports through its file
// descriptor ReadyFD. It returns the socket at which the server answers. When
// ctx ends first, the server is left to itself.
func Detach(ctx context.Context, p Invocation, logPath string) (socket string, pid int, err error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", 0, fmt.Errorf("cannot write the server's log: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	read, write, err := os.Pipe()
	if err != nil {
		return "", 0, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreClosed(read.Close())) }()
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...)
	cmd.Dir, cmd.Env = p.Dir, p.Env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if closeErr := write.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", 0, fmt.Errorf("cannot start the server: %w", err)
	}
	pid = cmd.Process.Pid
	stop := context.AfterFunc(ctx, func() { _ = read.Close() }) // wakes the read below
	defer stop()
	socket, err = readReport(read)
	if ctx.Err() != nil {
		return "", pid, ctx.Err()
	}
	if err != nil {
		_ = cmd.Wait() // it ends after its report; its exit code is kept below
		return "", pid, &ServerError{ExitCode: cmd.ProcessState.ExitCode(), Text: err.Error()}
	}
	return socket, pid, cmd.Process.Release()
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
