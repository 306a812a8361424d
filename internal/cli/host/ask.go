package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// askTime bounds the answer of a program.
const askTime = 10 * time.Second

// Ask runs a program to its end and returns what it has written to standard
// output. When it fails, the error holds what it has written to standard error.
func Ask(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ctx.Err() == nil {
		return nil, fmt.Errorf("%s cannot take over: %s", argv[0], strings.TrimSpace(errOut.String()))
	}
	return out, err
}
