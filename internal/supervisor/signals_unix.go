//go:build unix

package supervisor

import (
	"os"
	"syscall"
)

// upgradeSignals ask a supervisor to become the program that lies at its path now.
func upgradeSignals() []os.Signal { return []os.Signal{syscall.SIGUSR2} }
