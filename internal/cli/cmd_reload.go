package cli

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

func (a *app) cmdReload() *cobra.Command {
	return command("reload", "Apply the changed file to what runs", `
Reads the configuration files anew. Processes whose definition has changed in a
way that a running program cannot follow are restarted, new ones are started,
removed ones are stopped. All others go on untouched. A file with errors
changes nothing. perdure config diff shows beforehand what would change.`, `
perdure config diff && perdure reload`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c Client) error {
				result, err := c.Reload(ctx)
				if err != nil {
					return err
				}
				if a.flags.json {
					return a.printJSON(result)
				}
				if err := render.Findings(a.errOut, render.Style{Colour: a.coloured(a.errTTY)}, result.Warnings); err != nil {
					return err
				}
				a.say("%s", changes(result))
				return nil
			})
		})
}

// changes says what a reload has changed.
func changes(r api.ReloadResult) string {
	var parts []string
	for _, p := range []struct {
		word  string
		names []string
	}{{"added", r.Added}, {"changed", r.Changed}, {"removed", r.Removed}, {"took over", r.Settings}} {
		if len(p.names) > 0 {
			parts = append(parts, p.word+" "+strings.Join(p.names, ", "))
		}
	}
	if len(parts) == 0 {
		return "nothing has changed"
	}
	if n := len(r.Unchanged); n > 0 {
		parts = append(parts, processCount(n)+" untouched")
	}
	return strings.Join(parts, "; ")
}

func sortedNames(defs map[string]api.Definition) []string { return slices.Sorted(maps.Keys(defs)) }
