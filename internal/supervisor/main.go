package supervisor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/sockpath"
)

// ExitLocked is the exit code of a supervisor that found another one in its
// state directory (EX_TEMPFAIL of sysexits.h).
const ExitLocked = 75

// gcPercent is the heap's growth between two collections.
const gcPercent = 50

// SocketPath is where the supervisor of a state directory listens.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "supervisor.sock") }

// Main is the program `perdure supervisor --state-dir DIR`. It runs until a
// Shutdown has ended everything, and returns the exit code. SIGTERM and SIGINT
// are a Shutdown.
func Main(args []string, build string) int {
	fs := flag.NewFlagSet("perdure supervisor", flag.ContinueOnError)
	dir := fs.String("state-dir", "", "the state directory")
	handOver := fs.Int("handover", -1, "the descriptor on which a server hands over what it has held")
	if err := fs.Parse(args); err != nil || *dir == "" {
		fmt.Fprintln(os.Stderr, "perdure supervisor: this is started by `perdure up`; it needs --state-dir DIR")
		return 2
	}
	// Little is allocated but in storms, so memory is worth more than the time of
	// the collector.
	debug.SetGCPercent(gcPercent)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("part", "supervisor")
	err := serve(*dir, build, takeOver(*handOver, logger), logger)
	switch {
	case errors.Is(err, flock.ErrHeld):
		logger.Error("Cannot start", "error", err)
		return ExitLocked
	case err != nil:
		logger.Error("Cannot go on", "error", err)
		return 1
	}
	return 0
}

// handOverPatience bounds the wait for what a server has held. It has it ready
// when it starts us.
const handOverPatience = 5 * time.Second

// takeOver reads what a server has held, if one has started us to hand it over.
// It comes before anything is decided about what is recorded.
func takeOver(fd int, logger *slog.Logger) control.HandedOver {
	if fd < 0 {
		return control.HandedOver{}
	}
	inherited, err := control.TakeOver(fd, handOverPatience)
	if err != nil {
		logger.Warn("Some exit codes may be unknown", "error", err)
	}
	return inherited
}

// serve opens the supervisor and its socket, and returns when all is over.
func serve(dir, build string, inherited control.HandedOver, logger *slog.Logger) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var s *Supervisor
	exit := func(int) {
		go func() { _ = s.Shutdown(ctx, shutdownDefault) }()
	}
	s, err := Open(ctx, Options{Dir: dir, Build: build, Logger: logger, Inherited: inherited, OnExit: exit})
	if err != nil {
		return err
	}
	l, err := sockpath.Listen(SocketPath(dir))
	if err != nil {
		return errors.Join(err, s.Close())
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	// A terminal that hangs up is none of our business. The signal is caught, not
	// ignored: what is ignored stays ignored in every program that is executed,
	// and a shell cannot even trap it.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := control.Serve(ctx, l, s, control.ServeOptions{Log: logger}); err != nil {
			logger.Error("The control socket failed", "error", err)
		}
	})
	wg.Go(func() { s.guardServer(ctx) })
	// The server waits for this line; nothing is ever written here again.
	fmt.Println("ready")
	for over := false; !over; {
		select {
		case sig := <-signals:
			// As when a process asks for it, so that the server ends as well.
			wg.Go(func() { s.exit(0, sig.String()) })
		case <-s.Done():
			over = true
		}
	}
	// Who follows the journal gets its end before the socket goes.
	s.awaitFollowers(followersPatience)
	cancel()
	wg.Wait()
	return s.Close()
}

// followersPatience bounds the wait for followers after the end of everything.
const followersPatience = 2 * time.Second
