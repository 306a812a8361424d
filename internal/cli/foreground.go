package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/host"
	"github.com/perdure/perdure/internal/cli/render"
)

// progress is how often the progress line of a stop is brought up to date.
const progress = 500 * time.Millisecond

// lastWords is how long the streams of a server that has ended may take to end.
const lastWords = 500 * time.Millisecond

// firstWords is how long a server may wait for its streams to be read.
const firstWords = 2 * time.Second

// samePress is the time in which a further signal counts as the same Ctrl-C:
// wrappers such as timeout(1) send it to a process and to its group.
const samePress = 250 * time.Millisecond

// foreground is one run of a server in this process, with what it shows.
type foreground struct {
	a      *app
	feed   *feed
	events bool // lifecycle events are shown too
	client Client
	gates  map[string]bool // processes whose readiness is news of its own
	// reading is closed when the server's streams are read, or cannot be.
	reading chan struct{}
	begun   func()         // closes reading
	lines   sync.WaitGroup // the readers of output
	// waiting are those of whom it has been told that they wait. It belongs to
	// the reader of events.
	waiting map[string]bool
}

// served is how a server has ended.
type served struct {
	code int
	err  error
}

// runForeground serves until everything is stopped: by itself, or because a
// signal asks for it. The second signal kills at once. It owns the server, the
// two readers of its streams and the printer, and returns after all of them.
func (a *app) runForeground(parent context.Context, o ServeOptions, f *feed, events bool) error {
	signals, stopSignals := a.signals()
	defer stopSignals()
	var passed <-chan os.Signal
	if a.passedOn != nil {
		var stopPassed func()
		passed, stopPassed = a.passedOn()
		defer stopPassed()
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	began := a.now()
	if !a.seams.Since.IsZero() {
		began = a.seams.Since // what was written before has been shown by the program before
	}
	started := make(chan Started, 1)
	ended := make(chan served, 1)
	fg := &foreground{a: a, feed: f, events: events, waiting: map[string]bool{}, reading: make(chan struct{})}
	fg.begun = sync.OnceFunc(func() { close(fg.reading) })
	o.Leaving = fg.leave
	go func() {
		code, err := a.seams.Serve(ctx, o, func(s Started) {
			started <- s
			// A process may ask for the end at once; what it said is shown first.
			select {
			case <-fg.reading:
			case <-time.After(firstWords):
			}
		})
		ended <- served{code, err}
	}()
	watch, stopWatch := context.WithCancel(context.WithoutCancel(parent))
	defer stopWatch()
	var readers sync.WaitGroup
	end := fg.steer(watch, &readers, steering{began: began, started: started, ended: ended, signals: signals, passed: passed, stop: cancel})
	// The server ends its streams when it ends; what it sent last is shown.
	last := time.AfterFunc(lastWords, stopWatch)
	readers.Wait()
	last.Stop()
	f.try(item{status: new(string)})
	if fg.client != nil {
		closeClient(fg.client)
	}
	return errors.Join(end.result(), f.close())
}

func (s served) result() error {
	if s.err != nil && s.code > 0 {
		return &codeError{code: s.code, err: s.err}
	}
	if s.err != nil {
		return s.err
	}
	if s.code != 0 {
		return &codeError{code: s.code}
	}
	return nil
}

// steering is what the loop of a foreground run listens to.
type steering struct {
	began   time.Time
	started <-chan Started
	ended   <-chan served
	signals <-chan os.Signal
	passed  <-chan os.Signal // for the processes
	stop    context.CancelFunc
}

// steer is the loop: it starts the readers, turns signals into stops, and shows
// whom a stop waits for.
func (fg *foreground) steer(ctx context.Context, readers *sync.WaitGroup, s steering) served {
	var tick *time.Ticker
	var ticks <-chan time.Time
	defer func() {
		if tick != nil {
			tick.Stop()
		}
	}()
	var asked time.Time
	var hurry func() // nil until it answers; then a second signal from before counts too
	presses := 0
	for {
		select {
		case server := <-s.started:
			hurry = server.Hurry
			since := s.began
			if !server.Since.IsZero() {
				since = server.Since
			}
			if err := fg.read(ctx, readers, server.Socket, since); err != nil {
				fg.note("cannot show the output: " + err.Error())
			}
		case <-s.signals:
			if presses > 0 && fg.a.now().Sub(asked) < samePress {
				continue
			}
			presses++
			if presses == 1 {
				asked = fg.a.now()
				s.stop()
				tick = time.NewTicker(progress)
				ticks = tick.C
				fg.showWaiting(ctx, asked)
			}
		case sig := <-s.passed:
			fg.passOn(ctx, host.SignalName(sig))
		case <-ticks:
			fg.showWaiting(ctx, asked)
		case end := <-s.ended:
			return end
		}
		if presses > 1 && hurry != nil {
			presses = 1
			fg.note("killing what is left")
			readers.Go(hurry)
		}
	}
}

// passOn gives a signal to every process that lives.
func (fg *foreground) passOn(ctx context.Context, name string) {
	if fg.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, passOnTime)
	defer cancel()
	list, err := fg.client.Processes(ctx)
	if err != nil {
		fg.note("cannot pass " + name + " on: " + err.Error())
		return
	}
	for i := range list {
		if list[i].PID == 0 {
			continue
		}
		if _, err := fg.client.Command(ctx, list[i].Name, api.CommandRequest{Verb: "signal", Signal: name}); err != nil {
			fg.note("cannot pass " + name + " on to " + list[i].Name + ": " + err.Error())
		}
	}
}

