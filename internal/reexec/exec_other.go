//go:build unix && !linux

package reexec

import "os"

// memory makes a file that no name leads to.
func memory(name string) (*os.File, error) {
	f, err := os.CreateTemp("", name)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// deaf does nothing here: a signal within the few milliseconds of exec has its
// default effect.
func deaf() (restore func()) { return func() {} }
