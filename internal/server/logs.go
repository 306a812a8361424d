package server

import (
	"context"
	"iter"
	"path/filepath"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/logstore"
)

// Logs implements httpapi.Backend. The files are read as they lie in the state
// directory: the supervisor is not asked.
func (s *Server) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogLine, error] {
	return func(yield func(api.LogLine, error) bool) {
		names, err := match(s.table.names(), q.Names)
		if err == nil && q.Cursor != "" && len(names) != 1 {
			err = &api.Error{Code: api.CodeInvalid, Field: "cursor", Message: "a cursor goes with exactly one process"}
		}
		if err != nil {
			yield(api.LogLine{}, err)
			return
		}
		query := logstore.Query{Stream: q.Stream, Lines: q.Lines, Cursor: q.Cursor, Follow: q.Follow}
		if q.Since != nil {
			query.Since = *q.Since
		}
		dir := filepath.Join(s.o.StateDir, "logs")
		if q.Cursor != "" {
			for l, err := range logstore.Read(ctx, dir, names[0], query) {
				if !yield(logLine(names[0], l), err) || err != nil {
					return
				}
			}
			return
		}
		for l, err := range logstore.Merge(ctx, dir, names, query) {
			if !yield(logLine(l.Name, l.Line), err) || err != nil {
				return
			}
		}
	}
}

func logLine(name string, l logstore.Line) api.LogLine {
	return api.LogLine{Name: name, Time: l.Time, Stream: l.Stream, Text: strings.ToValidUTF8(string(l.Text), "\uFFFD"), Cursor: l.Cursor}
}
