//go:build !linux

package sockpath

import "fmt"

// maxPath is the longest path of a socket address that all these systems take:
// sun_path has 104 bytes on macOS with the zero at its end.
const maxPath = 103

func withShortPath(path string, use func(string) error) error {
	if len(path) > maxPath {
		return fmt.Errorf("the path has %d bytes and this system allows %d for a socket: choose a shorter --state-dir", len(path), maxPath)
	}
	return use(path)
}
