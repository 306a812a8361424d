package proc

import (
	"errors"
	"fmt"
	"time"
)

// A Host can start nothing on Windows yet: each Start is a *StartError.
type Host struct{ stopped chan struct{} }

// A Process cannot be had on Windows yet.
type Process struct{}

func unsupported(what string) error {
	return fmt.Errorf("cannot %s: not supported on windows yet: %w", what, errors.ErrUnsupported)
}

// NewHost always succeeds, so that all that needs no processes works.
func NewHost(Options) (*Host, error) { return &Host{stopped: make(chan struct{})}, nil }

// Start is a *StartError.
func (h *Host) Start(spec Spec, _ func(Notice)) (*Process, error) {
	name := ""
	if len(spec.Argv) > 0 {
		name = spec.Argv[0]
	}
	return nil, &StartError{Argv0: name, Why: "not supported on windows yet", Err: errors.ErrUnsupported}
}

// Adopt is an error.
func (h *Host) Adopt(Identity, func(Notice)) (*Process, error) {
	return nil, unsupported("adopt a process")
}

// AdoptFD is an error.
func (h *Host) AdoptFD(Identity, int, *Exit, func(Notice)) (*Process, error) {
	return nil, unsupported("adopt a process")
}

// Told does nothing.
func (h *Host) Told(Identity, Exit) {}

// Relayed does nothing.
func (h *Host) Relayed(bool) {}

// KeepZombies does nothing: there are none.
func (h *Host) KeepZombies(bool) {}

// Identity is empty.
func (p *Process) Identity() Identity { return Identity{} }

// PID is 0.
func (p *Process) PID() int { return 0 }

// PidFD is an error.
func (p *Process) PidFD() (int, error) { return -1, unsupported("make a descriptor of a process") }

// Signal is an error.
func (p *Process) Signal(string) error { return unsupported("signal a process") }

// Kill is an error.
func (p *Process) Kill() error { return unsupported("kill a process") }

// SampleTree is an error.
func SampleTree(Identity) (Sample, error) { return Sample{}, unsupported("measure a process") }

// Find finds nothing.
func (h *Host) Find(string) []Identity { return nil }

// Variable tells nothing here.
func (h *Host) Variable(Identity, string) string { return "" }

// Sweep finds nothing.
func (h *Host) Sweep(Identity) (live int, err error) { return 0, nil }

// Adopted does nothing here: there are no orphans.
func (h *Host) Adopted() {}

// Pause does nothing here: what ends meanwhile is told to nobody.
func (h *Host) Pause() {}

// Release does nothing.
func (h *Host) Release(string) error { return nil }

// Notes says what does not work.
func (h *Host) Notes() []string {
	return []string{"processes cannot be run on windows yet"}
}

// Close does nothing.
func (h *Host) Close() error { return nil }

// Shim does nothing.
func Shim([]string) {}

// BootID is an error.
func BootID() (string, error) { return "", unsupported("tell the boot of the system") }

// Now is the wall clock: nothing is timed by it here.
func Now() int64 { return time.Now().UnixNano() }
