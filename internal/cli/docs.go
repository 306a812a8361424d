package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// markdown returns docs/reference/cli.md: all commands as they are.
func (a *app) markdown() string {
	var b strings.Builder
	b.WriteString("# Commands\n\n<!-- Generated from internal/cli; `go test ./internal/cli -update` rewrites it. -->\n\n")
	root := a.root()
	b.WriteString(root.Long + "\n\nExit codes are in [exit-codes.md](exit-codes.md).\n\n## Flags of all commands\n\n```\n" +
		strings.TrimRight(root.PersistentFlags().FlagUsages(), "\n") + "\n```\n\n" +
		"Every command also takes `--file` (`-f`, but for `logs` and `events`, where `-f` is `--follow`).\n")
	visit(root, func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Parent() == nil || cmd.Parent().Name() == "completion" {
			return
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```\n%s\n```\n", cmd.CommandPath(), strings.TrimSpace(cmd.Long), cmd.UseLine())
		if cmd.Example != "" {
			fmt.Fprintf(&b, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimSpace(cmd.Example), "\n  ", "\n"))
		}
		if flags := strings.TrimRight(cmd.LocalFlags().FlagUsages(), "\n"); flags != "" {
			fmt.Fprintf(&b, "\n```\n%s\n```\n", flags)
		}
	})
	return b.String()
}

// visit calls f for a command and all below it.
func visit(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		visit(c, f)
	}
}
