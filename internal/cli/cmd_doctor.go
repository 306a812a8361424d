package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

func (a *app) cmdDoctor() *cobra.Command {
	return command("doctor", "Look for what could go wrong", `
Asks the running Perdure about itself and its surroundings: what this system
cannot do, open files, disk. Each line says what was found and what to do. Exit
code 1 means that something needs you.`, `
perdure doctor
perdure doctor --json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c Client) error {
				findings, err := c.Doctor(ctx)
				if err != nil {
					return err
				}
				findings = append(findings, a.otherVersion(ctx, c)...)
				if a.flags.json {
					if findings == nil {
						findings = []api.Finding{}
					}
					err = a.printJSON(findings)
				} else {
					err = render.Findings(a.out, a.style(), findings)
				}
				if err != nil {
					return err
				}
				return worst(findings)
			})
		})
}

// otherVersion tells that the running Perdure is of another version than this
// program.
func (a *app) otherVersion(ctx context.Context, c Client) []api.Finding {
	info, err := c.Info(ctx)
	if err != nil || info.Version == a.seams.Version {
		return nil // what does not answer is told by others
	}
	return []api.Finding{{Level: "warning", Message: fmt.Sprintf("the running Perdure is version %s, and this program is %s", info.Version, a.seams.Version),
		Hint: "run `perdure upgrade` to put this one in its place; no process notices"}}
}
