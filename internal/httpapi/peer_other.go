//go:build !linux && !darwin

package httpapi

import (
	"errors"
	"net"
)

// peerUID cannot tell on this system, so a caller on the socket needs a token.
func peerUID(*net.UnixConn) (int, error) { return -1, errors.ErrUnsupported }
