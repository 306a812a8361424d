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
	"github.com/perdure/perdure/internal/httpapi"
	"github.com/perdure/perdure/internal/sockpath"
)

// Run is `perdure up`: it starts a server, serves its API, and returns when
// everything is stopped: because ctx ended, over the API, or because a process
// asked for it. Started is called once the API answers. The exit code is the one
// that a process asked for, else 0.
func Run(ctx context.Context, o Options, started func(s *Server)) (int, error) {
	// The server works in short bursts: memory is worth more than the collector's time.
	debug.SetGCPercent(gcPercent)
	s, err := Start(ctx, o)
	if err != nil {
		return 1, err
	}
	trim := time.AfterFunc(trimAfter, debug.FreeOSMemory)
	defer trim.Stop()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	fail := func(err error) (int, error) {
		stopServing()
		wg.Wait()
		return 1, errors.Join(err, s.Close())
	}
	listeners, err := s.listen() //nolint:contextcheck // the listeners outlive the call; listening does not wait
	if err != nil {
		return fail(err)
	}
	broken := make(chan error, len(listeners))
	for _, l := range listeners {
		wg.Go(func() {
			if err := httpapi.Serve(serving, l.Listener, httpapi.New(s, l.options), httpapi.ServeOptions{Log: s.o.Logger}); err != nil {
				broken <- err
			}
		})
	}
	s.ready.Store(true)
	if sup, err := s.att.get(); err == nil {
		s.beGuarded(ctx, sup)
	}
	if started != nil {
		started(s)
	}
	var stop error
	select {
	case <-s.Stopped():
	case <-s.ExitAsked():
		stop = s.Stop(context.WithoutCancel(ctx), 0)
	case <-ctx.Done():
		stop = s.Stop(context.WithoutCancel(ctx), 0)
	case err := <-broken:
		// An API that cannot be reached is no reason to end a process.
		s.o.Logger.Error("The API failed; end Perdure with SIGTERM", "error", err)
		select {
		case <-s.Stopped():
		case <-ctx.Done():
			stop = s.Stop(context.WithoutCancel(ctx), 0)
		}
	}
	code, _ := s.ExitCode()
	s.say(context.WithoutCancel(ctx), "server.stopped", map[string]any{"code": code})
	// Whoever waits for the shutdown gets the answer first.
	stopServing()
	wg.Wait()
	return code, errors.Join(stop, s.Close())
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
	options httpapi.Options
}

// listen opens the Unix socket, and the TCP address if one is set.
func (s *Server) listen() ([]listener, error) {
	base := httpapi.Options{Log: s.o.Logger, Version: s.o.Version}
	l, err := sockpath.Listen(SocketPath(s.o.StateDir))
	if err != nil {
		return nil, fmt.Errorf("cannot listen for the API: %w", err)
	}
	out := []listener{{l, base}}
	if s.config.settings.Listen == "" {
		return out, nil
	}
	token, err := readToken(s.config.settings.TokenFile)
	if err == nil {
		var t net.Listener
		if t, err = net.Listen("tcp", s.config.settings.Listen); err == nil {
			base.Token = token
			return append(out, listener{t, base}), nil
		}
		err = fmt.Errorf("cannot listen at %s: %w", s.config.settings.Listen, err)
	}
	return nil, errors.Join(err, l.Close())
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
