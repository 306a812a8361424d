package journal

import (
	"hash/fnv"

	"golang.org/x/sys/unix"
)

// bootHash names the running boot, or is 0 where it is unknown: then every
// unclean end counts as a power cut.
func bootHash() uint64 {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails (hash.Hash)
	return h.Sum64()
}
