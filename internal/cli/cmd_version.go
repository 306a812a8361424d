package cli

import (
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"
)

// versions is what `perdure version` tells.
type versions struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"`
	// Server is the version of the running server, empty when none answers.
	Server        string `json:"server,omitempty"`
	ServerPID     int    `json:"server_pid,omitempty"`
	SupervisorPID int    `json:"supervisor_pid,omitempty"`
}

func (a *app) cmdVersion() *cobra.Command {
	return command("version", "Show the versions of this program and of the running server", `
The server's version differs from the program's after an upgrade until the next
perdure up.`, `
perdure version
perdure version --json`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			v := versions{Version: a.seams.Version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
			a.askVersion(cmd.Context(), &v)
			if a.flags.json {
				return a.printJSON(v)
			}
			a.printf("perdure %s (%s, %s)\n", v.Version, v.Go, v.System)
			if v.Server != "" {
				a.printf("server  %s (pid %d, supervisor pid %d)\n", v.Server, v.ServerPID, v.SupervisorPID)
			}
			return nil
		})
}

// askVersion fills in what a running server says; it is no error if none does.
func (a *app) askVersion(ctx context.Context, v *versions) {
	c, _, err := a.dial()
	if err != nil {
		return
	}
	defer closeClient(c)
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if info, err := c.Info(ctx); err == nil {
		v.Server, v.ServerPID, v.SupervisorPID = info.Version, info.PID, info.SupervisorPID
	}
}
