package cli

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/cli/render"
)

func (a *app) cmdDown() *cobra.Command {
	var timeout time.Duration
	cmd := command("down", "Stop everything, Perdure last", `
Stops all processes in reverse order of dependency and returns when each is
proven gone, then ends supervisor and server. What is left after the timeout is
killed. What you wanted of each process is remembered for the next up.`, `
perdure down
perdure down --timeout 3s`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			if timeout < 0 {
				return usagef("cannot wait for a negative time")
			}
			return a.with(cmd, func(ctx context.Context, c Client) error { return a.down(ctx, c, timeout) })
		})
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "kill what is left after this time (default: the file's shutdown_timeout)")
	return cmd
}

func (a *app) down(ctx context.Context, c Client, timeout time.Duration) error {
	began := a.now()
	list, err := c.Processes(ctx)
	if err != nil {
		return err
	}
	watch, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	if a.errTTY != nil && !a.flags.quiet {
		watcher.Go(func() { a.showStopping(watch, c, began) })
	}
	err = c.Shutdown(ctx, timeout)
	stop()
	watcher.Wait()
	a.showLine("")
	if err != nil {
		return err
	}
	a.awaitGone(ctx)
	if a.flags.json {
		return a.printJSON(map[string]any{"stopped": namesOf(list)})
	}
	a.say("stopped %s in %s", processCount(len(list)), render.Duration(a.now().Sub(began)))
	return nil
}

func processCount(n int) string {
	if n == 1 {
		return "1 process"
	}
	return strconv.Itoa(n) + " processes"
}

// awaitGone waits until server and supervisor are gone, so that an `up` right
// after this one finds the place free. Their locks are asked for, because the
// system tells nobody when a lock is given back.
func (a *app) awaitGone(ctx context.Context) {
	_, stateDir, err := a.target()
	if err != nil || stateDir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if server, supervisor := a.seams.Running(stateDir); server == 0 && supervisor == 0 {
			return
		}
		timer := time.NewTimer(10 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// showStopping draws whom the stop waits for until ctx ends.
func (a *app) showStopping(ctx context.Context, c Client, began time.Time) {
	tick := time.NewTicker(progress)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		list, err := c.Processes(ctx)
		if err != nil {
			continue // it may be too busy to answer; the line stays as it was
		}
		if names := alive(list); len(names) > 0 {
			a.showLine(a.fit(render.Waiting(names, a.now().Sub(began), "")))
		}
	}
}
