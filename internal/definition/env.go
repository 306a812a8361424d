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
// Perdure's own variables in base are dropped: the supervisor adds PERDURE,
// PERDURE_NAME, PERDURE_ID and PERDURE_GENERATION for each generation.
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
	maps.Copy(vars, d.Env)
	out := make([]string, 0, len(vars))
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		out = append(out, key+"="+vars[key])
	}
	return out
}

func ownVariable(key string) bool {
	switch key {
	case "PERDURE", "PERDURE_NAME", "PERDURE_ID", "PERDURE_GENERATION":
		return true
	}
	return false
}
