package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/sockpath"
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
	var silent silentConns
	base = context.WithValue(base, streamsKey{}, (<-chan struct{})(streams))
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       connContext,
		ConnState:         silent.note,
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
	hush := time.AfterFunc(silence, silent.close)
	err := srv.Shutdown(drain)
	hush.Stop()
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
	if _, ok := c.(*net.UnixConn); !ok {
		return ctx
	}
	uid, err := sockpath.PeerUID(c)
	// Where the system cannot tell, the caller needs a token like anyone.
	return context.WithValue(ctx, peerKey{}, peer{trusted: err == nil && (uid == os.Getuid() || uid == 0)})
}

// silence is how long a connection may say nothing while the server ends.
const silence = 100 * time.Millisecond

// silentConns are the connections that have sent nothing yet, such as those
// that a client opened in store. http.Server.Shutdown waits 5 s for each.
type silentConns struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// note implements http.Server.ConnState.
func (s *silentConns) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.conns, c)
		return
	}
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
	}
	s.conns[c] = struct{}{}
}

func (s *silentConns) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close() // there is nobody to tell
	}
}
