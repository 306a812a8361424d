package cli

import (
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

func (a *app) cmdValidate() *cobra.Command {
	return command("validate [FILE...]", "Check configuration files without running anything", `
Reads the files as up would, merged in their order, and tells everything that is
wrong with line and column. Exit code 2 means that there are errors; warnings
alone are exit code 0.`, `
perdure validate
perdure validate base.yaml dev.yaml
perdure validate --json`,
		cobra.ArbitraryArgs, func(_ *cobra.Command, args []string) error {
			a.flags.files = append(a.flags.files, args...)
			if err := a.findFiles(); err != nil {
				return err
			}
			cfg, findings, err := a.seams.LoadConfig(a.flags.files)
			if err != nil {
				return usagef("%w", err)
			}
			return a.validated(cfg, findings)
		})
}

func (a *app) validated(cfg api.Config, findings []api.Finding) error {
	counts := map[string]int{}
	for _, f := range findings {
		counts[f.Level]++
	}
	if a.flags.json {
		if findings == nil {
			findings = []api.Finding{}
		}
		if err := a.printJSON(findings); err != nil {
			return err
		}
	} else if err := render.Findings(a.out, a.style(), findings); err != nil {
		return err
	}
	if n := counts["error"]; n > 0 {
		return api.Errorf(api.CodeInvalid, "cannot use the configuration: %s", plural(n, "error"))
	}
	if !a.flags.json {
		text := "valid: " + processCount(len(cfg.Definitions))
		if n := counts["warning"]; n > 0 {
			text += ", " + plural(n, "warning")
		}
		a.say("%s", a.style().Good(text))
	}
	return nil
}

// worst returns an error when findings of doctor are errors.
func worst(findings []api.Finding) error {
	n := 0
	for _, f := range findings {
		if f.Level == "error" {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return api.Errorf(api.CodeFailed, "cannot call this healthy: %s", plural(n, "problem"))
}
