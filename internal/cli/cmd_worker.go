package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/worker"
)

// spoken is what all words of a worker have.
type spoken struct {
	timeout time.Duration
	require bool
}

const spokenHelp = `

It speaks for the process that it is called from, whose environment says where
Perdure listens. Without supervision it says so on standard error (not with
-q), does nothing and succeeds; with --require it ends with 3.`

// cmdWorker is `perdure worker`: the words below it, and `worker -- CMD`.
func (a *app) cmdWorker() *cobra.Command {
	cmd := a.cmdWrap()
	for _, word := range a.words("perdure worker ") {
		cmd.AddCommand(word)
	}
	cmd.AddCommand(a.wordStatus(), a.wordLog())
	return cmd
}

// words are those that stand below `perdure worker` and, for short, at the top.
// prefix is how the examples begin.
func (a *app) words(prefix string) []*cobra.Command {
	return []*cobra.Command{a.wordEmit(prefix), a.wordHeartbeat(prefix), a.wordReady(prefix), a.wordProgress(prefix), a.wordMetadata(prefix)}
}

// word builds one of them.
func (a *app) word(use, short, long, examples string, args cobra.PositionalArgs, run func(ctx context.Context, s *spoken, args []string) error) *cobra.Command {
	s := &spoken{}
	cmd := command(use, short, strings.TrimSpace(long)+spokenHelp, examples, args, func(cmd *cobra.Command, args []string) error {
		if s.timeout <= 0 {
			return usagef("--timeout: it must be above 0")
		}
		ctx, stop := a.interruptible(cmd.Context())
		defer stop()
		return run(ctx, s, args)
	})
	cmd.Flags().DurationVar(&s.timeout, "timeout", 30*time.Second, "how long to wait for Perdure; then the exit code is 5")
	cmd.Flags().BoolVar(&s.require, "require", false, "without supervision end with 3")
	return cmd
}

func (a *app) wordEmit(prefix string) *cobra.Command {
	return a.word("emit EVENT [JSON]", "Emit an event of this process", `
Ends when the event is durable: it will be in the event log, though any part of
Perdure is killed. Ends with 1 when Perdure refuses it, with 5 when it is not
known to be durable after --timeout: then it may be, or may not. The event is
process.NAME.EVENT; JSON is its data, {} by default; - reads it from standard
input.`, prefix+`emit file.done '{"file":"a.mp4"}'
`+prefix+`emit backup.begun
date +'{"day":"%F"}' | `+prefix+`emit rotated -`,
		cobra.RangeArgs(1, 2), func(ctx context.Context, s *spoken, args []string) error {
			data, err := dataOf(args[1:], os.Stdin)
			if err != nil {
				return err
			}
			return a.speak(ctx, s, func(ctx context.Context, w *worker.Worker) error { return w.EmitAcked(ctx, args[0], data) })
		})
}

func (a *app) wordHeartbeat(prefix string) *cobra.Command {
	return a.word("heartbeat", "Say that this process gets on with its work", `
To be called from a loop, more often than the definition's heartbeat.timeout.`,
		`while read -r job; do `+prefix+`heartbeat; work "$job"; done
`+prefix+`heartbeat -q`,
		cobra.NoArgs, func(ctx context.Context, s *spoken, _ []string) error {
			return a.mention(ctx, s, wire.Heartbeat, wire.Sent{})
		})
}

func (a *app) wordReady(prefix string) *cobra.Command {
	return a.word("ready", "Say that this process is ready to do its work", `
For a definition that waits for it. Ends when that is durable.`,
		prefix+`ready`,
		cobra.NoArgs, func(ctx context.Context, s *spoken, _ []string) error {
			return a.speak(ctx, s, func(ctx context.Context, w *worker.Worker) error { return errors.Join(w.Ready(), w.Flush(ctx)) })
		})
}

func (a *app) wordProgress(prefix string) *cobra.Command {
	return a.word("progress PERCENT [MESSAGE]", "Say how far this process is", `
Only the latest counts; perdure status NAME shows it.`,
		prefix+`progress 40 "pass 1"
`+prefix+`progress 100`,
		cobra.RangeArgs(1, 2), func(ctx context.Context, s *spoken, args []string) error {
			percent, err := strconv.ParseFloat(strings.TrimSuffix(args[0], "%"), 64)
			if err != nil || math.IsNaN(percent) || math.IsInf(percent, 0) {
				return usagef("PERCENT: %q is no number from 0 to 100", args[0])
			}
			m := wire.Sent{Percent: &percent}
			if len(args) > 1 {
				m.Message = &args[1]
			}
			return a.mention(ctx, s, wire.Progress, m)
		})
}

func (a *app) wordStatus() *cobra.Command {
	return a.word("status TEXT", "Say in one line what this process does", `
Only the latest counts; perdure status NAME shows it. This has no short form:
perdure status NAME asks about a process.`,
		`perdure worker status "3 of 7 files"`,
		cobra.ExactArgs(1), func(ctx context.Context, s *spoken, args []string) error {
			text := wire.Clip(args[0], wire.MaxStatus)
			return a.mention(ctx, s, wire.Status, wire.Sent{Status: &text})
		})
}