// passOnTime bounds the passing on of one signal.
const passOnTime = 5 * time.Second

// note prints a line of Perdure's own if there is room; with --quiet it does not.
func (fg *foreground) note(text string) {
	if !fg.a.flags.quiet {
		fg.feed.try(item{note: text})
	}
}

// showWaiting sets the progress line of a stop.
func (fg *foreground) showWaiting(ctx context.Context, asked time.Time) {
	if fg.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, progress)
	defer cancel()
	list, err := fg.client.Processes(ctx)
	if err != nil {
		return // the server has no time to answer; the line stays as it was
	}
	text := ""
	if names := alive(list); len(names) > 0 {
		text = fg.a.fit(render.Waiting(names, fg.a.now().Sub(asked), "; Ctrl-C again kills at once"))
	}
	fg.feed.try(item{status: &text})
}

// alive returns the names of processes of which something lives.
func alive(list []api.Process) []string {
	var names []string
	for i := range list {
		if p := &list[i]; p.PID != 0 || p.State == api.StateStopping {
			names = append(names, p.Name)
		}
	}
	return names
}

// fit cuts a line to the width of the terminal.
func (a *app) fit(text string) string {
	if n := a.columns(); n > 1 {
		return render.Truncate(text, n-1)
	}
	return text
}

// read starts the readers of output and events, from the time at which the
// server began, so that nothing is missed.
func (fg *foreground) read(ctx context.Context, readers *sync.WaitGroup, socket string, since time.Time) error {
	begun := fg.begun
	if fg.client != nil {
		closeClient(fg.client)
	}
	c, err := fg.a.seams.Dial(DialOptions{Socket: socket})
	if err != nil {
		begun()
		return err
	}
	fg.client = c
	fg.gates = gates(ctx, c)
	fg.lines.Add(1)
	readers.Go(func() {
		defer fg.lines.Done()
		err := fg.a.pump(ctx, fg.feed, c.Logs(ctx, api.LogQuery{Since: &since, Follow: true}))
		if err != nil && ctx.Err() == nil && api.CodeOf(err) != api.CodeUnavailable {
			fg.feed.send(ctx, item{note: "cannot go on showing the output: " + err.Error()})
		}
	})
	if !fg.events {
		begun()
		return nil
	}
	readers.Go(func() {
		defer begun()
		for e, err := range c.FollowEvents(ctx, api.EventQuery{Since: &since}) {
			begun() // the first event is there: at least that of the server's start
			if err != nil {
				if ctx.Err() == nil && api.CodeOf(err) != api.CodeUnavailable {
					fg.feed.send(ctx, item{note: "cannot go on showing events: " + err.Error()})
				}
				return
			}
			if e.Type == "server.stopped" {
				return // the last event; the stream itself would wait for the next server
			}
			if fg.shown(&e) && !fg.feed.send(ctx, item{event: &e}) {
				return
			}
		}
	})
	return nil
}

