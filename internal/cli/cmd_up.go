package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/host"
	"github.com/perdure/perdure/internal/cli/render"
)

// upFlags are the flags of up.
type upFlags struct {
	detach, noWait, stamps bool
	timeout                time.Duration
	listen                 string
}

func (a *app) cmdUp() *cobra.Command {
	var o upFlags
	cmd := command("up [-d] [-f FILE]... [NAME...]", "Start everything that the file defines", `
In the foreground: shows the output of all processes, each line with its name
("!" marks standard error), and what happens to them between the lines. Ctrl-C
stops all in reverse order and says whom it waits for; a second Ctrl-C kills at
once. If the server dies instead, the processes live on: the next up takes them
over, and they do not notice.

With -d: starts the server apart from the terminal, waits until all is up or
something has failed, and prints the table. If Perdure runs already, -d applies
the file to it (as reload does).

With NAMEs only these are started, and what they depend on.`, `
perdure up
perdure up -d
perdure up -f base.yaml -f dev.yaml
perdure up web db`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			if o.detach {
				return a.upDetached(cmd, args, &o)
			}
			return a.up(cmd, args, &o)
		})
	flags := cmd.Flags()
	flags.BoolVarP(&o.detach, "detach", "d", false, "start in the background and return when all is up")
	flags.BoolVar(&o.noWait, "no-wait", false, "with -d: return when the server answers")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "with -d: how long to wait until all is up")
	flags.BoolVarP(&o.stamps, "timestamps", "t", false, "print the time of each line")
	flags.StringVar(&o.listen, "listen", "", "answer the API on a TCP address too; needs --token-file")
	cmd.ValidArgsFunction = a.completeNames
	return cmd
}

// serveOptions turns flags into what the server needs.
func (a *app) serveOptions(names []string, listen string) (ServeOptions, error) {
	stateDir, err := a.stateDir()
	if err != nil {
		return ServeOptions{}, err
	}
	level := slog.LevelWarn
	if a.flags.verbose {
		level = slog.LevelDebug
	}
	return ServeOptions{
		Files: a.flags.files, StateDir: stateDir, Only: names, Listen: listen, TokenFile: a.flags.tokenFile,
		Logger: slog.New(slog.NewTextHandler(a.errOut, &slog.HandlerOptions{Level: level})),
	}, nil
}

func (a *app) up(cmd *cobra.Command, names []string, f *upFlags) error {
	if err := a.findFiles(); err != nil {
		return err
	}
	o, err := a.serveOptions(names, f.listen)
	if err != nil {
		return err
	}
	o.Become = Become{Args: os.Args[1:], Check: a.checkServer(&o)}
	if pid, _ := a.seams.Running(o.StateDir); pid != 0 && pid != os.Getpid() {
		return api.Errorf(api.CodeConflict, "cannot start: Perdure already runs here (pid %d); watch it with `perdure logs -f`, "+
			"apply the file with `perdure reload`, or stop it with `perdure down`", pid)
	}
	cfg, findings, err := a.seams.LoadConfig(o.Files)
	if err := a.checked(findings, err); err != nil {
		return err
	}
	out := a.lineFeed(render.NewLines(a.out, render.LinesOptions{
		Style: a.style(), Prefix: true, Timestamps: f.stamps, Zone: a.now().Location(), Raw: a.outTTY == nil, Live: a.outTTY != nil,
	}, sortedNames(cfg.Definitions)...))
	return a.runForeground(cmd.Context(), o, out, !a.flags.quiet)
}

// checked prints the findings of a file that has errors and turns them into
// one; a sound file's warnings go to standard error.
func (a *app) checked(findings []api.Finding, err error) error {
	if err != nil {
		return usagef("%w", err)
	}
	style := render.Style{Colour: a.coloured(a.errTTY)}
	bad := 0
	for _, f := range findings {
		if f.Level == "error" {
			bad++
		}
	}
	if bad > 0 || (!a.flags.quiet && len(findings) > 0) {
		if err := render.Findings(a.errOut, style, findings); err != nil {
			return err
		}
	}
	if bad > 0 {
		return api.Errorf(api.CodeInvalid, "cannot use the configuration: %s; nothing was changed", plural(bad, "error"))
	}
	return nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) upDetached(cmd *cobra.Command, names []string, f *upFlags) error {
	if err := a.findFiles(); err != nil {
		return err
	}
	o, err := a.serveOptions(names, f.listen)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context())
	defer stop()
	if err := a.startOrApply(ctx, &o, names); err != nil {
		return err
	}
	c, err := a.seams.Dial(DialOptions{Socket: a.seams.SocketPath(o.StateDir)})
	if err != nil {
		return err
	}
	defer closeClient(c)
	err = a.showUp(ctx, c, f)
	if ctx.Err() != nil && cmd.Context().Err() == nil {
		a.printf("%s\n", "it goes on in the background; `perdure down` stops it")
		return &codeError{code: exitInterrupted}
	}
	return err
}

// startOrApply starts a server, or applies the file to the one that runs. Between
// the look and the act another may die or be started, by somebody else or by the
// supervisor; one of all wins, and the others find it.
func (a *app) startOrApply(ctx context.Context, o *ServeOptions, names []string) error {
	late := time.Now().Add(dying)
	for {
		if pid, _ := a.seams.Running(o.StateDir); pid != 0 {
			err := a.applyThere(ctx, a.seams.SocketPath(o.StateDir), pid, names)
			if api.CodeOf(err) != api.CodeUnavailable || time.Now().After(late) {
				return err
			}
		} else {
			_, findings, err := a.seams.LoadConfig(o.Files)
			if err := a.checked(findings, err); err != nil {
				return err
			}
			if err = a.detach(ctx, o); exitCodeOf(err) != exitConflict || time.Now().After(late) {
				return err
			}
		}
		again := time.NewTimer(10 * time.Millisecond)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		}
	}
}

