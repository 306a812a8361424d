package proc

import "testing"

// A name whose processes were killed with their cgroup can be started again, by
// the same Host and by the next one: the kernel remembers the kill in the folder.
func TestStartAfterKilledCgroup(t *testing.T) {
	t.Parallel()
	o := withCgroup(t)
	spec := roleSpec("block")
	spec.Name = "again"
	h := testHost(t, o)
	for i := range 3 {
		if i == 2 {
			h = testHost(t, o)
		}
		x := start(t, h, spec)
		if line := x.line(); line != "ready" {
			t.Fatalf("start %d was killed at once: it says %q", i, line)
		}
		if err := x.Kill(); err != nil {
			t.Fatal(err)
		}
		x.end()
	}
}
