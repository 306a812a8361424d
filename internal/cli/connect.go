package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
)

// peek bounds a question that is only asked to help, such as names for a hint.
const peek = 2 * time.Second

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// target says where a running Perdure is reached. The state directory is empty
// when it was named by socket or address.
func (a *app) target() (o DialOptions, stateDir string, err error) {
	if o.URL = first(a.flags.url, a.getenv("PERDURE_URL")); o.URL != "" {
		o.Token, err = a.token()
		return o, "", err
	}
	if o.Socket = first(a.flags.socket, a.getenv("PERDURE_SOCKET")); o.Socket != "" {
		return o, "", nil
	}
	stateDir, err = a.stateDir()
	if err != nil {
		return o, "", err
	}
	o.Socket = a.seams.SocketPath(stateDir)
	return o, stateDir, nil
}

func (a *app) stateDir() (string, error) {
	flag := first(a.flags.stateDir, a.getenv("PERDURE_STATE_DIR"))
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("cannot find the working directory: %w", err)
	}
	files := a.flags.files
	if len(files) == 0 && flag == "" {
		if file, err := a.seams.Find(dir); err == nil {
			files = []string{file} // without one, the state is looked for in dir itself
		}
	}
	return a.seams.StateDir(files, dir, flag)
}

// findFiles sets the files to the one of the working directory, or of one above
// it, when none is named.
func (a *app) findFiles() error {
	if len(a.flags.files) > 0 {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot find the working directory: %w", err)
	}
	file, err := a.seams.Find(dir)
	if err != nil {
		return usagef("%w", err)
	}
	a.flags.files = []string{file}
	return nil
}

func (a *app) token() (string, error) {
	if a.flags.tokenFile == "" {
		return first(a.flags.token, a.getenv("PERDURE_TOKEN")), nil
	}
	text, err := os.ReadFile(a.flags.tokenFile)
	if err != nil {
		return "", usagef("cannot read the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// dial returns a client. Nothing is asked yet, so an absent server shows at the
// first question.
func (a *app) dial() (Client, string, error) {
	o, stateDir, err := a.target()
	if err != nil {
		return nil, "", err
	}
	c, err := a.seams.Dial(o)
	return c, stateDir, err
}

// closeClient closes what a client holds, if it holds anything.
func closeClient(c Client) {
	switch closer := c.(type) {
	case interface{ Close() error }:
		_ = closer.Close() // an idle connection that does not close well harms nobody
	case interface{ Close() }:
		closer.Close()
	}
}

// with runs f with a client, under a context that ends with Ctrl-C, and makes
// the error of an absent server say what is still alive and what to do.
func (a *app) with(cmd *cobra.Command, f func(ctx context.Context, c Client) error) error {
	c, stateDir, err := a.dial()
	if err != nil {
		return err
	}
	defer closeClient(c)
	ctx, stop := a.interruptible(cmd.Context())
	defer stop()
	err = f(ctx, c)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && cmd.Context().Err() == nil {
		return &codeError{code: exitInterrupted}
	}
	var coded *api.Error
	if errors.As(err, &coded) && coded.Code == api.CodeUnavailable && stateDir != "" {
		return a.away(stateDir, err)
	}
	return err
}

// away says what is known when no server answers: whether a supervisor still
// keeps the processes alive, and what to do.
func (a *app) away(stateDir string, cause error) error {
	server, supervisor := a.seams.Running(stateDir)
	if server != 0 {
		return cause // somebody does run: the cause tells more
	}
	if supervisor != 0 {
		return api.Errorf(api.CodeUnavailable, "cannot reach the server in %s, but its supervisor (pid %d) goes on and keeps the processes alive; "+
			"`perdure up -d` starts a server that takes over again", stateDir, supervisor)
	}
	if _, err := os.Stat(stateDir); err != nil {
		return api.Errorf(api.CodeUnavailable, "cannot find a running Perdure: it has never run here (there is no %s); start it with `perdure up`", stateDir)
	}
	return api.Errorf(api.CodeUnavailable, "cannot reach Perdure in %s: neither server nor supervisor runs; start it with `perdure up`", stateDir)
}

// hint adds the nearest name to the error of a process that does not exist.
func hint(ctx context.Context, c Client, name string, err error) error {
	if err == nil || api.CodeOf(err) != api.CodeNotFound {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, peek)
	defer cancel()
	list, listErr := c.Processes(ctx)
	if listErr != nil {
		return err // the hint is a courtesy; the error stands
	}
	names := namesOf(list)
	suggestion := didYouMean(name, names)
	if suggestion == "" && len(names) > 0 && len(names) <= 12 {
		suggestion = "; there are: " + strings.Join(names, ", ")
	}
	return api.Errorf(api.CodeNotFound, "cannot find a process %q%s", name, suggestion)
}

func namesOf(list []api.Process) []string {
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	return names
}

func isGlob(name string) bool { return strings.ContainsAny(name, "*?[") }

// expand turns names and globs into names, each once, in the order given.
func expand(ctx context.Context, c Client, args []string) ([]string, error) {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, arg := range args {
		if !isGlob(arg) {
			add(arg)
			continue
		}
		list, err := c.Processes(ctx, arg)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, api.Errorf(api.CodeNotFound, "cannot find a process that matches %q; `perdure ps` lists them", arg)
		}
		for i := range list {
			add(list[i].Name)
		}
	}
	return names, nil
}

// printJSON prints one JSON document.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// completeNames completes process names from the running server, and says
// nothing when there is none.
func (a *app) completeNames(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	c, _, err := a.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer closeClient(c)
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, peek)
	defer cancel()
	list, err := c.Processes(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range list {
		if p := &list[i]; strings.HasPrefix(p.Name, typed) && !slices.Contains(args, p.Name) {
			names = append(names, cobra.CompletionWithDesc(p.Name, string(p.State)))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
