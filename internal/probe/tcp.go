package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/perdure/perdure/api"
)

type tcpAsker struct{ network, address string }

func newTCP(p api.TCPProbe) (asker, error) {
	if path, ok := strings.CutPrefix(p.Address, "unix:"); ok {
		if path == "" {
			return nil, api.Errorf(api.CodeInvalid, "cannot ask %q: write it like unix:/run/x.sock", p.Address)
		}
		return tcpAsker{"unix", path}, nil
	}
	if _, _, err := net.SplitHostPort(p.Address); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "cannot ask %q: write it like 127.0.0.1:8080 or unix:/run/x.sock", p.Address)
	}
	return tcpAsker{"tcp", p.Address}, nil
}

// ask takes an open connection for yes.
func (a tcpAsker) ask(ctx context.Context) (Answer, string) {
	conn, err := dial(ctx, a.network, a.address)
	if err != nil {
		return classify(ctx, err)
	}
	_ = conn.Close() // it has told what it can
	return Yes, ""
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	// No keep-alive: the connection lives for one ask.
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	return d.DialContext(ctx, network, address)
}

// classify tells a fault of this side from an answer.
func classify(ctx context.Context, err error) (Answer, string) {
	var dns *net.DNSError
	switch {
	case calledOff(ctx):
		return Unknown, "the ask was called off"
	case ownFault(err):
		return Unknown, fmt.Sprintf("cannot ask: %v", err)
	case errors.As(err, &dns) && !dns.IsNotFound && ctx.Err() == nil:
		return Unknown, fmt.Sprintf("cannot ask: %v", err)
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return No, "no answer in time"
	}
	return No, err.Error()
}

// ownFault says whether this side lacked what it takes to ask: descriptors,
// memory or local ports (connect(2), socket(2)).
func ownFault(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
