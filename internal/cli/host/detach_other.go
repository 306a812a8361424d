//go:build !unix

package host

import "context"

func closeOnExec(int) {}

// Detach is not possible here: it returns ErrDetach.
func Detach(context.Context, []string, string) (socket string, pid int, err error) {
	return "", 0, ErrDetach
}
