package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
)

// EnvChange is what a Watcher tells.
type EnvChange struct {
	// Names are the processes whose variables are different now, sorted. What
	// becomes of one that is not active is the supervisor's business: it is
	// never started by this (N10).
	Names []string
	// Definitions are their new definitions.
	Definitions map[string]api.Definition
	// Restart holds the names that are to be restarted when they are active:
	// env_reload.mode is restart, and one of only_restart_if_changed differs.
	Restart []string
	// Findings say which files are missing or wrong. The processes that they
	// belong to keep the values that they had (M3).
	Findings []api.Finding
}

// Watcher watches the env files of a Config. It survives files that are
// replaced by a rename, and sees files that appear later, because it watches
// their directories. It has one goroutine; Close waits for its end.
type Watcher struct {
	notify *fsnotify.Watcher
	tell   func(EnvChange)
	done   chan struct{}
	wg     sync.WaitGroup
	once   sync.Once

	// The rest belongs to the goroutine.
	conf  *Config
	now   map[string]api.Definition
	users map[string][]string // env file -> names
	due   map[string]time.Time
}

// NewWatcher starts to watch the env files of c. tell is called from the
// watcher's goroutine, once for all processes whose files have been quiet for
// their debounce; it must not call Close. Processes with env_reload.mode off
// are not watched. Only the directories that exist are watched: a file in a
// directory that is made later is not seen, and is an error here when the file
// is not optional.
func NewWatcher(c *Config, tell func(EnvChange)) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch env files: %w", err)
	}
	w := &Watcher{notify: notify, tell: tell, done: make(chan struct{}), conf: c, now: maps.Clone(c.Definitions),
		users: map[string][]string{}, due: map[string]time.Time{}}
	if err := w.watch(); err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	// What changed between Load and now raises no event: look once at the start.
	now := time.Now()
	for _, names := range w.users {
		for _, name := range names {
			w.due[name] = now
		}
	}
	w.wg.Go(w.run)
	return w, nil
}

// Close ends the watch and waits until no call of tell is under way.
func (w *Watcher) Close() error {
	var err error
	w.once.Do(func() {
		close(w.done)
		w.wg.Wait()
		err = w.notify.Close()
	})
	w.wg.Wait()
	return err
}

func (w *Watcher) watch() error {
	dirs := map[string]bool{}
	for name, d := range w.conf.written {
		if d.EnvReload.Mode == "off" {
			continue
		}
		for _, file := range slices.Concat(w.conf.envFile, d.EnvFile) {
			path, optional := strings.CutPrefix(file, "?")
			if !slices.Contains(w.users[path], name) {
				w.users[path] = append(w.users[path], name)
			}
			dir := filepath.Dir(path)
			if dirs[dir] {
				continue
			}
			dirs[dir] = true
			if err := w.notify.Add(dir); err != nil && !optional {
				return fmt.Errorf("cannot watch %s for changes of env files: %w", dir, err)
			}
		}
	}
	return nil
}

func (w *Watcher) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(w.next())
		select {
		case <-w.done:
			return
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			w.touched(filepath.Clean(e.Name), e.Op)
		case err, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			w.lost(err)
		case <-timer.C:
			w.reload(time.Now())
		}
	}
}

// next is the time until the first process is due.
func (w *Watcher) next() time.Duration {
	wait := time.Hour
	for _, at := range w.due {
		wait = min(wait, time.Until(at))
	}
	return max(0, wait)
}

// touched puts off the processes that use a file until it is quiet.
func (w *Watcher) touched(path string, op fsnotify.Op) {
	if op == fsnotify.Chmod {
		return
	}
	now := time.Now()
	for _, name := range w.users[path] {
		w.due[name] = now.Add(w.debounce(name))
	}
}

// lost looks at all files after events were lost.
func (w *Watcher) lost(err error) {
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		w.tell(EnvChange{Findings: []api.Finding{{Level: "warning", Message: "cannot watch the env files: " + err.Error(),
			Hint: "reload by hand after a change"}}})
	}
	for path := range w.users {
		w.touched(path, fsnotify.Write)
	}
}

func (w *Watcher) debounce(name string) time.Duration {
	if d := w.conf.written[name].EnvReload.Debounce; d > 0 {
		return d.D()
	}
	return definition.Fill(api.Definition{}).EnvReload.Debounce.D()
}

// reload looks at the processes that are due and tells what is different.
func (w *Watcher) reload(now time.Time) {
	var names []string
	for name, at := range w.due {
		if !at.After(now) {
			names = append(names, name)
			delete(w.due, name)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	change := EnvChange{Definitions: map[string]api.Definition{}}
	files := newEnvFiles()
	for _, name := range names {
		d, found := w.conf.resolveOne(files, name)
		for _, f := range found {
			if !slices.Contains(change.Findings, f) {
				change.Findings = append(change.Findings, f)
			}
		}
		if HasErrors(found) {
			continue
		}
		was := w.now[name]
		if maps.Equal(was.Env, d.Env) {
			continue
		}
		w.now[name] = d
		change.Names = append(change.Names, name)
		change.Definitions[name] = d
		if concerns(d.EnvReload.OnlyRestartIfChanged, was.Env, d.Env) {
			change.Restart = append(change.Restart, name)
		}
	}
	if len(change.Names)+len(change.Findings) > 0 {
		w.tell(change)
	}
}

// concerns says whether the effective value of one of keys differs; no keys
// mean all of them.
func concerns(keys []string, was, is map[string]string) bool {
	if len(keys) == 0 {
		return true
	}
	return slices.ContainsFunc(keys, func(key string) bool {
		a, hadA := was[key]
		b, hasB := is[key]
		return a != b || hadA != hasB
	})
}
