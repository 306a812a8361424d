//go:build !unix

package cli

import (
	"os/exec"
	"testing"
)

func ownGroup(*exec.Cmd) {}

func signalGroup(t *testing.T, _ *exec.Cmd, _ string) { t.Helper() }

func tellSignals() {}
