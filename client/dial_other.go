//go:build !linux

package client

import (
	"context"
	"net"
)

// dialUnix connects to a Unix socket. The system refuses a path that is too
// long for it.
func dialUnix(ctx context.Context, d *net.Dialer, path string) (net.Conn, error) {
	return d.DialContext(ctx, "unix", path)
}
