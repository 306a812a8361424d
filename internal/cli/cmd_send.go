package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
)

func (a *app) cmdSend() *cobra.Command {
	var timeout time.Duration
	cmd := command("send NAME COMMAND [JSON]", "Give a command to the worker of a process", `
Sends a command to the program, which must speak the worker protocol, waits for
its reply and prints it. The data are checked first where the definition declares
them. A program of the plain protocol, which has no replies, gets the command as
a message; then nothing is printed. It is an error when no worker is connected,
and when the worker refuses.`, `
perdure send encoder pause
perdure send encoder resize '{"width": 640}' --timeout 5s`,
		cobra.RangeArgs(2, 3), func(cmd *cobra.Command, args []string) error {
			req := api.SendRequest{Command: args[1], Timeout: api.Duration(timeout)}
			if timeout <= 0 {
				return usagef("cannot wait for %s; --timeout takes a time above 0", timeout)
			}
			if len(args) == 3 {
				if req.Data = json.RawMessage(args[2]); !json.Valid(req.Data) {
					return usagef("cannot send %.80q: it is not JSON; text is written as '\"text\"'", args[2])
				}
			}
			return a.with(cmd, func(ctx context.Context, c Client) error {
				result, err := c.Send(ctx, args[0], req)
				if err != nil {
					return hint(ctx, c, args[0], err)
				}
				if a.flags.json {
					return a.printJSON(result)
				}
				if string(result.Reply) != "null" && len(result.Reply) > 0 {
					a.printf("%s\n", result.Reply)
				}
				return nil
			})
		})
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the reply")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completeNames(cmd, args, typed)
	}
	return cmd
}
