package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// root builds the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "perdure",
		Short: "Keeps work alive",
		Long: "Perdure supervises long-running processes. Any part of it may be killed at any instant:\n" +
			"no managed process dies, runs twice, or loses an exit code or a log line.",
		SilenceErrors: true, SilenceUsage: true,
		SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usagef("cannot find a command %q%s; `perdure --help` lists them", args[0], a.commandHint(cmd, args[0]))
		},
		RunE: func(*cobra.Command, []string) error { a.welcome(); return nil },
	}
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see `%s --help`", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.StringVar(&a.flags.stateDir, "state-dir", "", "the state directory (default .perdure beside the file; PERDURE_STATE_DIR)")
	flags.StringVar(&a.flags.socket, "socket", "", "the API's Unix socket (PERDURE_SOCKET)")
	flags.StringVar(&a.flags.url, "url", "", "the API's address, such as http://127.0.0.1:7070 (PERDURE_URL)")
	flags.StringVar(&a.flags.token, "token", "", "the token for --url (PERDURE_TOKEN)")
	flags.StringVar(&a.flags.tokenFile, "token-file", "", "a file that holds the token")
	flags.BoolVar(&a.flags.json, "json", false, "print JSON: one document, or one a line for streams")
	flags.BoolVar(&a.flags.noColor, "no-color", false, "print no colours (also NO_COLOR)")
	flags.BoolVarP(&a.flags.quiet, "quiet", "q", false, "print errors and what was asked for, nothing else")
	flags.BoolVarP(&a.flags.verbose, "verbose", "v", false, "print more of what happens")
	a.addCommands(root)
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func (a *app) addCommands(root *cobra.Command) {
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "look", Title: "Look:"},
		&cobra.Group{ID: "act", Title: "Act on processes:"},
		&cobra.Group{ID: "speak", Title: "Speak from within a process:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	add := func(group string, list ...*cobra.Command) {
		for _, cmd := range list {
			cmd.GroupID = group
			root.AddCommand(cmd)
			// logs and events use -f for --follow, as everybody expects.
			short := "f"
			if cmd.Flags().ShorthandLookup("f") != nil {
				short = ""
			}
			addFiles(a, cmd, short)
		}
	}
	add("run", a.cmdUp(), a.cmdDown(), a.cmdRun(), a.cmdReload())
	add("look", a.cmdPs(), a.cmdStatus(), a.cmdLogs(), a.cmdEvents(), a.cmdWait())
	add("act", a.cmdStart(), a.cmdStop(), a.cmdRestart(), a.cmdReset(), a.cmdSignal(), a.cmdKill(), a.cmdSend())
	add("speak", a.cmdWorker())
	add("speak", a.words("perdure ")...)
	add("more", a.cmdValidate(), a.cmdConfig(), a.cmdDoctor(), a.cmdUpgrade(), a.cmdVersion())
	root.AddCommand(a.cmdSupervisor(), a.cmdServer())
}

// addFiles gives a command, and the commands below it, the flag --file.
func addFiles(a *app, cmd *cobra.Command, short string) {
	cmd.PersistentFlags().StringArrayVarP(&a.flags.files, "file", short, nil,
		"a configuration file; may be repeated (default perdure.yaml or Procfile, here or above)")
	// The flag exists: it was defined the line before.
	_ = cmd.MarkPersistentFlagFilename("file", "yaml", "yml")
}

// welcome is what `perdure` alone prints.
func (a *app) welcome() {
	s := a.style()
	a.printf("%s keeps work alive: it supervises long-running processes.\n\n", s.Bold("Perdure"))
	a.printf("Try these first, in a directory with a perdure.yaml or a Procfile:\n\n")
	for _, line := range [][2]string{
		{"perdure up", "start everything and watch it; Ctrl-C stops it"},
		{"perdure ps", "what runs, how it is, and why"},
		{"perdure logs -f", "follow the output of all processes"},
	} {
		a.printf("  %s  %s\n", s.Bold(padRight(line[0], 16)), s.Dim(line[1]))
	}
	a.printf("\nNo file yet?  perdure run -- CMD…  keeps one command alive.\n")
	a.printf("All commands: perdure --help\n")
}

func padRight(s string, n int) string { return s + strings.Repeat(" ", max(0, n-len(s))) }

// commandHint returns "; did you mean …?" for a command that does not exist.
func (a *app) commandHint(cmd *cobra.Command, typed string) string {
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return didYouMean(typed, names)
}

// didYouMean returns ` (did you mean "x"?)` with the nearest of names, or nothing.
func didYouMean(typed string, names []string) string {
	best, bestDistance := "", max(len(typed)/3, 1)+1
	for _, name := range names {
		if name == typed {
			continue // it exists: the error is about something else
		}
		d := distance(typed, name)
		if len(typed) >= 2 && strings.HasPrefix(name, typed) {
			d = min(d, 1)
		}
		if d < bestDistance {
			best, bestDistance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean \"" + best + "\"?)"
}

// distance is the number of insertions, removals, replacements and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
