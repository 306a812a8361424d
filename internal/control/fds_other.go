//go:build !linux

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

func unsupported() error {
	return fmt.Errorf("cannot pass descriptors of processes on this system: %w", errors.ErrUnsupported)
}

func sendFDs(context.Context, net.Conn, heldLine, []int) error { return unsupported() }

// fdReader reads nothing here.
type fdReader struct{}

func newFDReader(net.Conn, *lineReader) (*fdReader, error) { return nil, unsupported() }

func (r *fdReader) next() (heldLine, []int, error) { return heldLine{}, nil, unsupported() }

func (r *fdReader) close() {}

// CloseFDs does nothing: there are none.
func CloseFDs([]int) {}

// HandOver is the way from a server to a supervisor that it starts.
type HandOver struct {
	// Theirs is the end that the supervisor inherits.
	Theirs *os.File
	conn   net.Conn
}

// NewHandOver is errors.ErrUnsupported.
func NewHandOver() (*HandOver, error) { return nil, unsupported() }

func inherited(int) (net.Conn, error) { return nil, unsupported() }