// detach starts `perdure server` apart from this terminal, and returns when it answers.
func (a *app) detach(ctx context.Context, o *ServeOptions) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find the program perdure itself: %w", err)
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return fmt.Errorf("cannot make the state directory: %w", err)
	}
	argv := a.serverCommand(self, "--report", o)
	logPath := filepath.Join(o.StateDir, "server.log")
	_, pid, err := host.Detach(ctx, host.Invocation{Argv: argv}, logPath)
	if err != nil {
		return fmt.Errorf("%w (its log is %s)", err, logPath)
	}
	a.say("Perdure runs in the background (pid %d); its own log is %s", pid, logPath)
	return nil
}

// checkServer are the arguments with which another program tells whether it could
// be the server of o.
func (a *app) checkServer(o *ServeOptions) []string { return a.serverCommand("", "--check", o)[1:] }

// again is the command that starts the server of o once more.
func (a *app) again(o ServeOptions) []string {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return a.serverCommand(self, "--guarded", &o)
}

// serverCommand is the command of a server in the background.
func (a *app) serverCommand(self, mode string, o *ServeOptions) []string {
	argv := []string{self, "server", mode, "--state-dir", o.StateDir}
	for _, file := range o.Files {
		argv = append(argv, "--file", file)
	}
	if o.Listen != "" {
		argv = append(argv, "--listen", o.Listen)
	}
	if o.TokenFile != "" {
		argv = append(argv, "--token-file", o.TokenFile)
	}
	if a.flags.verbose {
		argv = append(argv, "--verbose")
	}
	return append(append(argv, "--"), o.Only...)
}

// dying bounds the wait for a server that has been killed and still holds its
// lock, which the kernel gives back when the last of its threads is gone, or that
// is coming up and does not answer yet: beside a supervisor that is starting all it
// can, that takes seconds.
const dying = 30 * time.Second

// applyThere is applyTo with a client of its own.
func (a *app) applyThere(ctx context.Context, socket string, pid int, names []string) error {
	c, err := a.seams.Dial(DialOptions{Socket: socket})
	if err != nil {
		return err
	}
	defer closeClient(c)
	return a.applyTo(ctx, c, pid, names)
}

// applyTo brings the file to a Perdure that runs already.
func (a *app) applyTo(ctx context.Context, c Client, pid int, names []string) error {
	result, err := c.Reload(ctx)
	if err != nil {
		return err
	}
	a.say("Perdure already runs here (pid %d); applied the file: %s", pid, changes(result))
	if info, err := c.Info(ctx); err == nil && info.Version != a.seams.Version {
		a.say("it is version %s and this program is %s: `perdure upgrade` puts this one in its place; no process notices", info.Version, a.seams.Version)
	}
	if len(names) == 0 {
		return nil
	}
	var errs []error
	for _, o := range a.actAll(ctx, c, names, api.CommandRequest{Verb: "start"}) {
		errs = append(errs, o.err)
	}
	return errors.Join(errs...)
}

// showUp waits until all is up, and prints the table and the next commands.
func (a *app) showUp(ctx context.Context, c Client, f *upFlags) error {
	var list []api.Process
	var waitErr error
	if f.noWait {
		list, waitErr = c.Processes(ctx)
	} else {
		list, waitErr = awaitUp(ctx, c, f.timeout, a.showComing)
		a.showComing(nil)
	}
	if list == nil && waitErr != nil {
		return waitErr
	}
	if a.flags.json {
		if err := a.printJSON(list); err != nil {
			return err
		}
	} else if !a.flags.quiet {
		shown := notable(list)
		if len(shown) > 0 || len(list) == 0 {
			if err := render.Processes(a.out, a.style(), a.columns(), a.now(), shown); err != nil {
				return err
			}
		}
		if others := len(list) - len(shown); others > 0 {
			a.printf("%d of %d processes are up; `perdure ps` lists them\n", others, len(list))
		}
		a.printf("\n%s\n", a.style().Dim("next: perdure logs -f · perdure ps · perdure status NAME · perdure down"))
	}
	if waitErr != nil {
		return waitErr
	}
	if _, troubled := unsettled(list); len(troubled) > 0 && !f.noWait {
		return api.Errorf(api.CodeFailed, "cannot get everything up: %s; see `perdure status %s`", strings.Join(troubled, ", "), troubled[0])
	}
	return nil
}

// notable are the processes that `up` lists: all of them, or, where they are
// many, those that neither run nor have done what they were for.
func notable(list []api.Process) []api.Process {
	const many = 40
	if len(list) <= many {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(p api.Process) bool {
		return p.State == api.StateRunning || p.State == api.StateExited
	})
}

// showComing draws the progress line of a start; none removes it.
func (a *app) showComing(names []string) {
	text := ""
	if len(names) > 0 {
		text = a.fit("starting: waiting for " + strings.Join(names, ", "))
	}
	a.showLine(text)
}

// showLine draws a progress line on the terminal of standard error, if it is
// one; an empty text removes it.
func (a *app) showLine(text string) {
	if a.errTTY == nil || a.flags.quiet {
		return
	}
	// A progress line that cannot be drawn is missed by nobody.
	_, _ = fmt.Fprintf(a.errOut, "\r\x1b[K%s", text)
}
