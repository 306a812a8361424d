// Package cli holds the commands of perdure. They speak to a running Perdure
// through a client only; what they need of the rest stands in Seams. Text for
// people is made in the package render.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/cli/host"
	"github.com/perdure/perdure/internal/cli/render"
)

// Main runs the command that args name (without the program's own name) and
// returns the exit code of the table in ExitCodes.
func Main(args []string, seams Seams) int {
	a := &app{
		seams: seams, out: os.Stdout, errOut: os.Stderr, getenv: os.Getenv, now: time.Now,
		outTTY: terminalOf(os.Stdout), errTTY: terminalOf(os.Stderr), signals: notify, passedOn: notifyPassedOn, operated: notifyOperated,
	}
	return a.run(context.Background(), args)
}

func terminalOf(f *os.File) *os.File {
	if host.IsTerminal(f) {
		return f
	}
	return nil
}

// notify brings the signals that ask a command to end. As process 1 there is no
// terminal that could hang up: then SIGHUP is for the processes.
func notify() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	if os.Getpid() != 1 {
		signal.Notify(ch, syscall.SIGHUP)
	}
	return ch, func() { signal.Stop(ch) }
}

// notifyPassedOn brings the signals that a foreground run passes on to its
// processes.
func notifyPassedOn() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 4)
	list := host.UserSignals()
	if os.Getpid() == 1 {
		list = append(list, syscall.SIGHUP)
	}
	if len(list) > 0 {
		signal.Notify(ch, list...)
	}
	return ch, func() { signal.Stop(ch) }
}

// notifyOperated brings the signals that mean something to a server without a
// terminal, besides those that stop it.
func notifyOperated() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 4)
	if list := host.OperatorSignals(); len(list) > 0 {
		signal.Notify(ch, list...)
	}
	return ch, func() { signal.Stop(ch) }
}

// app is one run of the program: where it writes and what the flags say.
type app struct {
	seams       Seams
	out, errOut io.Writer
	// outTTY and errTTY are the terminals behind out and errOut, or nil.
	outTTY, errTTY *os.File
	getenv         func(string) string
	now            func() time.Time
	signals        func() (<-chan os.Signal, func())
	passedOn       func() (<-chan os.Signal, func()) // nil: none are
	operated       func() (<-chan os.Signal, func()) // nil: none are
	flags          globals
}

// globals are the flags that all commands have.
type globals struct {
	files                         []string
	stateDir                      string
	socket, url, token, tokenFile string
	json, noColor, quiet, verbose bool
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root() //nolint:contextcheck // the commands take it from ExecuteContext
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code *codeError
	if err != nil && (!errors.As(err, &code) || code.err != nil) {
		a.printError(err)
	}
	return exitCodeOf(err)
}

// printError writes an error, each line of a joined one for itself.
func (a *app) printError(err error) {
	style := render.Style{Colour: a.coloured(a.errTTY)}
	var many interface{ Unwrap() []error }
	errs := []error{err}
	if errors.As(err, &many) {
		errs = many.Unwrap()
	}
	for _, e := range errs {
		// Standard error is the last place to tell anything: its own errors go nowhere.
		_, _ = fmt.Fprintf(a.errOut, "%s %s\n", style.Bad("perdure:"), strings.TrimPrefix(e.Error(), "perdure: "))
	}
}

// coloured says whether text for the terminal tty (nil: none) has colours: never
// with --no-color, NO_COLOR (no-color.org) or TERM=dumb.
func (a *app) coloured(tty *os.File) bool {
	return tty != nil && !a.flags.noColor && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// style is that of standard output.
func (a *app) style() render.Style { return render.Style{Colour: a.coloured(a.outTTY)} }

// columns is the width of standard output, 0 when it is no terminal.
func (a *app) columns() int { return host.Columns(a.outTTY) }

// say writes a line to standard output unless --quiet is given.
func (a *app) say(format string, args ...any) {
	if !a.flags.quiet {
		a.printf(format+"\n", args...)
	}
}

// printf writes to standard output. Whoever closes our output early (`perdure
// ps | head -1`) wants no more of it, so that error is not told.
func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.out, format, args...) }

// interruptible returns a context that ends with the first signal that asks
// the command to end.
func (a *app) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals, stop := a.signals()
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel()
		<-done
		stop()
	}
}

// command builds a cobra command whose errors of the command line have exit code 2.
func command(use, short, long, examples string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: short + ".\n\n" + strings.TrimSpace(long), Example: indent(examples),
		Args: func(cmd *cobra.Command, list []string) error {
			if err := args(cmd, list); err != nil {
				return usagef("%w; see `%s --help`", err, cmd.CommandPath())
			}
			return nil
		},
		RunE: run, DisableFlagsInUseLine: true,
	}
}

func indent(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = "  " + strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}
