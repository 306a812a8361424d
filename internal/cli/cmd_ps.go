package cli

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/host"
	"github.com/perdure/perdure/internal/cli/render"
)

// refresh is how often --watch draws anew.
const refresh = time.Second

func (a *app) cmdPs() *cobra.Command {
	var watch bool
	cmd := command("ps [GLOB...]", "Show the processes: what runs, how it is, and why", `
A table of all processes, or of those whose names match. The last column says
why a process is in its state and when it will, or will not, start again. A line
above it tells what Perdure cannot write now, if the disk is in trouble. On a
narrow terminal the least important columns are left out; --json has them all.`, `
perdure ps
perdure ps 'web-*'
perdure ps --watch
perdure ps --json | jq -r '.[] | select(.state == "failed").name'`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c Client) error {
				if watch {
					return a.psWatch(ctx, c, args)
				}
				return a.ps(ctx, c, args)
			})
		})
	cmd.Aliases = []string{"list", "ls"}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "draw the table anew every second until Ctrl-C")
	cmd.ValidArgsFunction = a.completeNames
	return cmd
}

func (a *app) ps(ctx context.Context, c Client, globs []string) error {
	list, err := c.Processes(ctx, globs...)
	if err != nil {
		if len(globs) == 1 {
			err = hint(ctx, c, globs[0], err)
		}
		return err
	}
	if a.flags.json {
		if list == nil {
			list = []api.Process{}
		}
		return a.printJSON(list)
	}
	if err := a.troubles(ctx, c, a.out); err != nil {
		return err
	}
	if len(list) == 0 {
		a.say("no processes")
		return nil
	}
	return render.Processes(a.out, a.style(), a.columns(), a.now(), list)
}

// troubles writes a line about what cannot be written now, if there is anything.
func (a *app) troubles(ctx context.Context, c Client, w io.Writer) error {
	info, err := c.Info(ctx)
	if err != nil {
		return nil // what was asked for is there; who does not answer is told by doctor
	}
	return render.Troubles(w, a.style(), a.columns(), a.now(), info.Troubles)
}

// psWatch draws the table until ctx ends. On a terminal it draws over itself;
// elsewhere tables follow each other, with --json one array a line.
func (a *app) psWatch(ctx context.Context, c Client, globs []string) error {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		list, err := c.Processes(ctx, globs...)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how a watch ends
		}
		if err != nil {
			return err
		}
		if err := a.psFrame(ctx, c, list); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *app) psFrame(ctx context.Context, c Client, list []api.Process) error {
	if a.flags.json {
		return a.printLineJSON(list)
	}
	var frame bytes.Buffer
	if err := a.troubles(ctx, c, &frame); err != nil {
		return err
	}
	if err := render.Processes(&frame, a.style(), a.columns(), a.now(), list); err != nil {
		return err
	}
	text := frame.Bytes()
	if a.outTTY != nil {
		// Home, each line cleared to its end, then all below: no flicker (ECMA-48).
		text = bytes.ReplaceAll(clip(text, host.Rows(a.outTTY)-1), []byte("\n"), []byte("\x1b[K\n"))
		text = append(append([]byte("\x1b[H"), text...), "\x1b[J"...)
	}
	_, err := a.out.Write(text)
	return err
}

// clip keeps the first rows lines of text.
func clip(text []byte, rows int) []byte {
	for i, b := range text {
		if b == '\n' {
			if rows--; rows == 0 {
				return text[:i+1]
			}
		}
	}
	return text
}
