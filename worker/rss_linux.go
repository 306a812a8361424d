package worker

import (
	"os"
	"strconv"
	"strings"
)

// rss is the second field of /proc/self/statm, in pages (proc_pid_statm(5)).
func rss() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	if f := strings.Fields(string(text)); len(f) > 1 {
		if pages, err := strconv.ParseInt(f[1], 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	return 0
}
