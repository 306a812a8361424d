package probe

import (
	"context"
	"fmt"
	"strings"
)

type execAsker struct {
	argv []string
	exec Exec
}

// ask takes exit code 0 for yes and everything else for no, death by a signal
// included.
func (e execAsker) ask(ctx context.Context) (Answer, string) {
	code, output, err := e.exec(ctx, e.argv)
	switch {
	case calledOff(ctx):
		return Unknown, "the ask was called off"
	case ctx.Err() != nil:
		return No, "the command did not end in time"
	case err != nil:
		return Unknown, fmt.Sprintf("cannot run the command: %v", err)
	case code == 0:
		return Yes, ""
	}
	detail := fmt.Sprintf("exit code %d", code)
	if text := firstLine(output); text != "" {
		detail += ": " + text
	}
	return No, detail
}

// maxDetail bounds what of a process's own words goes into a detail, in bytes.
const maxDetail = 200

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD")
}
