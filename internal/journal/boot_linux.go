package journal

import (
	"hash/fnv"
	"os"

	"github.com/perdure/perdure/internal/fault"
)

// bootHash names the running boot (random(4): a new id at each boot), or is 0
// where it is unknown: then every unclean end counts as a power cut.
func bootHash() uint64 {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return 0
	}
	if boot := fault.Boot(); boot != "" {
		id = []byte(boot)
	}
	h := fnv.New64a()
	_, _ = h.Write(id) // never fails (hash.Hash)
	return h.Sum64()
}
