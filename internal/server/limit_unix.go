//go:build unix

package server

import (
	"math"

	"golang.org/x/sys/unix"
)

// maxFDs is how many descriptors this process may have. The Go runtime has
// raised the soft limit to the hard one.
func maxFDs() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(lim.Cur)
}
