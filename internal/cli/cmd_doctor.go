package cli

import (
	"context"

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
