//go:build unix

package e2e

import (
	"testing"
)

func TestUpDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
processes:
  a: {command: [sleep, "1000"]}
  b: {command: [sh, -c, 'sleep 1000 & wait'], depends_on: [a]}
`)
	r.ok("up", "-d")
	p := r.wait("b", "running")
	if !alive(p.PID) {
		t.Error(p)
	}
	r.ok("down")
}
