//go:build !linux

package workers

import (
	"errors"
	"os"
)

func readyEnd(string) (*os.File, error) { return nil, errors.ErrUnsupported }
