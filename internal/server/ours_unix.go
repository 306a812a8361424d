//go:build unix

package server

import (
	"fmt"
	"os"
	"syscall"
)

// ours refuses a state directory of somebody else's (P26: a directory in a
// shared place may have been put there by anyone).
func ours(dir string, fi os.FileInfo) error {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("cannot use %s as the state directory: it belongs to user %d; choose another with --state-dir", dir, st.Uid)
	}
	return nil
}
