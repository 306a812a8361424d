package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/host"
)

func (a *app) cmdUpgrade() *cobra.Command {
	var binary string
	cmd := command("upgrade [--binary PATH]", "Put another perdure in the place of the running one", `
Supervisor and server become the program at PATH (by default the one that you
are typing), with the same pids: no process is restarted or notices, no line of
output and no event is lost, and no connection is refused. The program is checked
first; if it cannot take over, nothing is changed. If the new supervisor dies at
once, the old one is started again and adopts everything.

No definition is changed: reload applies the file. A Perdure that is too old for
this is ended without its processes, and the new one adopts them; that works for
a server that up -d has started.`, `
perdure upgrade
perdure upgrade --binary /usr/local/bin/perdure`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			path, err := upgradeTo(binary)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c Client) error { return a.upgrade(ctx, c, path) })
		})
	cmd.Flags().StringVar(&binary, "binary", "", "the program to change to (default: this one)")
	_ = cmd.MarkFlagFilename("binary") // the flag exists: it was defined the line before
	return cmd
}

// upgradeTo is the absolute path of a program; empty means this one.
func upgradeTo(binary string) (string, error) {
	if binary != "" {
		return filepath.Abs(binary)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot find the program perdure itself: %w", err)
	}
	return self, nil
}

// upgradeTime bounds the wait for a server that becomes another program.
const upgradeTime = time.Minute

func (a *app) upgrade(ctx context.Context, c Client, path string) error {
	page, err := c.Events(ctx, api.EventQuery{Last: 1})
	if err != nil {
		return err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	res, err := c.Upgrade(ctx, api.UpgradeRequest{Binary: path})
	if api.CodeOf(err) == api.CodeNotFound && err != nil {
		return a.upgradeOld(ctx, c, path)
	}
	if err != nil {
		return err
	}
	if err := awaitUpgrade(ctx, c, info.PID, page.LastSeq); err != nil {
		return err
	}
	return a.tellUpgrade(ctx, c, res)
}

// tellUpgrade says what has become of everything.
func (a *app) tellUpgrade(ctx context.Context, c Client, res api.UpgradeResult) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	list, err := c.Processes(ctx)
	if err != nil {
		return err
	}
	res.ServerPID, res.SupervisorPID = info.PID, info.SupervisorPID
	if a.flags.json {
		return a.printJSON(res)
	}
	a.say("upgraded from %s to %s: server (pid %d) and supervisor (pid %d); %s", res.From, res.To, res.ServerPID, res.SupervisorPID, livesOn(len(alive(list))))
	if res.Replaced {
		a.say("the old supervisor could not become another program: it was ended without its processes, and the new one has adopted them")
	}
	return nil
}

func livesOn(n int) string {
	if n == 1 {
		return "1 process lives on"
	}
	return fmt.Sprintf("%d processes live on", n)
}

// awaitUpgrade waits for the word of the server on what has become of it, or that
// it has died. The death of the one before it may be told as late as now.
func awaitUpgrade(ctx context.Context, c Client, server int, after uint64) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTime)
	defer cancel()
	const words = "server.upgraded,server.upgrade_failed,server.lost"
	for e, err := range c.FollowEvents(ctx, api.EventQuery{After: after, Pattern: words}) {
		if err != nil {
			return err
		}
		switch e.Type {
		case "server.upgraded":
			return nil
		case "server.lost":
			var dead struct{ PID int }
			if err := json.Unmarshal(e.Data, &dead); err == nil && dead.PID != server {
				continue
			}
			return api.Errorf(api.CodeFailed, "the supervisor is upgraded, and the server died as the new program; see server.log")
		default:
			return api.Errorf(api.CodeFailed, "the supervisor is upgraded, and the old server goes on: %s", e.Data)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.Errorf(api.CodeTimeout, "the supervisor is upgraded, and the server has not said what became of it; see server.log")
	}
	return ctx.Err()
}

// upgradeOld replaces a Perdure that knows nothing of upgrades: both parts are
// ended without the processes, and a new server is started with the arguments,
// directory and environment of the old one; its supervisor adopts everything.
func (a *app) upgradeOld(ctx context.Context, c Client, path string) error {
	_, stateDir, err := a.target()
	if err != nil {
		return err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if stateDir == "" {
		return api.Errorf(api.CodeFailed, "cannot upgrade version %s from afar: run this where its state directory is", info.Version)
	}
	pid, supervisor := a.seams.Running(stateDir)
	if pid == 0 || pid != info.PID {
		return api.Errorf(api.CodeFailed, "cannot upgrade: the server that answers (pid %d) does not have %s", info.PID, stateDir)
	}
	old, err := host.InvocationOf(pid)
	if err == nil && (len(old.Argv) < 2 || old.Argv[1] != "server") {
		err = errors.New("it belongs to a terminal")
	}
	if err != nil {
		return api.Errorf(api.CodeFailed, "cannot upgrade version %s, which cannot become another program: %v; "+
			"`kill -9 %d %d` ends it without its processes, and `perdure up` of the new version adopts them", info.Version, err, pid, supervisor)
	}
	version, err := canTakeOver(ctx, path, stateDir)
	if err != nil {
		return api.Errorf(api.CodeFailed, "cannot upgrade: %v; nothing was changed", err)
	}
	if err := host.EndAll(pid, supervisor); err != nil {
		return fmt.Errorf("cannot end the old Perdure: %w", err)
	}
	a.awaitGone(ctx)
	old.Argv = append([]string{path, "server", "--report"}, slices.DeleteFunc(old.Argv[2:], func(arg string) bool {
		return arg == "--report" || arg == "--guarded"
	})...)
	if _, _, err := host.Detach(ctx, old, filepath.Join(stateDir, "server.log")); err != nil {
		return fmt.Errorf("%w; the processes live on: `perdure up -d` of either version adopts them", err)
	}
	return a.tellUpgrade(ctx, c, api.UpgradeResult{From: info.Version, To: version, Replaced: true})
}

// canTakeOver asks a program whether it could go on with a state directory, and
// for its version.
func canTakeOver(ctx context.Context, path, stateDir string) (version string, err error) {
	out, err := host.Ask(ctx, []string{path, "supervisor", "--check", "--state-dir", stateDir})
	if err != nil {
		return "", err
	}
	var v struct {
		Build string `json:"build"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return "", fmt.Errorf("%s does not say whether it could take over; is it Perdure?", path)
	}
	return v.Build, nil
}
