package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/cli/host"
	"github.com/perdure/perdure/worker"
)

// wrapFlags say what a wrapped program's output means.
type wrapFlags struct {
	events, progress []string
	ready            string
	total            string
	ffmpeg           bool
	onOutput         bool
}

func (a *app) cmdWrap() *cobra.Command {
	var f wrapFlags
	cmd := command("worker [--event NAME=REGEX]... [--progress REGEX]... [--ready REGEX] [--ffmpeg] -- CMD...",
		"Speak to the supervisor from within a process", `
The words below it say something for the process that they are called from; the
most used ones have a short form, as perdure emit. status and log have none:
perdure status NAME and perdure logs ask about processes.

worker -- CMD lets any program speak without being changed. It runs CMD, sends
heartbeats while it lives, passes signals on to it, and ends with its exit code
(128+n after signal n). Its output stays as it is. A line of it, ended by \n or
\r, that matches

  --event NAME=REGEX  becomes the event NAME; its data are the line and the
                      named groups, numbers as numbers
  --progress REGEX    becomes progress: its group percent, or its group value
                      as a part of --total or of the group total, which an
                      earlier line may have brought. Times like 01:02:03.5 are
                      numbers too. Other named groups are the message; where no
                      percentage is known that is the status.
  --ready REGEX       says, the first time, that the process is ready

REGEX are those of Go (RE2): (?P<name>...) is a named group. Events for which
the outbox has no room are counted and told in the end. Without supervision CMD
just runs.`, `
perdure worker -- ./nightly-backup.sh
perdure worker --ffmpeg -- ffmpeg -i in.mp4 -y out.webm
perdure worker --event 'file.done=^done (?P<file>.+)' --ready '^listening' -- ./convert all`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 && len(args) > 0 {
				return usagef("cannot find %q among the words of a worker%s; a command stands behind --, as in `perdure worker -- %s`",
					args[0], a.commandHint(cmd, args[0]), strings.Join(args, " "))
			}
			if len(args) == 0 {
				return usagef("say what to tell, or put a command behind --; see `perdure worker --help`")
			}
			m, err := f.matcher()
			if err != nil {
				return err
			}
			return a.wrap(cmd.Context(), m, f.onOutput, args)
		})
	flags := cmd.Flags()
	flags.SetInterspersed(false) // the flags of CMD are its own
	flags.StringArrayVar(&f.events, "event", nil, "lines that match become an event; may be repeated")
	flags.StringArrayVar(&f.progress, "progress", nil, "lines that match become progress; may be repeated, the first that matches counts")
	flags.StringVar(&f.ready, "ready", "", "the first line that matches says ready")
	flags.StringVar(&f.total, "total", "", "what 100 percent are: a number, or a time like 01:02:03")
	flags.BoolVar(&f.ffmpeg, "ffmpeg", false, "make progress of what FFmpeg writes")
	flags.BoolVar(&f.onOutput, "heartbeat-on-output", false, "send heartbeats only when CMD writes something, so that a hung one is noticed")
	return cmd
}

// matcher checks the flags.
func (f *wrapFlags) matcher() (*matcher, error) {
	m := &matcher{}
	compile := func(flag, text string) (*regexp.Regexp, error) {
		p, err := regexp.Compile(text)
		if err != nil {
			return nil, usagef("--%s: %w", flag, err)
		}
		return p, nil
	}
	for _, e := range f.events {
		name, text, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return nil, usagef("--event: %q is not NAME=REGEX", e)
		}
		p, err := compile("event", text)
		if err != nil {
			return nil, err
		}
		m.events = append(m.events, namedPattern{name, p})
	}
	progress := f.progress
	if f.ffmpeg {
		progress = append(progress, ffmpegPatterns...)
	}
	for _, text := range progress {
		p, err := compile("progress", text)
		if err != nil {
			return nil, err
		}
		m.progress = append(m.progress, p)
	}
	if f.total != "" {
		n, ok := amount(f.total)
		if !ok || n <= 0 {
			return nil, usagef("--total: %q is neither a number above 0 nor a time like 01:02:03", f.total)
		}
		m.total = n
	}
	if f.ready != "" {
		p, err := compile("ready", f.ready)
		if err != nil {
			return nil, err
		}
		m.ready = p
	}
	return m, nil
}

// wrapped says for a program what its output means.
type wrapped struct {
	w        *worker.Worker
	onOutput bool

	mu    sync.Mutex // both streams
	m     *matcher
	lost  int
	wrong error // the first other error
}

func (r *wrapped) line(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.m.match(text) {
		var err error
		switch s.what {
		case sayEvent:
			err = r.w.Emit(s.event, s.data)
		case sayReady:
			err = r.w.Ready()
		case sayProgress:
			err = r.w.Progress(s.percent, s.message)
		case sayStatus:
			err = r.w.Status(s.message)
		}
		if errors.Is(err, worker.ErrFull) {
			r.lost++
		} else if r.wrong == nil {
			r.wrong = err
		}
	}
}

// alive is a writer that makes heartbeats of output.
func (r *wrapped) alive(p []byte) (int, error) {
	if r.onOutput {
		r.w.Heartbeat()
	}
	return len(p), nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// afterwards is how long what has inherited the output of CMD may hold it when
// CMD itself has ended.
const afterwards = time.Second

// wrap runs a program and speaks for it.
func (a *app) wrap(ctx context.Context, m *matcher, onOutput bool, argv []string) error {
	o, _ := a.workerOptions()
	o.ManualHeartbeat = onOutput
	refused := 0
	o.OnRefused = func(e *worker.RefusedError) {
		if refused++; refused == 1 {
			_, _ = fmt.Fprintf(a.errOut, "perdure: %s\n", e)
		}
	}
	w, err := worker.Start(o) //nolint:contextcheck // Close ends it
	if err != nil {
		return err
	}
	r := &wrapped{w: w, onOutput: onOutput, m: m}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.WaitDelay = os.Stdin, afterwards
	var cutters []*lineCutter
	tee := func(to io.Writer) io.Writer {
		if !onOutput && len(m.events)+len(m.progress) == 0 && m.ready == nil {
			return to // CMD has our own descriptor
		}
		c := &lineCutter{line: r.line}
		cutters = append(cutters, c)
		return io.MultiWriter(to, writerFunc(r.alive), c)
	}
	cmd.Stdout, cmd.Stderr = tee(a.out), tee(a.errOut)
	relay := host.Relay(cmd, host.IsTerminal(os.Stdin))
	if err := cmd.Start(); err != nil {
		relay.Stop()
		code := 126 // as shells: it is there and cannot be run
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = 127
		}
		return errors.Join(&codeError{code, fmt.Errorf("cannot start %s: %w", argv[0], err)}, w.Close(ctx))
	}
	relay.Started()
	waitErr := cmd.Wait()
	relay.Stop()
	for _, c := range cutters {
		c.flush()
	}
	a.wrappedEnd(r, w.Close(ctx))
	var exited *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exited) && !errors.Is(waitErr, exec.ErrWaitDelay) {
		return waitErr
	}
	if code := host.ExitCode(cmd.ProcessState); code != 0 {
		return &codeError{code: code}
	}
	return nil
}

// wrappedEnd tells what was not said. CMD's exit code stays its own.
func (a *app) wrappedEnd(r *wrapped, closeErr error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range []error{r.wrong, closeErr} {
		if err != nil {
			_, _ = fmt.Fprintf(a.errOut, "perdure: %s\n", err)
		}
	}
	if r.lost > 0 {
		_, _ = fmt.Fprintf(a.errOut, "perdure: %d events were dropped: the outbox was full\n", r.lost)
	}
}
