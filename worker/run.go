package worker

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// NotifyContext returns a context that ends when the program is asked to stop,
// by SIGTERM or an interrupt. Perdure is then told that the program is
// stopping; it may take Grace to end, and a second signal ends it at once. Call
// stop when the signals are not awaited any more. It works without supervision too.
func (w *Worker) NotifyContext(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, os.Interrupt)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-asked:
			signal.Stop(asked) // the next one has the effect that it has in any program
			if err := w.Stopping(); err != nil {
				w.o.Logger.Debug("Cannot say that the program is stopping", "error", err)
			}
		case <-ctx.Done():
			signal.Stop(asked)
		}
		cancel()
	}()
	var once sync.Once
	return ctx, func() {
		once.Do(func() {
			cancel()
			<-ended
		})
	}
}

// Run starts a worker, runs f until it returns, and closes the worker. The
// context of f ends when the program is asked to stop (see NotifyContext); that
// f then returns the context's error is no failure.
func Run(ctx context.Context, o Options, f func(ctx context.Context, w *Worker) error) error {
	w, err := Start(o) //nolint:contextcheck // the worker outlives ctx: what is accepted is still delivered
	if err != nil {
		return err
	}
	inner, stop := w.NotifyContext(ctx)
	err = f(inner, w)
	asked := inner.Err() != nil && ctx.Err() == nil
	stop()
	if asked && errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, w.Close(context.WithoutCancel(ctx)))
}
