package server

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/perdure/perdure/api"
)

// Doctor implements httpapi.Backend: what is well, what is not, and what this
// system cannot do.
func (s *Server) Doctor(ctx context.Context) ([]api.Finding, error) {
	var out []api.Finding
	ok := func(format string, args ...any) { out = append(out, finding("ok", "", format, args...)) }
	bad := func(hint, format string, args ...any) { out = append(out, finding("error", hint, format, args...)) }
	ok("the server runs (pid %d)", os.Getpid())
	if image, err := os.Readlink("/proc/self/exe"); err == nil && strings.HasSuffix(image, " (deleted)") {
		out = append(out, finding("warning", "run `perdure upgrade` to change to it; no process notices",
			"the program %s was replaced since the server (version %s) was started", strings.TrimSuffix(image, " (deleted)"), s.o.Version))
	}
	sup, err := s.att.get()
	if err != nil {
		bad("see supervisor.log in "+s.o.StateDir, "%v", err)
		return out, nil
	}
	info, err := sup.Info(ctx)
	if err != nil {
		bad("see supervisor.log in "+s.o.StateDir, "the supervisor does not answer: %v", err)
		return out, nil
	}
	ok("the supervisor runs (pid %d, since %s)", info.PID, info.StartedAt.Local().Format("2006-01-02 15:04:05"))
	if info.Build != s.o.Version {
		out = append(out, finding("warning", "run `perdure upgrade` to bring both to one version; no process notices",
			"the supervisor is of version %s, the server of %s", info.Build, s.o.Version))
	}
	if len(info.Notes) == 0 {
		ok("this system can do all that Perdure asks of it: cgroups, pidfds, exit codes for those who are not the parent")
	}
	if held, refused := s.held.counts(); refused > 0 {
		out = append(out, finding("warning", "raise the hard limit of open files (ulimit -Hn) before `perdure up`",
			"%d processes are not held: if one ends while no supervisor lives, its exit code and its last output may be lost", refused))
	} else if held > 0 {
		ok("the exit codes and the output of %d processes are held for the next supervisor, should this one die", held)
	}
	for _, n := range info.Notes {
		out = append(out, finding("warning", "", "%s", n))
	}
	for _, d := range info.Damage {
		out = append(out, finding("warning", "look at the disk; what can be read is in force", "the journal was damaged when this supervisor opened it: %s", d))
	}
	out = append(out, movedAside(s.o.StateDir)...)
	out = append(out, surroundings(s.o.StateDir, len(s.table.names()))...)
	cursor, err := s.events.Cursor(ctx, s.source())
	switch {
	case err != nil:
		bad("", "the event log cannot be read: %v", err)
	default:
		first, last := s.events.Bounds()
		ok("the event log holds %d events (%d to %d)", last-first+1, first, last)
		if info.LastSeq > cursor+1000 {
			out = append(out, finding("warning", "see server.log", "the event log is %d journal entries behind", info.LastSeq-cursor))
		}
	}
	for _, t := range s.withDatabase(info.Troubles) {
		bad(t.Hint, "%s, since %s", t.Text(), t.Since.Local().Format("2006-01-02 15:04:05"))
	}
	for _, name := range s.table.names() {
		rec, _, err := s.table.get(name)
		if err == nil && rec.State.State == api.StateFailed {
			out = append(out, finding("warning", "perdure status "+name, "%s has failed: %s", name, because(rec.State)))
		}
	}
	return out, nil
}

func finding(level, hint, format string, args ...any) api.Finding {
	return api.Finding{Level: level, Message: fmt.Sprintf(format, args...), Hint: hint}
}
