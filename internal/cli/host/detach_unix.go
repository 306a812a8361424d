//go:build unix

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func closeOnExec(fd int) { syscall.CloseOnExec(fd) }

// Detach starts argv in a session of its own (setsid(2)), with its output
// appended to the file logPath, and waits until it reports through its file
// descriptor ReadyFD. It returns the socket at which the server answers. When
// ctx ends first, the server is left to itself.
func Detach(ctx context.Context, argv []string, logPath string) (socket string, pid int, err error) {
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
	cmd := exec.Command(argv[0], argv[1:]...)
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
