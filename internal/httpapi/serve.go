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

// ErrReplaced is the cause (context.Cause) of the end of Serve when another
// program goes on with the listener. Then requests that wait for something are
// told to come again, and are not waited for as long.
var ErrReplaced = errors.New("the server is being replaced by another program; ask again")

// handover is how long requests under way may go on, and then their answers,
// while whoever connects waits for the next program.
const handover = 300 * time.Millisecond

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
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
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
	hush := time.AfterFunc(silence, silent.close)
	err := drain(context.WithoutCancel(ctx), srv, o.Drain, context.Cause(ctx), cancel)
	hush.Stop()
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// drain ends the server: what still runs after its time is told why, then cut off.
func drain(ctx context.Context, srv *http.Server, patience time.Duration, cause error, cancel context.CancelCauseFunc) error {
	replaced := errors.Is(cause, ErrReplaced)
	if replaced {
		patience = handover
	}
	requests, stop := context.WithTimeout(ctx, patience)
	defer stop()
	err := srv.Shutdown(requests)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	cancel(cause)
	if replaced {
		answers, stop := context.WithTimeout(ctx, handover)
		defer stop()
		if err = srv.Shutdown(answers); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return srv.Close()
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
