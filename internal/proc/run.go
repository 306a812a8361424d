package proc

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Run runs a short command to its end, in a session and group of its own, and
// returns how it ended and the first maxOutput bytes of what it wrote to
// standard output and error together; the rest is read and dropped. When ctx
// ends, or the command has ended and left something behind, all of it is
// killed, and Run returns after that (M7, M8). The error is a *StartError, or
// ctx's; after Close it is ErrClosed. Stdout and Stderr of spec are not used.
func (h *Host) Run(ctx context.Context, spec Spec, maxOutput int) (Exit, []byte, error) {
	if err := ctx.Err(); err != nil {
		return Exit{}, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return Exit{}, nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer r.Close()
	spec.Stdout, spec.Stderr = w, w
	notices := make(chan Notice, 2)
	p, err := h.Start(spec, func(n Notice) { notices <- n })
	_ = w.Close() //ok: our copy only
	if err != nil {
		return Exit{}, nil, err
	}
	out := make(chan []byte, 1)
	go func() { out <- readBounded(r, maxOutput) }()
	exit, err := h.waitGone(ctx, p, notices)
	// All writers are gone, but what escaped may hold the pipe: do not wait.
	_ = r.SetReadDeadline(time.Now().Add(drainTime)) //ok: a pipe has deadlines
	return exit, <-out, err
}

// drainTime bounds the reading of what is still in the pipe of a command that
// is gone.
const drainTime = 200 * time.Millisecond

func (h *Host) waitGone(ctx context.Context, p *Process, notices <-chan Notice) (Exit, error) {
	var exit Exit
	var ended error
	done := ctx.Done()
	for {
		select {
		case n := <-notices:
			if n.Exited {
				exit = n.Exit
			}
			if n.Gone {
				return exit, ended
			}
		case <-done:
			ended, done = ctx.Err(), nil
		case <-h.stopped:
			_ = p.Kill() //ok: the Host is closed, nobody would hear of it
			return exit, ErrClosed
		}
		if err := p.Kill(); err != nil {
			return exit, err
		}
	}
}

func readBounded(r *os.File, limit int) []byte {
	var out []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		out = append(out, buf[:min(n, max(0, limit-len(out)))]...)
		if err != nil {
			return out
		}
	}
}
