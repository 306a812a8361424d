package server

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/store/sqlite"
	"github.com/perdure/perdure/internal/supervisor"
)

// databaseFails notes that the event log cannot be written, if that is new.
func (s *Server) databaseFails(err error) {
	if s.trouble.Load() != nil {
		return
	}
	cause := sqlite.Cause(err)
	t := api.Trouble{Kind: api.TroubleDatabase, Since: time.Now().UTC(), Cause: cause, Error: err.Error(),
		Effect: "processes are kept alive, and the journal keeps the events until it can", Hint: supervisor.Hint(cause, s.o.StateDir)}
	s.trouble.Store(&t)
	if sqlite.Damaged(err) {
		defer s.replaceDatabase()
	}
	s.o.Logger.Error("Cannot write the event log; the journal keeps the events", "error", err)
}

// databaseWorks notes that the event log can be written, and puts into it what
// it could not take.
func (s *Server) databaseWorks(ctx context.Context) {
	t := s.trouble.Swap(nil)
	if t == nil {
		if err := s.sayAll(ctx); err != nil {
			s.o.Logger.Error("Cannot write events yet", "error", err)
		}
		return
	}
	took := time.Since(t.Since)
	s.o.Logger.Info("The event log can be written again", "after", took)
	failed := newEvent("storage.failed", map[string]any{"kind": t.Kind, "cause": t.Cause, "error": t.Error, "effect": t.Effect})
	failed.Time = t.Since
	recovered := newEvent("storage.recovered", map[string]any{"kind": t.Kind, "for_ms": took.Milliseconds()})
	if err := s.sayAll(ctx, failed, recovered); err != nil {
		s.o.Logger.Error("Cannot write yet that the event log could not be written", "error", err)
	}
}

// maxUnsaid bounds the events of the server's own that wait; the oldest go.
const maxUnsaid = 100

// sayAll appends events of the server's own behind those that wait. What cannot be
// written waits until something is written again.
func (s *Server) sayAll(ctx context.Context, events ...api.Event) error {
	s.saying.Lock()
	defer s.saying.Unlock()
	all := append(s.unsaid, events...)
	if len(all) == 0 {
		return nil
	}
	_, err := s.events.Append(ctx, all...)
	s.unsaid = nil
	// After the end of ctx they may be written nevertheless.
	if err != nil && ctx.Err() == nil && api.CodeOf(err) != api.CodeInvalid {
		s.unsaid = all[max(0, len(all)-maxUnsaid):]
	}
	return err
}

// askTime bounds a question to the supervisor that is no more than a courtesy.
const askTime = time.Second

// troubles are what cannot be written now, the gravest first.
func (s *Server) troubles(ctx context.Context) []api.Trouble {
	var out []api.Trouble
	if sup, err := s.att.get(); err == nil {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		if info, err := sup.Info(ctx); err == nil {
			out = info.Troubles
		}
	}
	return s.withDatabase(out)
}

// withDatabase adds the trouble with the event log, if there is one.
func (s *Server) withDatabase(list []api.Trouble) []api.Trouble {
	t := s.trouble.Load()
	if t == nil {
		return list
	}
	var out []api.Trouble
	for _, kind := range api.TroubleKinds() {
		if kind == t.Kind {
			out = append(out, *t)
		}
		for _, other := range list {
			if other.Kind == kind {
				out = append(out, other)
			}
		}
	}
	return out
}

// ourProgram is the path of the program that runs now, even where its file was
// replaced since.
func ourProgram() string {
	image := proc.OwnImage()
	path, err := os.Executable()
	if err != nil {
		return image
	}
	now, err := os.Stat(path)
	ours, err2 := os.Stat(image)
	if err != nil || err2 != nil || !os.SameFile(now, ours) {
		return image
	}
	return path
}

// movedAside tells of damaged databases that are kept.
func movedAside(stateDir string) []api.Finding {
	// The pattern is a good one, so this cannot fail.
	found, _ := filepath.Glob(filepath.Join(stateDir, databaseName+".damaged-*Z"))
	var out []api.Finding
	for _, path := range found {
		out = append(out, finding("warning", "keep it if you want to look for lost events in it, else remove it",
			"the event log was damaged, and is kept as %s; the one that is in use began after that", path))
	}
	return out
}

// openStore opens the database, or a new one in the place of a damaged one. The
// journal has what it has not dropped yet, and all of that is read once more.
func (s *Server) openStore(ctx context.Context) (err error) {
	path := filepath.Join(s.o.StateDir, databaseName)
	s.store, err = sqlite.OpenSound(ctx, path, sqlite.Options{Synchronous: synchronous(s.config.sync())}, time.Now(),
		func(old string, why error) api.Event {
			s.o.Logger.Error("The event log was damaged; it was moved aside, and there is a new one", "old", old, "error", why)
			return newEvent("server.database_replaced", map[string]any{"old": old, "error": why.Error()})
		})
	return err
}

// replaceDatabase has the server go on as the same program anew, whose database
// is another one. A server that is part of another program waits for its next start.
func (s *Server) replaceDatabase() {
	err := sqlite.MarkDamaged(filepath.Join(s.o.StateDir, databaseName))
	if program := ourProgram(); err == nil && s.ready.Load() && s.upgradable(api.UpgradeRequest{Binary: program}) == nil {
		err = s.move.to(program)
	}
	if err != nil {
		s.o.Logger.Error("Cannot replace the damaged event log now", "error", err)
	}
}
