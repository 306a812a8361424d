package definition

import (
	"slices"
	"strings"
)

// Words returns the closed list of words that a key allows, or nil when it
// allows any text. field names a field of a type of api, such as
// "Backoff.Kind". The schema and the checks both read it.
func Words(field string) []string {
	switch field {
	case "Definition.Preset":
		return Presets()
	case "Definition.Restart":
		return []string{"always", "on-failure", "on-success", "never", "unless-stopped"}
	case "Definition.OnNoRestart":
		return []string{"stay", "exit"}
	case "Definition.MaxRestartsScope":
		return []string{"since_healthy", "consecutive", "lifetime"}
	case "Definition.ReapGroupOnExit":
		return []string{"always", "failure"}
	case "Backoff.Kind":
		return []string{"exponential", "fixed"}
	case "Jitter.Mode":
		return []string{"none", "add", "scale"}
	case "Breaker.Mode":
		return []string{"rolling", "gap"}
	case "Breaker.Count":
		return []string{"failures", "exits", "restarts"}
	case "Breaker.OnOpen":
		return []string{"retry", "park", "cooldown", "exit"}
	case "Stable.From":
		return []string{"start", "ready", "healthy"}
	case "Stable.Resets":
		return []string{"backoff", "failures", "window", "restarts"}
	case "Probe.OnTimeout":
		return []string{"fail", "warn"}
	case "Probe.OnFail":
		return []string{"restart", "event"}
	case "Dependency.Condition":
		return []string{"started", "healthy", "ready", "completed"}
	case "Probe.Notify":
		return []string{"worker", "sd_notify"}
	case "Definition.Worker":
		return []string{"on", "unix", "tcp", "off"}
	case "Limits.OnExceed":
		return []string{"restart", "stop", "event"}
	case "Logs.OnFull":
		return []string{"block", "drop"}
	case "EnvReload.Mode":
		return []string{"restart", "off"}
	}
	return nil
}

// Rlimits lists the names of the limits that a definition may set.
func Rlimits() []string {
	return []string{"as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack"}
}

// NamePattern is what the name of a process must match (N17, P33): it is part
// of file names, of event names and of addresses.
const NamePattern = `^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`

// ValidName says whether name matches NamePattern.
func ValidName(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[0] == '_' {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) < 0
}

// Signal returns the canonical name of a signal ("SIGTERM" for "term", "TERM"
// and "SIGTERM"), and whether it is one that Linux knows (signal(7)).
func Signal(name string) (string, bool) {
	up := strings.ToUpper(strings.TrimSpace(name))
	up = strings.TrimPrefix(up, "SIG")
	_, ok := slices.BinarySearch(signals(), up)
	return "SIG" + up, ok
}

// Signals lists the names that Signal knows, without "SIG", sorted.
func Signals() []string { return signals() }

// signals are the names of signal(7) without the real-time ones, sorted.
func signals() []string {
	return []string{"ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE", "PROF",
		"PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2",
		"VTALRM", "WINCH", "XCPU", "XFSZ"}
}
