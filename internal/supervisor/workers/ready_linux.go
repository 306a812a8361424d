package workers

import (
	"os"

	"github.com/perdure/perdure/internal/session"
)

func readyEnd(path string) (*os.File, error) { return session.ReadyEnd(path) }
