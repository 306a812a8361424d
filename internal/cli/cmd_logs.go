package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

func (a *app) cmdLogs() *cobra.Command {
	var follow, stamps bool
	var lines int
	var since, stream string
	cmd := command("logs [NAME...]", "Show the output of processes", `
The last lines of all processes, or of those named, in the order of time, each
with its process's name; lines of standard error are marked "!". With one NAME
and no glob the lines stand as they were written.

--since takes a duration (10m), a time of day (14:30), a date with time
(2026-03-01 14:30), or RFC 3339.`, `
perdure logs -f
perdure logs web -n 200
perdure logs 'worker-*' --since 10m --stream stderr
perdure logs web -n -1 > web.log`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			q := api.LogQuery{Names: args, Stream: stream, Lines: lines, Follow: follow}
			if stream != "" && stream != "stdout" && stream != "stderr" {
				return usagef("cannot show the stream %q: it is stdout or stderr", stream)
			}
			if lines < -1 {
				return usagef("cannot show %d lines; -1 means all", lines)
			}
			at, err := parseSince(a.now(), since)
			if err != nil {
				return err
			}
			q.Since = at
			return a.with(cmd, func(ctx context.Context, c Client) error { return a.logs(ctx, c, q, stamps) })
		})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	cmd.Flags().IntVarP(&lines, "lines", "n", 20, "how many lines of each process to begin with; -1 means all")
	cmd.Flags().StringVar(&since, "since", "", "lines at or after a time, or that long ago")
	cmd.Flags().StringVar(&stream, "stream", "", "stdout or stderr (default both)")
	cmd.Flags().BoolVarP(&stamps, "timestamps", "t", false, "print the time of each line")
	cmd.ValidArgsFunction = a.completeNames
	return cmd
}

// parseSince reads --since; empty means no bound.
func parseSince(now time.Time, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		at := now.Add(-d.Abs())
		return &at, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return &at, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			y, m, d := now.Date()
			at = time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), 0, now.Location())
			if at.After(now) {
				at = at.AddDate(0, 0, -1) // the last time that the clock said so
			}
			return &at, nil
		}
	}
	return nil, usagef("cannot read %q as a time (write 10m, 14:30, 2026-03-01 14:30 or RFC 3339)", text)
}

func (a *app) logs(ctx context.Context, c Client, q api.LogQuery, stamps bool) error {
	plain := len(q.Names) == 1 && !isGlob(q.Names[0])
	if plain {
		if _, err := c.Process(ctx, q.Names[0]); err != nil {
			return hint(ctx, c, q.Names[0], err)
		}
	}
	names, err := a.prefixNames(ctx, c, q.Names, plain)
	if err != nil {
		return err
	}
	out := a.lineFeed(render.NewLines(a.out, render.LinesOptions{
		Style: a.style(), Prefix: !plain, Timestamps: stamps, Zone: a.now().Location(), Raw: a.outTTY == nil,
	}, names...))
	err = a.pump(ctx, out, c.Logs(ctx, q))
	if q.Follow && ctx.Err() != nil {
		err = nil // Ctrl-C is how following ends
	}
	return errors.Join(err, out.close())
}

func (a *app) prefixNames(ctx context.Context, c Client, globs []string, plain bool) ([]string, error) {
	if plain || a.flags.json {
		return nil, nil
	}
	list, err := c.Processes(ctx, globs...)
	if err != nil {
		return nil, err
	}
	return namesOf(list), nil
}

// printLineJSON prints one JSON value on a line.
func (a *app) printLineJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot write JSON: %w", err)
	}
	_, err = a.out.Write(append(text, '\n'))
	return err
}
