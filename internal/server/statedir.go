package server

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/flock"
)

// stateName is the state directory's name beside a file.
const stateName = ".perdure"

// StateDir returns the state directory: flag if it is set, else .perdure beside
// the first file, else .perdure in dir. It does not create it.
func StateDir(files []string, dir, flag string) (string, error) {
	switch {
	case flag != "":
		return filepath.Abs(flag)
	case len(files) > 0:
		abs, err := filepath.Abs(files[0])
		if err != nil {
			return "", err
		}
		return filepath.Join(filepath.Dir(abs), stateName), nil
	default:
		return filepath.Abs(filepath.Join(dir, stateName))
	}
}

// SocketPath is where the server of a state directory answers.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "api.sock") }

// LogPath is where a detached server writes what concerns itself.
func LogPath(stateDir string) string { return filepath.Join(stateDir, "server.log") }

// prepare makes the state directory private, and refuses one that is not ours.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the state directory: %w", err)
	}
	fault.Here("server.statedir.made")
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cannot read the state directory: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("cannot use %s as the state directory: it is not a directory", dir)
	}
	if err := ours(dir, fi); err != nil {
		return err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("cannot make the state directory private: %w", err)
		}
	}
	// It holds sockets, secrets and logs: never to be committed with a project.
	ignore := filepath.Join(dir, ".gitignore")
	if _, err := os.Lstat(ignore); err != nil {
		return os.WriteFile(ignore, []byte("*\n"), 0o600)
	}
	return nil
}

// Running tells which parts of a state directory are alive, by their locks.
// A pid of 0 means: not running.
func Running(stateDir string) (serverPID, supervisorPID int) {
	serverPID, _ = flock.Held(filepath.Join(stateDir, "lock"))
	supervisorPID, _ = flock.Held(filepath.Join(stateDir, "supervisor.lock"))
	return serverPID, supervisorPID
}
