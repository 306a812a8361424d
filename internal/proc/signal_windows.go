package proc

const hasRealtime = false

// fixedSignalName knows what a definition may name on every system, so that a
// file written elsewhere can be checked here; the numbers are POSIX's.
func fixedSignalName(n int) string {
	names := map[int]string{1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 6: "SIGABRT", 9: "SIGKILL", 10: "SIGUSR1", 12: "SIGUSR2",
		13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM"}
	return names[n]
}
