package definition

import (
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/api"
)

// Env returns the environment of a process, "KEY=value", sorted by key, each
// key once: base (the supervisor's own) when d inherits it, and over it d.Env,
// into which the configuration has already merged the env files. Without
// inherit_env only PATH, HOME and SYSTEMROOT are taken from base, because
// hardly a program starts without them (P17).
//
// Perdure's own variables are dropped, in base and in d.Env: the supervisor adds
// them for each generation. Those of sd_notify are dropped in base alone.
func Env(d api.Definition, base []string) []string {
	vars := make(map[string]string, len(base)+len(d.Env))
	inherit := d.InheritEnv == nil || *d.InheritEnv
	for _, kv := range base {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || key == "" || ownVariable(key) {
			continue
		}
		if inherit || key == "PATH" || key == "HOME" || strings.EqualFold(key, "SYSTEMROOT") {
			vars[key] = value
		}
	}
	for key, value := range d.Env {
		if !ownVariable(key) || notifyVariable(key) {
			vars[key] = value
		}
	}
	out := make([]string, 0, len(vars))
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		out = append(out, key+"="+vars[key])
	}
	return out
}

// ownVariable says whether Perdure itself sets a variable.
func ownVariable(key string) bool {
	switch key {
	case "PERDURE", "PERDURE_NAME", "PERDURE_ID", "PERDURE_GENERATION", "PERDURE_METADATA",
		"PERDURE_WORKER_SOCKET", "PERDURE_WORKER_ADDRESS", "PERDURE_WORKER_TOKEN",
		"DONKEYLABS_PROCESS_ID", "DONKEYLABS_SOCKET_PATH", "DONKEYLABS_TCP_PORT", "DONKEYLABS_METADATA":
		return true
	}
	return notifyVariable(key)
}

// notifyVariable says whether a variable is one of sd_notify(3) and
// sd_watchdog_enabled(3).
func notifyVariable(key string) bool {
	return key == "NOTIFY_SOCKET" || key == "WATCHDOG_USEC" || key == "WATCHDOG_PID"
}
