package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// ServeOptions say how a listener is served.
type ServeOptions struct {
	// Drain is how long requests that are under way may go on after ctx has
	// ended. Default 5s.
	Drain time.Duration
	// Log gets what net/http has to say. Default: nothing.
	Log *slog.Logger
}

// peer is who is at the other end of a connection.
type peer struct {
	// trusted says that the kernel vouches for it: a Unix socket's peer with
	// our own user id, or root.
	trusted bool
}

type peerKey struct{}
type streamsKey struct{}

func peerOf(ctx context.Context) peer {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p
}

// streamsClosed returns the channel that is closed when streams shall end, or
// nil under a server that is not Serve.
func streamsClosed(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(streamsKey{}).(<-chan struct{})
	return c
}

// Serve serves h on l until ctx ends, then ends gracefully: no new connection,
// streams end at once, other requests have the time of Drain and are cut off
// after it. It owns l. It returns nil after an end that was asked for.
func Serve(ctx context.Context, l net.Listener, h http.Handler, o ServeOptions) error {
	if o.Drain <= 0 {
		o.Drain = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	// Requests outlive ctx by the time of Drain, so their context is not its child.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	streams := make(chan struct{})
	base = context.WithValue(base, streamsKey{}, (<-chan struct{})(streams))
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("cannot serve the API on %s: %w", l.Addr(), err), srv.Close())
	case <-ctx.Done():
	}
	close(streams)
	drain, stop := context.WithTimeout(base, o.Drain)
	defer stop()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		cancel() // what still runs is told, then cut off
		err = srv.Close()
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// connContext notes who is at the other end, once per connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, err := peerUID(u)
	// Where the system cannot tell, the caller needs a token like anyone.
	return context.WithValue(ctx, peerKey{}, peer{trusted: err == nil && (uid == os.Getuid() || uid == 0)})
}
