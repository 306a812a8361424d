package config

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
)

// Changes are the differences between two states of the files.
type Changes struct {
	// Added and Removed are names of processes, sorted.
	Added   []string
	Removed []string
	// Changed are the processes that are in both and differ, by name.
	Changed []Change
	// Unchanged are the others that are in both.
	Unchanged []string
	// Settings are the keys of settings that differ.
	Settings []string
}

// Change is one process that differs.
type Change struct {
	Name string
	// Keys are the keys that mean something else than before, such as
	// "command", "env.PORT" or "backoff". Values are not told: they may be secret.
	Keys []string
	// Restart says that a running process must be restarted to follow.
	Restart bool
}

// Empty says that nothing differs.
func (c Changes) Empty() bool {
	return len(c.Added)+len(c.Removed)+len(c.Changed)+len(c.Settings) == 0
}

// Diff compares what two configurations mean, with defaults filled in: to
// write a default down is no change. A nil old has no processes.
func Diff(old, new *Config) Changes {
	var before, after map[string]api.Definition
	var was, is api.Settings
	if old != nil {
		before, was = old.Definitions, old.Settings
	}
	if new != nil {
		after, is = new.Definitions, new.Settings
	}
	c := DiffDefinitions(before, after)
	for _, key := range differing(reflect.ValueOf(plainSettings(was)), reflect.ValueOf(plainSettings(is))) {
		c.Settings = append(c.Settings, "settings."+key)
	}
	return c
}

// plainSettings fills in what does not depend on the definitions.
func plainSettings(s api.Settings) api.Settings {
	timeout := s.ShutdownTimeout
	s = definition.FillSettings(s, nil)
	s.ShutdownTimeout = timeout
	return s
}

// DiffDefinitions is Diff for definitions alone.
func DiffDefinitions(old, new map[string]api.Definition) Changes {
	var c Changes
	before, after := definition.FillAll(old), definition.FillAll(new)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		was, ok := before[name]
		if !ok {
			c.Added = append(c.Added, name)
			continue
		}
		is := after[name]
		keys := slices.DeleteFunc(differing(reflect.ValueOf(was), reflect.ValueOf(is)), func(k string) bool { return k == "env" })
		keys = append(keys, differingEnv(was.Env, is.Env)...)
		if len(keys) == 0 {
			c.Unchanged = append(c.Unchanged, name)
			continue
		}
		c.Changed = append(c.Changed, Change{Name: name, Keys: keys, Restart: definition.NeedsRestart(was, is)})
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[name]; !ok {
			c.Removed = append(c.Removed, name)
		}
	}
	return c
}

// differing returns the keys of two structs of one type that differ, in the
// order of the type. What has the same JSON is the same: nil and empty.
func differing(a, b reflect.Value) []string {
	var keys []string
	for i := range a.NumField() {
		key, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
		if reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			continue
		}
		x, errX := json.Marshal(a.Field(i).Interface())
		y, errY := json.Marshal(b.Field(i).Interface())
		if errX == nil && errY == nil && (string(x) == string(y) || blank(x) && blank(y)) {
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

func blank(j []byte) bool { return string(j) == "null" || string(j) == "{}" }

func differingEnv(a, b map[string]string) []string {
	var keys []string
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			keys = append(keys, "env."+key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			keys = append(keys, "env."+key)
		}
	}
	slices.Sort(keys)
	return keys
}
