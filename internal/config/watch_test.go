package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// watched is a directory with env files, a configuration over them and what
// the watcher told. patience is only reached when the watcher is broken.
type watched struct {
	t    *testing.T
	dir  string
	told chan EnvChange
}

const patience = 20 * time.Second

func watch(t *testing.T, yaml string, files map[string]string) watched {
	t.Helper()
	w := watched{t: t, dir: t.TempDir(), told: make(chan EnvChange, 16)}
	for name, text := range files {
		w.write(name, text)
	}
	w.write("perdure.yaml", yaml)
	c, list, err := Load([]string{filepath.Join(w.dir, "perdure.yaml")}, LoadOptions{})
	if err != nil || c == nil {
		t.Fatal(err, lines(list))
	}
	watcher, err := NewWatcher(c, func(e EnvChange) { w.told <- e })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := watcher.Close(); err != nil {
			t.Error(err)
		}
		if err := watcher.Close(); err != nil {
			t.Error("second close:", err)
		}
	})
	return w
}

func (w watched) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w watched) replace(name, text string) {
	w.t.Helper()
	w.write(name+".tmp", text)
	if err := os.Rename(filepath.Join(w.dir, name+".tmp"), filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w watched) next() EnvChange {
	w.t.Helper()
	select {
	case e := <-w.told:
		return e
	case <-time.After(patience):
		w.t.Fatal("nothing was told")
		return EnvChange{}
	}
}

const watchYAML = `
env_file: ["?all.env"]
processes:
  a: {command: [x], env_file: a.env, env_reload: {debounce: 1ms}}
  b: {command: [x], env_file: "?b.env", env_reload: {debounce: 1ms, only_restart_if_changed: [KEY]}}
  off: {command: [x], env_file: a.env, env_reload: {mode: "off"}}
`

// TestWatcherFollowsFiles goes through an atomic replace (twice, as the watch
// must survive it), a file that appears later, one that breaks and one that goes.
func TestWatcherFollowsFiles(t *testing.T) {
	t.Parallel()
	w := watch(t, watchYAML, map[string]string{"a.env": "V=1\n"})
	for _, value := range []string{"2", "3"} {
		w.replace("a.env", "V="+value+"\n")
		e := w.next()
		if diff := cmp.Diff([]string{"a"}, e.Names); diff != "" {
			t.Fatal(diff)
		}
		if e.Definitions["a"].Env["V"] != value || len(e.Restart) != 1 {
			t.Fatalf("told %+v, want V=%s and a restart", e, value)
		}
	}

	w.replace("b.env", "OTHER=1\n")
	if e := w.next(); !cmp.Equal(e.Names, []string{"b"}) || len(e.Restart) != 0 || e.Definitions["b"].Env["OTHER"] != "1" {
		t.Fatalf("told %+v, want b changed without a restart", e)
	}
	w.replace("b.env", "OTHER=1\nKEY=2\n")
	if e := w.next(); !cmp.Equal(e.Restart, []string{"b"}) {
		t.Fatalf("told %+v, want b restarted", e)
	}

	w.replace("a.env", "this is no pair !\n")
	if e := w.next(); len(e.Names) != 0 || len(e.Findings) != 1 || e.Findings[0].Line != 1 {
		t.Fatalf("told %+v, want a finding and old values kept (M3)", e)
	}
	// The values before the broken file are still the ones to compare with.
	w.replace("a.env", "V=3\n")
	w.replace("all.env", "ALL=1\n")
	for seen := map[string]bool{}; !seen["a"] || !seen["b"]; {
		e := w.next()
		for _, name := range e.Names {
			seen[name] = true
			if name == "off" || e.Definitions[name].Env["ALL"] != "1" {
				t.Fatalf("told %+v", e)
			}
		}
	}
	if err := os.Remove(filepath.Join(w.dir, "b.env")); err != nil {
		t.Fatal(err)
	}
	if e := w.next(); !cmp.Equal(e.Names, []string{"b"}) || e.Definitions["b"].Env["KEY"] != "" {
		t.Fatalf("told %+v, want b without the variables of the file that is gone", e)
	}
}

// TestWatcherSeesWhatChangedBeforeIt holds that a change between Load and
// NewWatcher is not lost.
func TestWatcherSeesWhatChangedBeforeIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env, file := filepath.Join(dir, "a.env"), filepath.Join(dir, "perdure.yaml")
	for path, text := range map[string]string{env: "V=1\n", file: "processes: {a: {command: [x], env_file: a.env}}\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, list, err := Load([]string{file}, LoadOptions{})
	if err != nil || c == nil {
		t.Fatal(err, lines(list))
	}
	if err := os.WriteFile(env, []byte("V=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan EnvChange, 4)
	w, err := NewWatcher(c, func(e EnvChange) { told <- e })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	select {
	case e := <-told:
		if e.Definitions["a"].Env["V"] != "2" {
			t.Errorf("told %+v", e)
		}
	case <-time.After(patience):
		t.Error("nothing was told")
	}
}
