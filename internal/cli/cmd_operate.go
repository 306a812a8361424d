package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

// atOnce bounds how many processes a command is given to at the same time.
const atOnce = 32

// operation is one of the commands that act on processes by name.
type operation struct {
	req     api.CommandRequest
	noWait  bool
	wait    bool
	timeout time.Duration
}

// request is what is sent: waiting is the default.
func (o *operation) request() api.CommandRequest {
	req := o.req
	req.Wait = o.wait && !o.noWait
	req.Timeout = api.Duration(o.timeout)
	return req
}

func (a *app) operate(o *operation, use, short, long, examples string) *cobra.Command {
	cmd := command(use, short, long, examples, cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error {
		return a.act(cmd, args, o.request())
	})
	cmd.ValidArgsFunction = a.completeNames
	return cmd
}

func (o *operation) waitFlags(cmd *cobra.Command, until string) {
	cmd.Flags().BoolVar(&o.wait, "wait", true, "return only when "+until)
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "return when the command is noted")
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait; the command itself stands in any case")
}

func (a *app) cmdStart() *cobra.Command {
	o := &operation{req: api.CommandRequest{Verb: "start"}}
	cmd := a.operate(o, "start NAME...", "Start processes", `
Wants the processes to run, now and later, and waits until each is ready (or
runs, where it has no ready probe). What it depends on must hold first. A start
ends a wait for the next restart at once.

NAME may be a glob in quotes. Several are started at the same time.`, `
perdure start web
perdure start 'worker-*' --no-wait
perdure start flaky --force`)
	o.waitFlags(cmd, "the process is ready")
	cmd.Flags().BoolVar(&o.req.Force, "force", false, "start even if the breaker is open")
	return cmd
}

func (a *app) cmdStop() *cobra.Command {
	o := &operation{req: api.CommandRequest{Verb: "stop"}}
	cmd := a.operate(o, "stop NAME...", "Stop processes", `
Sends the stop signal to the whole group of each process, waits its grace, then
kills, and returns when nothing of it lives any more. It stays stopped until
you start it again.`, `
perdure stop web
perdure stop 'worker-*' --timeout 2m`)
	o.waitFlags(cmd, "the process is proven gone")
	return cmd
}

func (a *app) cmdRestart() *cobra.Command {
	o := &operation{req: api.CommandRequest{Verb: "restart"}}
	cmd := a.operate(o, "restart NAME...", "Stop processes and start them at once", `
Ends each process as stop does, then starts the next generation without a wait.
It does not count as a failure and sets the counters back. A process that does
not run is started.`, `
perdure restart web
perdure restart web worker --no-wait`)
	o.waitFlags(cmd, "the new generation is ready")
	return cmd
}

func (a *app) cmdReset() *cobra.Command {
	o := &operation{req: api.CommandRequest{Verb: "reset"}}
	return a.operate(o, "reset NAME...", "Set the counters back and close the breaker", `
Takes a failed process, or one in a crash loop, to idle; then start it. On a
process that runs it only sets the counters back. It starts nothing.`, `
perdure reset flaky && perdure start flaky`)
}

func (a *app) cmdSignal() *cobra.Command {
	cmd := command("signal SIGNAL NAME...", "Send a signal to processes", `
Sends SIGNAL (HUP, SIGHUP, USR1, ...) to the group of each process. What it
does is up to the process: if it ends, the restart policy applies. To end one
for good use stop or kill.`, `
perdure signal HUP nginx
perdure signal USR1 'worker-*'`,
		cobra.MinimumNArgs(2), func(cmd *cobra.Command, args []string) error {
			return a.act(cmd, args[1:], api.CommandRequest{Verb: "signal", Signal: args[0]})
		})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return []string{"HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"}, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completeNames(cmd, args[1:], typed)
	}
	return cmd
}

func (a *app) cmdKill() *cobra.Command {
	o := &operation{req: api.CommandRequest{Verb: "kill"}}
	cmd := a.operate(o, "kill NAME...", "End processes at once with SIGKILL", `
Kills everything that belongs to each process, without grace. It stays stopped
until you start it again. To see a process restart after a crash, send it the
signal instead: perdure signal KILL NAME.`, `
perdure kill stuck`)
	o.waitFlags(cmd, "the process is proven gone")
	return cmd
}

// outcome is what became of a command to one process.
type outcome struct {
	Name    string       `json:"name"`
	OK      bool         `json:"ok"`
	Error   *api.Error   `json:"error,omitempty"`
	Process *api.Process `json:"process,omitempty"`
	err     error
}

// act gives a command to all processes that the names mean, at the same time,
// tells what became of each, and returns all errors.
func (a *app) act(cmd *cobra.Command, args []string, req api.CommandRequest) error {
	return a.with(cmd, func(ctx context.Context, c Client) error {
		names, err := expand(ctx, c, args)
		if err != nil {
			return err
		}
		return a.report(req, a.actAll(ctx, c, names, req))
	})
}

func (a *app) actAll(ctx context.Context, c Client, names []string, req api.CommandRequest) []outcome {
	out := make([]outcome, len(names))
	room := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, name := range names {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			out[i] = actOne(ctx, c, name, req)
		})
	}
	wg.Wait()
	return out
}

func actOne(ctx context.Context, c Client, name string, req api.CommandRequest) outcome {
	p, err := c.Command(ctx, name, req)
	if err == nil {
		return outcome{Name: name, OK: true, Process: &p}
	}
	err = hint(ctx, c, name, err)
	o := outcome{Name: name, err: err}
	if !errors.As(err, &o.Error) {
		o.Error = api.Errorf(api.CodeOf(err), "%v", err)
	}
	return o
}

func (a *app) report(req api.CommandRequest, out []outcome) error {
	var errs []error
	for _, o := range out {
		if o.err != nil {
			errs = append(errs, named(o.Name, o.err, len(out) > 1))
		}
	}
	if a.flags.json {
		if err := a.printJSON(out); err != nil {
			return err
		}
		return errors.Join(errs...)
	}
	if !a.flags.quiet {
		style := a.style()
		for _, o := range out {
			if o.OK {
				a.printf("%s %s\n", style.Bold(o.Name), done(style, a.now(), req, o.Process))
			}
		}
	}
	return errors.Join(errs...)
}

// named puts the process's name before an error that does not say it.
func named(name string, err error, several bool) error {
	if !several {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// done says what a command has led to.
func done(style render.Style, now time.Time, req api.CommandRequest, p *api.Process) string {
	switch req.Verb {
	case "signal":
		return "got " + req.Signal
	case "reset":
		return "counters set back, " + string(p.State)
	}
	text := style.State(p.State, string(p.State))
	if p.PID != 0 {
		text += fmt.Sprintf(", pid %d", p.PID)
	}
	calm := []api.State{api.StateRunning, api.StateStopped}
	if why := render.Why(now, p); why != "" && !slices.Contains(calm, p.State) {
		text += ": " + why
	}
	return text
}
