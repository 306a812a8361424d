//go:build !linux

package supervisor

import (
	"os"
	"path/filepath"
)

// runDir returns the folder of the FIFOs.
func runDir(stateDir, _ string) (string, error) {
	dir := filepath.Join(stateDir, "run")
	return dir, os.MkdirAll(dir, 0o700)
}
