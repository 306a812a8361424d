package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
)

func (a *app) cmdConfig() *cobra.Command {
	cmd := command("config", "Look at the configuration", `
What is in force, what it may say, and what a reload would change.`, `
perdure config show
perdure config diff
perdure config presets pidnap
perdure config schema > perdure.schema.json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() })
	cmd.AddCommand(a.configShow(), a.configDiff(), a.configPresets(), a.configSchema())
	return cmd
}

// shownConfig is a configuration in the shape of a file.
type shownConfig struct {
	Processes map[string]api.Definition `json:"processes" yaml:"processes"`
	Settings  api.Settings              `json:"settings" yaml:"settings,omitempty"`
}

func (a *app) configShow() *cobra.Command {
	var name string
	cmd := command("show", "Print the configuration with all defaults filled in", `
That of the running Perdure; with --file, or when none runs, that of the files. Values that look
like secrets are hidden.`, `
perdure config show
perdure config show --name web
perdure config show -f perdure.yaml --json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			if len(a.flags.files) > 0 || a.nothingRuns() {
				cfg, err := a.loadFiles()
				if err != nil {
					return err
				}
				return a.showConfig(cfg, name)
			}
			return a.with(cmd, func(ctx context.Context, c Client) error {
				cfg, err := c.Config(ctx)
				if err != nil {
					return err
				}
				return a.showConfig(cfg, name)
			})
		})
	cmd.Flags().StringVar(&name, "name", "", "one process only")
	return cmd
}

// nothingRuns says that no server runs in the state directory, if one is meant.
func (a *app) nothingRuns() bool {
	_, stateDir, err := a.target()
	if err != nil || stateDir == "" {
		return false
	}
	server, _ := a.seams.Running(stateDir)
	return server == 0
}

// loadFiles reads the files, which must be sound.
func (a *app) loadFiles() (api.Config, error) {
	if err := a.findFiles(); err != nil {
		return api.Config{}, err
	}
	cfg, findings, err := a.seams.LoadConfig(a.flags.files)
	return cfg, a.checked(findings, err)
}

func (a *app) showConfig(cfg api.Config, name string) error {
	out := shownConfig{a.seams.Complete(cfg.Definitions), cfg.Settings}
	if name != "" {
		def, ok := cfg.Definitions[name]
		if !ok {
			return api.Errorf(api.CodeNotFound, "cannot find a process %q%s", name, didYouMean(name, sortedNames(cfg.Definitions)))
		}
		out = shownConfig{Processes: a.seams.Complete(map[string]api.Definition{name: def})}
	}
	if a.flags.json {
		return a.printJSON(out)
	}
	return a.printYAML(out)
}

func (a *app) printYAML(v any) error {
	text, err := yaml.MarshalWithOptions(v, yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		return fmt.Errorf("cannot write YAML: %w", err)
	}
	_, err = a.out.Write(text)
	return err
}

func (a *app) configSchema() *cobra.Command {
	return command("schema", "Print the JSON Schema of perdure.yaml", `
For editors: it completes and checks while you type. In VS Code put
"# yaml-language-server: $schema=perdure.schema.json" on the file's first line.`, `
perdure config schema > perdure.schema.json`,
		cobra.NoArgs, func(*cobra.Command, []string) error {
			_, err := a.out.Write(append([]byte(strings.TrimSpace(string(a.seams.Schema()))), '\n'))
			return err
		})
}

func (a *app) configPresets() *cobra.Command {
	cmd := command("presets [PRESET]", "List the presets, or print one", `
A preset is a set of defaults. Keys that stand beside it override it.`, `
perdure config presets
perdure config presets pidnap`,
		cobra.MaximumNArgs(1), func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				if a.flags.json {
					return a.printJSON(a.seams.Presets())
				}
				a.printf("%s\n", strings.Join(a.seams.Presets(), "\n"))
				return nil
			}
			def, err := a.seams.Preset(args[0])
			if err != nil {
				return api.Errorf(api.CodeNotFound, "cannot find a preset %q%s", args[0], didYouMean(args[0], a.seams.Presets()))
			}
			if a.flags.json {
				return a.printJSON(def)
			}
			return a.printYAML(def)
		})
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return a.seams.Presets(), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// change is what a reload would do to one process.
type change struct {
	Name string `json:"name"`
	// What is "added", "removed" or "changed".
	What string `json:"what"`
	// Restart says that a running process would be restarted.
	Restart bool          `json:"restart,omitempty"`
	Fields  []fieldChange `json:"fields,omitempty"`
}

// fieldChange is a key of a definition and its values as JSON; null: not set.
type fieldChange struct {
	Field string `json:"field"`
	Old   any    `json:"old"`
	New   any    `json:"new"`
}

func (a *app) configDiff() *cobra.Command {
	return command("diff", "Show what a reload would change", `
Compares the files with what the running Perdure has in force. Values that look
like secrets are hidden, so a change of such a value alone is not seen here.`, `
perdure config diff
perdure config diff --json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			next, err := a.loadFiles()
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c Client) error {
				now, err := c.Config(ctx)
				if err != nil {
					return err
				}
				list, err := a.diff(a.seams.Complete(now.Definitions), a.seams.Complete(next.Definitions))
				if err != nil {
					return err
				}
				if a.flags.json {
					return a.printJSON(list)
				}
				a.printDiff(list)
				return nil
			})
		})
}

func (a *app) diff(old, next map[string]api.Definition) ([]change, error) {
	names := append(sortedNames(old), sortedNames(next)...)
	slices.Sort(names)
	out := []change{}
	for _, name := range slices.Compact(names) {
		before, was := old[name]
		after, is := next[name]
		switch {
		case !was:
			out = append(out, change{Name: name, What: "added"})
		case !is:
			out = append(out, change{Name: name, What: "removed"})
		default:
			fields, err := diffFields(before, after)
			if err != nil {
				return nil, err
			}
			if len(fields) > 0 {
				out = append(out, change{name, "changed", a.seams.NeedsRestart(before, after), fields})
			}
		}
	}
	return out, nil
}

// diffFields compares two definitions key by key, as they stand in JSON.
func diffFields(old, next api.Definition) ([]fieldChange, error) {
	before, err := keysOf(old)
	if err != nil {
		return nil, err
	}
	after, err := keysOf(next)
	if err != nil {
		return nil, err
	}
	var keys []string
	for key := range before {
		keys = append(keys, key)
	}
	for key := range after {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var out []fieldChange
	for _, key := range slices.Compact(keys) {
		if !reflect.DeepEqual(before[key], after[key]) {
			out = append(out, fieldChange{key, before[key], after[key]})
		}
	}
	return out, nil
}

func keysOf(d api.Definition) (map[string]any, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("cannot compare %s: %w", d.Name, err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, fmt.Errorf("cannot compare %s: %w", d.Name, err)
	}
	return out, nil
}

func (a *app) printDiff(list []change) {
	style := a.style()
	if len(list) == 0 {
		a.say("nothing would change")
	}
	for _, c := range list {
		switch c.What {
		case "added":
			a.printf("%s\n", style.Good("+ "+c.Name))
		case "removed":
			a.printf("%s\n", style.Bad("- "+c.Name))
		default:
			note := "goes on running"
			if c.Restart {
				note = "is restarted if it runs"
			}
			a.printf("%s  %s\n", style.Warn("~ "+c.Name), style.Dim(note))
		}
		for _, f := range c.Fields {
			a.printf("    %s: %s → %s\n", f.Field, jsonText(f.Old), jsonText(f.New))
		}
	}
}

func jsonText(v any) string {
	if v == nil {
		return "(not set)"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
