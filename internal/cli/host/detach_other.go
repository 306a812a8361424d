//go:build !unix

package host

import (
	"context"
	"errors"
	"os"
)

func closeOnExec(int) {}

// Detach is not possible here: it returns ErrDetach.
func Detach(context.Context, Invocation, string) (socket string, pid int, err error) {
	return "", 0, ErrDetach
}

// InvocationOf is not possible here.
func InvocationOf(int) (Invocation, error) { return Invocation{}, errors.ErrUnsupported }

// EndAll ends processes.
func EndAll(pids ...int) error {
	for _, pid := range pids {
		p, err := os.FindProcess(pid)
		if err != nil {
			return err
		}
		if err := p.Kill(); err != nil {
			return err
		}
	}
	return nil
}
