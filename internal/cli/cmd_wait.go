package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
)

func (a *app) cmdWait() *cobra.Command {
	var what string
	var timeout time.Duration
	cmd := command("wait NAME [--for CONDITION]", "Wait until a process is something", `
CONDITION is started, running, ready, healthy, completed (ended by itself with
success), stopped (nothing of it lives), or the name of a state. It ends at once
with an error when that can no longer come true by itself, and with exit code 5
when it takes longer than the timeout.`, `
perdure wait db --for healthy --timeout 30s
perdure wait migrate --for completed && ./run-tests`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			if timeout <= 0 {
				return usagef("cannot wait for %s; --timeout takes a time above 0", timeout)
			}
			return a.with(cmd, func(ctx context.Context, c Client) error {
				p, err := c.Wait(ctx, args[0], api.WaitRequest{For: what, Timeout: api.Duration(timeout)})
				if err != nil {
					return hint(ctx, c, args[0], err)
				}
				if a.flags.json {
					return a.printJSON(p)
				}
				a.say("%s is %s", a.style().Bold(p.Name), what)
				return nil
			})
		})
	cmd.Flags().StringVar(&what, "for", "ready", "what to wait for")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	cmd.ValidArgsFunction = a.completeNames
	// The flag exists: it was defined above.
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(
		[]string{"started", "running", "ready", "healthy", "completed", "stopped"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
