package host

import (
	"os"
	"os/exec"
)

// Relayed passes signals on where there are signals: not here. The console
// tells every program of Ctrl-C by itself.
type Relayed struct{}

// Relay does nothing here.
func Relay(*exec.Cmd, bool) *Relayed { return &Relayed{} }

// Started does nothing here.
func (*Relayed) Started() {}

// Stop does nothing here.
func (*Relayed) Stop() {}

// ExitCode is how a program ended.
func ExitCode(s *os.ProcessState) int { return s.ExitCode() }
