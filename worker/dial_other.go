//go:build !linux

package worker

import (
	"context"
	"net"
)

// dialUnix connects to a Unix socket. The system refuses a path that is too
// long for it.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}