// leave waits, for a bounded time, until all that the server has said is on the
// terminal.
func (fg *foreground) leave() {
	done := make(chan struct{})
	go func() {
		fg.lines.Wait()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
	printed := make(chan struct{})
	if fg.feed.send(ctx, item{printed: printed}) {
		select {
		case <-printed:
		case <-ctx.Done():
		}
	}
}

// gates returns which processes have a ready probe; nil when that is not known.
func gates(ctx context.Context, c Client) map[string]bool {
	cfg, err := c.Config(ctx)
	if err != nil {
		return nil // then every readiness is told
	}
	out := make(map[string]bool, len(cfg.Definitions))
	for name := range cfg.Definitions {
		out[name] = cfg.Definitions[name].Ready != nil
	}
	return out
}

// shown says whether an event is told between the lines: steps that another
// event tells as well are not, unless --verbose is given.
func (fg *foreground) shown(e *api.Event) bool {
	if fg.a.flags.verbose {
		return true
	}
	switch e.Type {
	case "process.starting", "process.restarted", "process.stopping", "process.health_failed", "process.registered",
		"supervisor.started":
		return false
	case "process.waiting":
		// Once is enough: what it waits for is told as well.
		first := !fg.waiting[e.Name]
		fg.waiting[e.Name] = true
		return first
	case "process.started", "process.stopped":
		delete(fg.waiting, e.Name)
	case "process.ready":
		gate, known := fg.gates[e.Name]
		return gate || !known
	}
	return strings.HasPrefix(e.Type, "process.") || strings.HasPrefix(e.Type, "supervisor.")
}

// unsettled returns the names of processes that are still on their way up, and
// troubled those that will not get there by themselves soon.
func unsettled(list []api.Process) (coming, troubled []string) {
	for i := range list {
		p := &list[i]
		if p.Desired == api.DesiredStopped && p.State != api.StateFailed {
			continue
		}
		switch p.State {
		case api.StateStarting, api.StateStopping, api.StateOrphaned, api.StateWaiting:
			coming = append(coming, p.Name)
		case api.StateFailed, api.StateCrashLoop, api.StateDependencyFailed, api.StateBackoff:
			troubled = append(troubled, p.Name)
		}
	}
	return coming, troubled
}

// settled says whether a stack has come up as far as it will: nothing is on its
// way, or all that is still waits for something that has failed.
func settled(list []api.Process) bool {
	coming, troubled := unsettled(list)
	for i := range list {
		if slices.Contains(coming, list[i].Name) && (list[i].State != api.StateWaiting || len(troubled) == 0) {
			return false
		}
	}
	return true
}

// awaitUp waits until the stack is settled, looking whenever an event is told,
// and returns the last view of it. show is given the progress.
func awaitUp(ctx context.Context, c Client, timeout time.Duration, show func(coming []string)) ([]api.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	page, err := c.Events(ctx, api.EventQuery{Last: 1})
	if err != nil {
		return nil, err
	}
	list, err := c.Processes(ctx)
	if err != nil || settled(list) {
		return list, err
	}
	coming, _ := unsettled(list)
	show(coming)
	for _, err := range c.FollowEvents(ctx, api.EventQuery{Pattern: "process.*", After: page.LastSeq}) {
		if err == nil {
			list, err = c.Processes(ctx)
		}
		if err != nil {
			break
		}
		if settled(list) {
			return list, nil
		}
		coming, _ = unsettled(list)
		show(coming)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return list, api.Errorf(api.CodeTimeout, "cannot say that all is up: after %s it still waits for %s; it goes on, see `perdure ps`",
			timeout, strings.Join(coming, ", "))
	}
	if ctx.Err() != nil {
		return list, ctx.Err()
	}
	return list, fmt.Errorf("cannot follow the start: the server's events have ended; see `perdure ps`")
}
