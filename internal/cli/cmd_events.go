package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/render"
)

// isBrokenPipe says whether the reader of our output has gone.
func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }

func (a *app) cmdEvents() *cobra.Command {
	var follow bool
	var last int
	var since, name string
	cmd := command("events [PATTERN]", "Show what has happened", `
The last events of the log, oldest first. PATTERN is matched against the type;
"*" stands for any text, and several patterns are joined by commas. Following
misses nothing: after a lost connection it goes on where it was.`, `
perdure events
perdure events -f
perdure events 'process.exited' --name web -n 5
perdure events 'process.breaker_*,process.unhealthy' --since 24h --json`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			at, err := parseSince(a.now(), since)
			if err != nil {
				return err
			}
			if last < 1 {
				return usagef("cannot show %d events; -n takes a number from 1", last)
			}
			q := api.EventQuery{Name: name, Since: at}
			if len(args) > 0 {
				q.Pattern = args[0]
			}
			if at == nil {
				q.Last = last
			}
			return a.with(cmd, func(ctx context.Context, c Client) error {
				if follow {
					return a.followEvents(ctx, c, q)
				}
				return a.events(ctx, c, q, last, cmd.Flags().Changed("lines"))
			})
		})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events until Ctrl-C")
	cmd.Flags().IntVarP(&last, "lines", "n", 50, "how many events; with --since the default is all")
	cmd.Flags().StringVar(&since, "since", "", "events at or after a time, or that long ago")
	cmd.Flags().StringVar(&name, "name", "", "events of one process")
	// The flag exists: it was defined the line before.
	_ = cmd.RegisterFlagCompletionFunc("name", a.completeNames)
	return cmd
}

// events prints events page by page. bounded says that at most n are wanted
// although a time is given.
func (a *app) events(ctx context.Context, c Client, q api.EventQuery, n int, bounded bool) error {
	if q.Last > maxPage {
		var err error
		if q, err = lastMany(ctx, c, q); err != nil {
			return err
		}
	}
	w := a.newEventWriter()
	for {
		if q.Last == 0 {
			q.Limit = maxPage
		}
		page, err := c.Events(ctx, q)
		if err != nil {
			return errors.Join(err, w.flush())
		}
		for _, e := range page.Events {
			if q.Since != nil && bounded && n == 0 {
				return w.flush()
			}
			n--
			w.put(e)
			q.After = e.Seq
		}
		if !page.More || len(page.Events) == 0 || q.Last > 0 {
			return w.flush()
		}
	}
}

// maxPage is the most events that the API gives at once.
const maxPage = 1000

// lastMany turns a wish for more last events than a page holds into a walk from
// a place. Only among all events is the place known.
func lastMany(ctx context.Context, c Client, q api.EventQuery) (api.EventQuery, error) {
	if q.Pattern != "" || q.Name != "" {
		return q, usagef("cannot show the last %d of selected events, %d at most; choose by time with --since", q.Last, maxPage)
	}
	page, err := c.Events(ctx, api.EventQuery{Last: 1})
	if err != nil {
		return q, err
	}
	if n := uint64(q.Last); page.LastSeq > n {
		q.After = page.LastSeq - n
	}
	q.Last = 0
	return q, nil
}

func (a *app) followEvents(ctx context.Context, c Client, q api.EventQuery) error {
	w := a.newEventWriter()
	for e, err := range c.FollowEvents(ctx, q) {
		if ctx.Err() != nil {
			break // Ctrl-C is how following ends
		}
		if err != nil {
			return errors.Join(err, w.flush())
		}
		w.put(e)
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.flush()
}

// eventWriter prints events for people or as JSON lines.
type eventWriter struct {
	put   func(e api.Event)
	flush func() error
}

func (a *app) newEventWriter() eventWriter {
	if a.flags.json {
		put, flush := jsonSink(a.out)
		return eventWriter{func(e api.Event) { put(item{event: &e}) }, flush}
	}
	out := bufio.NewWriter(a.out)
	style, now, column := a.style(), a.now(), 8
	return eventWriter{
		put: func(e api.Event) {
			column = max(column, min(render.Width(e.Name), 24))
			render.Event(out, style, now, column, e)
		},
		flush: func() error {
			if err := out.Flush(); err != nil && !isBrokenPipe(err) && !errors.Is(err, io.ErrClosedPipe) {
				return err
			}
			return nil
		},
	}
}
