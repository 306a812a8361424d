package cli

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

func (a *app) cmdRun() *cobra.Command {
	var name, restart, preset string
	cmd := command("run [--name NAME] [--restart POLICY] [--preset PRESET] -- CMD...", "Keep one command alive, without a file", `
Runs CMD under supervision in the foreground: its output stands as it is
written, standard error on standard error, and what happens to it is told on
standard error (not with -q). By default it is started again after a failure;
when it ends for good, run ends with its exit code (128+n after signal n). A
CMD that is not there is an error at once, with exit code 2.
Ctrl-C stops it, a second Ctrl-C kills it.

Nothing is left behind: its state directory is a temporary one, unless
--state-dir names one, which is then kept, logs included. With that option
perdure ps, logs and the others work too.`, `
perdure run -- ./server --port 8080
perdure run --restart always -- sh -c 'date; sleep 5'
perdure run --name web --state-dir .perdure -- npm start`,
		cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error {
			def := api.Definition{Name: name, Command: args, Preset: preset, Restart: api.RestartPolicy(restart), OnNoRestart: "exit"}
			return a.runCommand(cmd, def)
		})
	flags := cmd.Flags()
	flags.SetInterspersed(false) // the flags of CMD are its own
	flags.StringVar(&name, "name", "", "the process's name (default: from the command)")
	flags.StringVar(&restart, "restart", "", "always, on-failure, on-success or never (default on-failure, or the preset's)")
	flags.StringVar(&preset, "preset", "", "a set of defaults; perdure config presets lists them")
	return cmd
}

func (a *app) runCommand(cmd *cobra.Command, def api.Definition) (err error) {
	// Else a slip of the pen would be tried again and again, as a crash is.
	if _, err := exec.LookPath(def.Command[0]); err != nil {
		return usagef("cannot run %q: %s", def.Command[0], whyNotFound(err))
	}
	if def.Name == "" {
		def.Name = nameFor(def.Command[0])
	}
	if def.Restart == "" && def.Preset == "" {
		def.Restart = api.RestartOnFailure
	}
	if def.Dir, err = os.Getwd(); err != nil {
		return usagef("cannot find the working directory: %w", err)
	}
	if a.flags.stateDir == "" {
		dir, err := os.MkdirTemp("", "perdure-run-")
		if err != nil {
			return usagef("cannot make a state directory: %w", err)
		}
		a.flags.stateDir = dir
		defer func() { err = errors.Join(err, a.removeState(dir)) }()
	}
	o, err := a.serveOptions(nil, "")
	if err != nil {
		return err
	}
	o.Files, o.Ephemeral = nil, []api.Definition{def}
	return a.runForeground(cmd.Context(), o, newFeed(a.passThrough()), !a.flags.quiet)
}

func whyNotFound(err error) string {
	var of *exec.Error
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "not found in PATH"
	case errors.As(err, &of):
		err = of.Err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}

// removeState removes a temporary state directory, unless a supervisor still
// keeps the process in it alive.
func (a *app) removeState(dir string) error {
	if _, supervisor := a.seams.Running(dir); supervisor != 0 {
		return api.Errorf(api.CodeFailed, "the process is still kept alive by a supervisor (pid %d); reach it with --state-dir %s", supervisor, dir)
	}
	return os.RemoveAll(dir)
}

// passThrough prints the process's streams as they are, each where it belongs,
// and events on standard error; with --json all as JSON lines.
func (a *app) passThrough() (put func(item), flush func() error) {
	if a.flags.json {
		return jsonSink(a.out)
	}
	stdout := render.NewLines(a.out, render.LinesOptions{Raw: true})
	stderr := render.NewLines(a.errOut, render.LinesOptions{Raw: true, Live: a.errTTY != nil,
		Style: render.Style{Colour: a.coloured(a.errTTY)}})
	put = func(it item) {
		if it.line != nil && it.line.Stream != "stderr" {
			putLines(stdout, it)
			return
		}
		if it.event != nil {
			it = item{note: "perdure: " + strings.TrimLeft(it.event.Name+" "+render.Sentence(*it.event), " ")}
		}
		putLines(stderr, it)
	}
	return put, func() error { return errors.Join(stdout.Flush(), stderr.Flush()) }
}

// notInName is what a process's name cannot hold.
var notInName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// nameFor makes a process's name of a program's path.
func nameFor(program string) string {
	base := filepath.Base(program)
	name := strings.Trim(notInName.ReplaceAllString(strings.TrimSuffix(base, filepath.Ext(base)), "-"), "-_")
	if name == "" {
		return "run"
	}
	return name[:min(len(name), 63)]
}