func (a *app) wordLog() *cobra.Command {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	return a.word("log LEVEL MESSAGE [JSON]", "Send a structured line of log", `
LEVEL is debug, info, warn or error; JSON is an object that goes with it. Ends
when the line is durable. This has no short form: perdure logs shows output.`,
		`perdure worker log warn "slow disk" '{"ms":120}'`,
		cobra.RangeArgs(2, 3), func(ctx context.Context, s *spoken, args []string) error {
			level, known := levels[args[0]]
			if !known {
				return usagef("LEVEL: %q is none of debug, info, warn and error", args[0])
			}
			data, err := dataOf(args[2:], os.Stdin)
			if err != nil {
				return err
			}
			if text, ok := data.(json.RawMessage); ok && text[0] != '{' {
				return usagef("JSON: it must be an object")
			}
			return a.speak(ctx, s, func(ctx context.Context, w *worker.Worker) error {
				return errors.Join(w.Log(level, args[1], data), w.Flush(ctx))
			})
		})
}

func (a *app) wordMetadata(prefix string) *cobra.Command {
	return a.word("metadata [KEY]", "Print the metadata of this process", `
Prints all as JSON, {} when there is none, or the value of one KEY: text as it
is, anything else as JSON. Ends with 4 when there is no such key.`,
		`file=$(`+prefix+`metadata file)
`+prefix+`metadata`,
		cobra.MaximumNArgs(1), func(ctx context.Context, s *spoken, args []string) error {
			all := json.RawMessage("{}")
			if text := a.getenv("PERDURE_METADATA"); json.Valid([]byte(text)) {
				all = json.RawMessage(text)
			} else if err := a.speak(ctx, s, func(ctx context.Context, w *worker.Worker) error { return w.Metadata(ctx, &all) }); err != nil {
				return err
			}
			return a.printMetadata(all, args)
		})
}

func (a *app) printMetadata(all json.RawMessage, key []string) error {
	if len(key) == 0 {
		a.printf("%s\n", all)
		return nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(all, &values); err != nil {
		return fmt.Errorf("cannot read the metadata: %w", err)
	}
	value, found := values[key[0]]
	if !found {
		return &codeError{exitNotFound, fmt.Errorf("cannot find %q in the metadata", key[0])}
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	a.printf("%s\n", text)
	return nil
}

// dataOf reads JSON of an argument, or of in when that is "-"; without one it is
// nil, else a json.RawMessage.
func dataOf(arg []string, in io.Reader) (any, error) {
	if len(arg) == 0 {
		return nil, nil
	}
	text := []byte(arg[0])
	if arg[0] == "-" {
		var err error
		if text, err = io.ReadAll(io.LimitReader(in, wire.MaxLine+1)); err != nil {
			return nil, fmt.Errorf("cannot read standard input: %w", err)
		}
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, usagef("JSON: %w (in a shell put it between single quotes)", err)
	}
	return json.RawMessage(bytes.TrimSpace(text)), nil
}

// workerOptions says where the process that called us is to speak; false
// without supervision.
func (a *app) workerOptions() (worker.Options, bool) {
	o := worker.Options{Socket: a.getenv("PERDURE_WORKER_SOCKET"), ManualHeartbeat: true}
	if o.Socket == "" {
		o.Address, o.Token = a.getenv("PERDURE_WORKER_ADDRESS"), a.getenv("PERDURE_WORKER_TOKEN")
	}
	return o, o.Socket != "" || o.Address != ""
}

// unsupervised tells that there is nobody to speak to.
func (a *app) unsupervised(s *spoken) error {
	const text = "this process is not under supervision (PERDURE_WORKER_SOCKET is not set)"
	if s.require {
		return api.Errorf(api.CodeUnavailable, "%s", text)
	}
	if !a.flags.quiet {
		_, _ = fmt.Fprintf(a.errOut, "perdure: %s: nothing is sent\n", text)
	}
	return nil
}

// speak runs f with a worker. What f needs to be durable it waits for itself.
func (a *app) speak(ctx context.Context, s *spoken, f func(ctx context.Context, w *worker.Worker) error) error {
	o, supervised := a.workerOptions()
	if !supervised {
		return a.unsupervised(s)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	w, err := worker.Start(o) //nolint:contextcheck // Close ends it
	if err != nil {
		return err
	}
	err = f(ctx, w)
	closeErr := w.Close(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return a.noAnswer(o, s)
	case err != nil:
		return err
	}
	return closeErr
}

// mention says what nobody waits for, without a hello: an instance that lives
// for one message would only push others out of Perdure's memory. On TCP the
// hello is needed, for its token.
func (a *app) mention(ctx context.Context, s *spoken, k wire.Kind, m wire.Sent) error {
	o, supervised := a.workerOptions()
	if !supervised {
		return a.unsupervised(s)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	m.Timestamp = time.Now().UnixMilli()
	line, err := wire.AppendSentBy(nil, k, m)
	if err != nil {
		return usagef("%w", err)
	}
	if o.Token != "" {
		hello, err := wire.AppendHello(nil, wire.Greeting{Version: wire.Version, Instance: fmt.Sprintf("shell-%d", os.Getpid()), SDK: "shell", Token: o.Token})
		if err != nil {
			return err
		}
		line = append(hello, line...)
	}
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for {
		err := deliver(ctx, o, line)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		select { // Perdure is being replaced
		case <-retry.C:
		case <-ctx.Done():
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return a.noAnswer(o, s)
}

func (a *app) noAnswer(o worker.Options, s *spoken) error {
	return api.Errorf(api.CodeTimeout, "Perdure has not answered within %s at %s", s.timeout, first(o.Socket, o.Address))
}

// deliver writes lines and waits until Perdure has handled them and hangs up.
func deliver(ctx context.Context, o worker.Options, lines []byte) (err error) {
	conn, err := worker.Dial(ctx, o)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a read or write that waits
	defer func() {
		if stop() {
			err = errors.Join(err, conn.Close())
		}
	}()
	if _, err := conn.Write(lines); err != nil {
		return err
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}
