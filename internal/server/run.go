package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/httpapi"
	"github.com/perdure/perdure/internal/sockpath"
)

// Run is `perdure up`: it starts a server, serves its API, and returns when
// everything is stopped: because ctx ended, over the API, or because a process
// asked for it. Started is called once the API answers, and once more if it has
// tried to become another program in vain. The exit code is the one that a process
// asked for, else 0.
func Run(ctx context.Context, o Options, started func(s *Server)) (int, error) {
	// The server works in short bursts: memory is worth more than the collector's time.
	debug.SetGCPercent(gcPercent)
	s, err := Start(ctx, o)
	if err != nil {
		return 1, err
	}
	trim := time.AfterFunc(trimAfter, debug.FreeOSMemory)
	defer trim.Stop()
	lasting := context.WithoutCancel(ctx)
	listeners, err := s.listen() //nolint:contextcheck // the listeners outlive the call; listening does not wait
	fault.Here("server.socket.after")
	for err == nil {
		api := s.serveAPI(lasting, listeners)
		s.ready.Store(true)
		if sup, err := s.att.get(); err == nil {
			s.beGuarded(ctx, sup)
		}
		if started != nil {
			started(s)
		}
		path, stop := s.untilEnd(ctx, api.broken)
		if path == "" {
			code, _ := s.ExitCode()
			s.say(lasting, "server.stopped", map[string]any{"code": code})
			fault.Here("server.end.told")
			// Whoever waits for the shutdown gets the answer first.
			api.end(nil)
			return code, errors.Join(stop, s.Close())
		}
		var in *Inherited
		if in, err = s.hand(listeners); err == nil {
			api.end(httpapi.ErrReplaced)
			listeners, err = s.become(lasting, path, in)
		}
	}
	return 1, errors.Join(err, s.Close())
}

// untilEnd waits for the end of everything, and brings it about where that is
// asked for. It returns earlier, with a path, when the server shall become
// another program.
func (s *Server) untilEnd(ctx context.Context, broken <-chan error) (path string, err error) {
	for {
		select {
		case <-s.Stopped():
			return "", nil
		case <-s.ExitAsked():
			return "", s.Stop(context.WithoutCancel(ctx), 0)
		case <-ctx.Done():
			return "", s.Stop(context.WithoutCancel(ctx), 0)
		case path := <-s.moves:
			return path, nil
		case err := <-broken:
			// An API that cannot be reached is no reason to end a process.
			s.o.Logger.Error("The API failed; end Perdure with SIGTERM", "error", err)
		}
	}
}

// serving is the API at work.
type serving struct {
	broken chan error // of the listeners that cannot be served
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup
}

func (s *Server) serveAPI(ctx context.Context, listeners []listener) *serving {
	ctx, cancel := context.WithCancelCause(ctx)
	out := &serving{broken: make(chan error, len(listeners)), cancel: cancel}
	for _, l := range listeners {
		out.wait.Go(func() {
			err := httpapi.Serve(ctx, l.Listener, httpapi.New(s, s.apiOptions(l)), httpapi.ServeOptions{Log: s.o.Logger})
			if err != nil {
				out.broken <- err
			}
		})
	}
	return out
}

// end ends the API because of a cause and returns when it has ended.
func (v *serving) end(cause error) {
	v.cancel(cause)
	v.wait.Wait()
}

// gcPercent is the heap's growth between two collections; trimAfter is when the
// garbage of the boot is given back to the system.
const (
	gcPercent = 50
	trimAfter = 5 * time.Second
)

// listener is a place where the API answers.
type listener struct {
	net.Listener
	addr string // of TCP, as it is set; empty for the Unix socket
}

// apiOptions are those of a listener: over TCP a token is needed.
func (s *Server) apiOptions(l listener) httpapi.Options {
	o := httpapi.Options{Log: s.o.Logger, Version: s.o.Version}
	if l.addr != "" {
		o.Token = s.token
	}
	return o
}

// listen opens the Unix socket, and the TCP address if one is set, or takes over
// those of the program before.
func (s *Server) listen() (out []listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range out {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	l := s.inheritedAt("")
	if l == nil {
		l, err = sockpath.Listen(SocketPath(s.o.StateDir))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen for the API: %w", err)
	}
	out = append(out, listener{l, ""})
	addr := s.config.settings.Listen
	if addr == "" {
		return out, nil
	}
	if s.token, err = readToken(s.config.settings.TokenFile); err != nil {
		return out, err
	}
	t := s.inheritedAt(addr)
	if t == nil {
		t, err = net.Listen("tcp", addr)
	}
	if err != nil {
		return out, fmt.Errorf("cannot listen at %s: %w", addr, err)
	}
	return append(out, listener{t, addr}), nil
}

// minToken is the shortest token that is taken.
const minToken = 16

// readToken reads the bearer token of the TCP address (N17: no listening on the
// network without one).
func readToken(path string) (string, error) {
	field := func(format string, args ...any) error {
		return &api.Error{Code: api.CodeInvalid, Field: "settings.token_file", Message: fmt.Sprintf(format, args...)}
	}
	if path == "" {
		return "", field("cannot listen on TCP without a token; write one of at least %d characters into a file and name it", minToken)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", field("cannot read the token: %v", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return "", field("cannot use %s: others may read it (mode %#o); run chmod 600 on it", path, fi.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", field("cannot read the token: %v", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < minToken {
		return "", field("the token has %d characters, at least %d are needed", len(token), minToken)
	}
	return token, nil
}

// Hurry kills whatever still lives, as the second Ctrl-C does.
func (s *Server) Hurry() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx, time.Nanosecond); err != nil {
		s.o.Logger.Error("Cannot hurry", "error", err)
	}
}
