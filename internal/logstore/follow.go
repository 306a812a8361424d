package logstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// follower waits for changes in directories of logs, which need not exist yet.
// One serves many readers.
type follower struct {
	w    *fsnotify.Watcher
	root string
	dirs map[string]bool // true: watched
	over []string        // what is watched above directories that do not exist

	// After a change the readers look again a few times: Linux before 6.4 tells
	// of the index entry, and not of the bytes that are spliced after it.
	recent map[string]bool
	again  int
	timer  *time.Timer
}

// recheck are the times after a change at which to look again.
func recheck(i int) time.Duration {
	steps := [...]time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, time.Second}
	if i < len(steps) {
		return steps[i]
	}
	return 0
}

func newFollower(root string, dirs []string) (*follower, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot follow logs (is fs.inotify.max_user_instances reached?): %w", err)
	}
	f := &follower{w: w, root: filepath.Clean(root), dirs: map[string]bool{}, recent: map[string]bool{}, timer: time.NewTimer(time.Hour)}
	f.timer.Stop()
	for _, d := range dirs {
		f.dirs[d] = false
	}
	if err := f.watch(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *follower) close() error {
	f.timer.Stop()
	return f.w.Close()
}

// watch watches each directory that exists, and for the others the nearest one
// above that does.
func (f *follower) watch() error {
	missing := false
	for d, on := range f.dirs {
		if on {
			continue
		}
		switch err := f.w.Add(d); {
		case err == nil:
			f.dirs[d] = true
			f.recent[d] = true
		case errors.Is(err, fs.ErrNotExist):
			missing = true
		default:
			return fmt.Errorf("cannot follow the logs in %s: %w", d, err)
		}
	}
	if !missing {
		for _, d := range f.over {
			_ = f.w.Remove(d) // gone already, or not needed: either is well
		}
		f.over = nil
		return nil
	}
	return f.watchAbove()
}

// watchAbove watches from the root upwards until something exists, and looks
// once more for what came meanwhile.
func (f *follower) watchAbove() error {
	for d := f.root; ; d = filepath.Dir(d) {
		err := f.w.Add(d)
		if errors.Is(err, fs.ErrNotExist) && d != filepath.Dir(d) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot follow the logs in %s: %w", d, err)
		}
		for _, o := range f.over {
			if o == d {
				return nil // was watched before: an event will tell
			}
		}
		f.over = append(f.over, d)
		return f.watch()
	}
}

// wait returns the directories in which something may have changed; true says
// that files were made or removed. Without block it returns what is known now.
func (f *follower) wait(ctx context.Context, block bool) (map[string]bool, error) {
	changed := map[string]bool{}
	if !block {
		return changed, f.collect(changed)
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case e, ok := <-f.w.Events:
		if err := f.take(e, ok, changed); err != nil {
			return nil, err
		}
	case err, ok := <-f.w.Errors:
		if err := f.failed(err, ok, changed); err != nil {
			return nil, err
		}
	case <-f.timer.C:
		f.again++
		for d, made := range f.recent {
			changed[d] = made
		}
		if d := recheck(f.again); d > 0 {
			f.timer.Reset(d)
		} else {
			clear(f.recent)
		}
		return changed, nil
	}
	return changed, f.collect(changed)
}

// collect takes what else is there by now, and arms the looks that follow.
func (f *follower) collect(changed map[string]bool) error {
	for {
		select {
		case e, ok := <-f.w.Events:
			if err := f.take(e, ok, changed); err != nil {
				return err
			}
			continue
		default:
		}
		break
	}
	if len(changed) == 0 {
		return nil
	}
	for d, made := range changed {
		f.recent[d] = f.recent[d] || made
	}
	f.again = 0
	f.timer.Reset(recheck(0))
	return nil
}

func (f *follower) take(e fsnotify.Event, ok bool, changed map[string]bool) error {
	if !ok {
		return errors.New("cannot follow the logs any more: the watch was closed")
	}
	made := e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0
	name := filepath.Clean(e.Name)
	if _, own := f.dirs[name]; own && e.Op&(fsnotify.Remove|fsnotify.Rename) != 0 {
		// The directory itself went; it may come back.
		_ = f.w.Remove(name) // the system has dropped it already, or it is another one now
		f.dirs[name] = false
		changed[name] = true
	}
	if d := filepath.Dir(name); f.dirs[d] {
		changed[d] = changed[d] || made
	}
	if !made {
		return nil
	}
	before := len(f.recent)
	err := f.watch()
	if len(f.recent) != before {
		for d := range f.recent {
			changed[d] = true
		}
	}
	return err
}

// failed takes an error of the watch. One that only says that events were lost
// means to look everywhere.
func (f *follower) failed(err error, ok bool, changed map[string]bool) error {
	if !ok {
		return errors.New("cannot follow the logs any more: the watch was closed")
	}
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		return fmt.Errorf("cannot follow the logs any more: %w", err)
	}
	for d := range f.dirs {
		changed[d] = true
	}
	return f.watch()
}
