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
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/flock"
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
// are a Shutdown, SIGUSR2 is an upgrade to the program that lies at its path.
func Main(args []string, build string) int {
	fs := flag.NewFlagSet("perdure supervisor", flag.ContinueOnError)
	dir := fs.String("state-dir", "", "the state directory")
	handOver := fs.Int("handover", -1, "the descriptor on which a server hands over what it has held")
	only := fs.Bool("check", false, "only say whether this program could go on with the state directory")
	if err := fs.Parse(args); err != nil || *dir == "" {
		fmt.Fprintln(os.Stderr, "perdure supervisor: this is started by `perdure up`; it needs --state-dir DIR")
		return 2
	}
	if *only {
		if err := check(*dir, build); err != nil {
			fmt.Fprintln(os.Stderr, "perdure supervisor:", err)
			return 1
		}
		return 0
	}
	// Little is allocated but in storms, so memory is worth more than the time of
	// the collector.
	debug.SetGCPercent(gcPercent)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("part", "supervisor")
	// The word by which the program knows that it is a supervisor is its caller's.
	word := os.Args[1 : len(os.Args)-len(args)]
	err := run(*dir, append(slices.Clone(word), "--state-dir", *dir), build, *handOver, logger)
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

// run is a supervisor from its start to its end, or to another program. It comes
// to a second turn when it could not become that.
func run(dir string, args []string, build string, handOver int, logger *slog.Logger) error {
	asked := listenForSignals()
	defer asked.stop()
	e, err := settle(dir, args)
	if err != nil {
		return err
	}
	if e.from == nil {
		e.inherited = takeOver(handOver, logger)
		fault.Here("supervisor.handover.taken")
	}
	for {
		path, p, err := serve(e, build, asked, logger)
		if err != nil || path == "" {
			return errors.Join(err, e.lock.Release())
		}
		e.become(path, p)
		logger.Error("Cannot become another program; the old one goes on", "error", e.failed)
	}
}

// asked are the signals that mean something to a supervisor. They are caught from
// the first moment on, so that none has its default effect.
type asked struct{ end, upgrade, hangup chan os.Signal }

func listenForSignals() asked {
	a := asked{end: make(chan os.Signal, 1), upgrade: make(chan os.Signal, 1), hangup: make(chan os.Signal, 1)}
	signal.Notify(a.end, syscall.SIGTERM, syscall.SIGINT)
	if list := upgradeSignals(); len(list) > 0 {
		signal.Notify(a.upgrade, list...)
	}
	// A terminal that hangs up is none of our business. The signal is caught, not
	// ignored: what is ignored stays ignored in every program that is executed,
	// and a shell cannot even trap it. Nor is it ours that the server has died which
	// waits for our first line: nobody else may be left.
	signal.Notify(a.hangup, syscall.SIGHUP, syscall.SIGPIPE)
	return a
}

func (a asked) stop() {
	for _, c := range []chan os.Signal{a.end, a.upgrade, a.hangup} {
		signal.Stop(c)
	}
}

// serve opens the supervisor and its socket, and returns when all is over. A path
// says that the supervisor is closed and shall become that program.
func serve(e *estate, build string, asked asked, logger *slog.Logger) (path string, p *parcel, err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	leave := make(chan struct{}, 1) // OnExit is called at most once
	s, err := Open(ctx, Options{Dir: e.dir, Build: build, Logger: logger, Inherited: e.inherited,
		OnExit: func(int) { leave <- struct{}{} }, estate: e})
	if err != nil {
		return "", nil, err
	}
	if err := e.listen(); err != nil {
		return "", nil, errors.Join(err, s.Close())
	}
	fault.Here("supervisor.socket.after")
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := control.Serve(ctx, e.listener, s, control.ServeOptions{Log: logger}); err != nil {
			logger.Error("The control socket failed", "error", err)
		}
	})
	wg.Go(func() { s.guardServer(ctx) })
	if e.from == nil {
		// The server waits for this line; nothing is ever written here again.
		fmt.Println("ready")
	}
	for over := false; !over; {
		select {
		case sig := <-asked.end:
			// As when a process asks for it, so that the server ends as well.
			wg.Go(func() { s.exit(0, sig.String()) })
		case <-leave:
			wg.Go(func() { _ = s.Shutdown(ctx, shutdownDefault) })
		case <-asked.upgrade:
			wg.Go(func() { s.upgradeInPlace(ctx) })
		case path := <-e.next:
			if p := s.parcel(); p != nil {
				cancel(errMoving)
				wg.Wait()
				var mu sync.Mutex
				err := s.closeAndHand(func(h control.Held) {
					mu.Lock()
					defer mu.Unlock()
					p.Held = append(p.Held, handed{h, h.FDs})
				})
				return path, p, err
			}
		case <-s.Done():
			over = true
		}
	}
	// Who follows the journal gets its end before the socket goes.
	fault.Here("supervisor.end.before_close")
	s.awaitFollowers(followersPatience)
	cancel(nil)
	wg.Wait()
	err = s.Close()
	fault.Here("supervisor.end.after_close")
	return "", nil, err
}

// followersPatience bounds the wait for followers after the end of everything.
const followersPatience = 2 * time.Second
