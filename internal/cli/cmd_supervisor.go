package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/cli/host"
)

// cmdSupervisor is what the server starts. Its arguments are its own.
func (a *app) cmdSupervisor() *cobra.Command {
	return &cobra.Command{
		Use: "supervisor", Hidden: true, Short: "The supervisor; started by the server", DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := a.seams.Supervisor(args); code != 0 {
				return &codeError{code: code}
			}
			return nil
		},
	}
}

// cmdServer is what `up -d` starts, and what a service manager or a container
// may start: a server without a terminal.
func (a *app) cmdServer() *cobra.Command {
	var listen string
	var report, guarded, check bool
	cmd := &cobra.Command{
		Use: "server [NAME...]", Hidden: true, Short: "A server without a terminal; started by up -d",
		RunE: func(cmd *cobra.Command, args []string) error {
			if check {
				o, err := a.serveOptions(args, listen)
				if err != nil {
					return err
				}
				if err := a.seams.CheckServer(cmd.Context(), o); err != nil {
					return err
				}
				return a.printJSON(map[string]int{"handover": a.seams.Handover})
			}
			return a.server(cmd.Context(), args, listen, report, guarded)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "answer the API on a TCP address too")
	cmd.Flags().BoolVar(&report, "report", false, "tell the starter on file descriptor 3; implies --guarded")
	cmd.Flags().BoolVar(&guarded, "guarded", false, "let the supervisor start it again when it dies")
	cmd.Flags().BoolVar(&check, "check", false, "only tell whether it could go on with the state directory")
	addFiles(a, cmd, "f")
	return cmd
}

// server runs a server until everything is stopped. SIGTERM and SIGINT stop
// everything, a second one kills; SIGHUP reloads, and SIGUSR2 upgrades to the
// program that lies at our path.
func (a *app) server(parent context.Context, names []string, listen string, report, guarded bool) error {
	var r *host.Report
	if report {
		r = host.NewReport() // before anything is started, so that nobody inherits it
	}
	o, err := a.serveOptions(names, listen)
	if err != nil {
		return errors.Join(err, r.Fail(err))
	}
	again := a.again(o)
	if report || guarded {
		o.Again = again
	}
	o.Resume, o.Become = guarded, Become{Args: again[1:], Check: a.checkServer(&o)}
	level := slog.LevelInfo
	if a.flags.verbose {
		level = slog.LevelDebug
	}
	o.Logger = slog.New(slog.NewTextHandler(a.errOut, &slog.HandlerOptions{Level: level})).With("part", "server")
	signals, stopSignals := a.signals()
	defer stopSignals()
	var operated <-chan os.Signal
	if a.operated != nil {
		var stopOperated func()
		operated, stopOperated = a.operated()
		defer stopOperated()
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	w := signalWatch{signals: signals, operated: operated, stop: cancel, now: a.now, logger: o.Logger, started: make(chan Started, 1), over: make(chan struct{})}
	var watching sync.WaitGroup
	watching.Go(w.run)
	code, err := a.seams.Serve(ctx, o, func(s Started) {
		w.started <- s
		if err := r.Ready(s.Socket); err != nil {
			o.Logger.Warn("Cannot tell the starter", "error", err)
		}
	})
	close(w.over)
	watching.Wait()
	if err != nil {
		// After Ready the report is over, and Fail tells nobody any more.
		return errors.Join(served{code, err}.result(), r.Fail(err))
	}
	return served{code, nil}.result()
}

// signalWatch turns signals to a server without a terminal into stops.
type signalWatch struct {
	signals  <-chan os.Signal // that stop it
	operated <-chan os.Signal // that mean something else to it
	logger   *slog.Logger
	stop     func()
	now      func() time.Time
	started  chan Started
	over     chan struct{} // closed when the server has ended
}

// run returns when the server has ended.
func (w *signalWatch) run() {
	var hurry func() // nil until it answers; then a second signal from before counts too
	var operate func(os.Signal)
	asked := 0
	var operating sync.WaitGroup
	defer operating.Wait()
	var last time.Time
	for {
		select {
		case s := <-w.started:
			hurry = s.Hurry
			operate = func(sig os.Signal) { w.operate(s, sig) }
		case sig := <-w.operated:
			if operate != nil {
				operating.Go(func() { operate(sig) })
			}
		case sig := <-w.signals:
			if host.IsHangup(sig) && w.operated != nil {
				continue // it reloads
			}
			now := w.now()
			if asked > 0 && now.Sub(last) < samePress {
				continue
			}
			last = now
			asked++
			w.stop()
		case <-w.over:
			return
		}
		if asked > 1 && hurry != nil {
			hurry()
			asked = 1
		}
	}
}

// operate does what a signal other than a stop means.
func (w *signalWatch) operate(s Started, sig os.Signal) {
	var err error
	if host.IsHangup(sig) {
		err = s.Reload()
	} else if path, pathErr := upgradeTo(""); pathErr != nil {
		err = pathErr
	} else {
		err = s.Upgrade(path)
	}
	if err != nil {
		w.logger.Error("Cannot do what a signal asks for", "signal", sig.String(), "error", err)
	}
}
