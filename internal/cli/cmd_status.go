package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

func (a *app) cmdStatus() *cobra.Command {
	var lines, exits int
	cmd := command("status NAME", "Show everything about one process", `
State, reason and what comes next; counters; the definition in short; how the
last generations ended; the last lines of output.`, `
perdure status web
perdure status web -n 30
perdure status web --json`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c Client) error {
				return a.status(ctx, c, args[0], lines, exits)
			})
		})
	cmd.Flags().IntVarP(&lines, "lines", "n", 10, "how many lines of output")
	cmd.Flags().IntVar(&exits, "exits", 5, "how many exits")
	cmd.ValidArgsFunction = a.completeNames
	return cmd
}

func (a *app) status(ctx context.Context, c Client, name string, lines, exits int) error {
	if lines < 0 || exits < 0 {
		return usagef("cannot show a negative number of lines or exits")
	}
	p, err := c.Process(ctx, name)
	if err != nil {
		return hint(ctx, c, name, err)
	}
	view := render.StatusView{Process: p, Exits: []api.Event{}, Lines: []api.LogLine{}}
	def, err := c.Definition(ctx, name)
	if err != nil {
		return err
	}
	view.Definition = &def
	if exits > 0 {
		page, err := c.Events(ctx, api.EventQuery{Pattern: "process.exited", Name: name, Last: exits})
		if err != nil {
			return err
		}
		view.Exits = append(view.Exits, page.Events...)
	}
	if lines > 0 {
		for line, err := range c.Logs(ctx, api.LogQuery{Names: []string{name}, Lines: lines}) {
			if err != nil {
				return err
			}
			view.Lines = append(view.Lines, line)
			if len(view.Lines) > lines { // a server that sends more shall not fill our memory
				view.Lines = slices.Delete(view.Lines, 0, 1)
			}
		}
	}
	if a.flags.json {
		return a.printJSON(view)
	}
	if err := a.troubles(ctx, c, a.out); err != nil {
		return err
	}
	return render.Status(a.out, a.style(), a.columns(), a.now(), view)
}
