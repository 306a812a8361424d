package logstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Capture stores the output of processes. On Windows there are no FIFOs that
// outlive a process; Open says so.
type Capture struct{ o Options }

// Sink stores the output of one process. There is none on Windows.
type Sink struct{}

// NewCapture makes a Capture that can remove logs and nothing else.
func NewCapture(o Options) (*Capture, error) { return &Capture{o: o}, nil }

// Open returns errors.ErrUnsupported.
func (c *Capture) Open(name string, _ Retention, _ ...int) (*Sink, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return nil, unsupported("capture the output of " + name)
}

// Remove removes the logs of name.
func (c *Capture) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(c.o.LogDir, name))
}

// Close does nothing.
func (c *Capture) Close() error { return nil }

// FIFOs returns errors.ErrUnsupported.
func (s *Sink) FIFOs() ([]int, error) { return nil, unsupported("hold output") }

// ChildEnds returns errors.ErrUnsupported.
func (s *Sink) ChildEnds() (stdout, stderr *os.File, err error) {
	return nil, nil, unsupported("capture output")
}

// Drain returns errors.ErrUnsupported.
func (s *Sink) Drain() error { return unsupported("capture output") }

// Configure does nothing.
func (s *Sink) Configure(Retention) {}

// Rotate returns errors.ErrUnsupported.
func (s *Sink) Rotate() error { return unsupported("rotate a log") }

// Reopen returns errors.ErrUnsupported.
func (s *Sink) Reopen() error { return unsupported("reopen a log") }

// Close does nothing.
func (s *Sink) Close() error { return nil }

func unsupported(what string) error {
	return fmt.Errorf("cannot %s on windows: it has no FIFOs that outlive a process: %w", what, errors.ErrUnsupported)
}
