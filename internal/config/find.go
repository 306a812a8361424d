package config

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/perdure/perdure/api"
)

// Find returns the nearest configuration file: perdure.yaml, perdure.yml or
// Procfile, in this order, in dir or the nearest directory above it. dir ""
// means the working directory. When there is none, the error has the code
// not_found.
func Find(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("cannot find the place of %s: %w", dir, err)
	}
	for at := start; ; {
		for _, name := range []string{"perdure.yaml", "perdure.yml", "Procfile"} {
			path := filepath.Join(at, name)
			if st, err := os.Stat(path); err == nil && !st.IsDir() {
				return path, nil
			}
		}
		up := filepath.Dir(at)
		if up == at {
			return "", api.Errorf(api.CodeNotFound,
				"cannot find perdure.yaml or a Procfile in %s or above it; write one, or name it with -f", start)
		}
		at = up
	}
}
