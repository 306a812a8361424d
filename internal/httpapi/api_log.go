package httpapi

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/perdure/perdure/api"
)

// headerWait is how long the header of a log waits for the first line, so that
// an error at once still gets its status.
const headerWait = 200 * time.Millisecond

// LogSelection is what the routes of logs have in common.
type LogSelection struct {
	Stream string `query:"stream" enum:"stdout,stderr" doc:"Select one stream; default both"`
	Lines  int    `query:"lines" minimum:"-1" default:"100" doc:"Lines to begin with, per process, counted from the end; -1 means all"`
	Since  string `query:"since" doc:"Select lines at or after a time (RFC 3339), or of the last span (10m)"`
	Cursor string `query:"cursor" doc:"Continue after a line of an earlier answer (one process only)"`
	Follow bool   `query:"follow" doc:"Go on with new lines"`
	Accept string `header:"Accept" hidden:"true"`
}

func (in *LogSelection) query(names []string) (api.LogQuery, error) {
	since, err := parseSince(in.Since, time.Now())
	return api.LogQuery{Names: names, Stream: in.Stream, Lines: in.Lines, Since: since, Cursor: in.Cursor, Follow: in.Follow}, err
}

type processLogsInput struct {
	Named
	LogSelection
}

func (s *server) processLogs(ctx context.Context, in *processLogsInput) (*huma.StreamResponse, error) {
	return s.logStream(ctx, []string{in.Name}, &in.LogSelection)
}

type logsInput struct {
	Names []string `query:"name,explode" doc:"Names or globs; none means all"`
	LogSelection
}

func (s *server) logs(ctx context.Context, in *logsInput) (*huma.StreamResponse, error) {
	return s.logStream(ctx, in.Names, &in.LogSelection)
}

func (s *server) logStream(_ context.Context, names []string, in *LogSelection) (*huma.StreamResponse, error) {
	q, err := in.query(names)
	if err != nil {
		return nil, err
	}
	text := strings.HasPrefix(in.Accept, "text/plain")
	return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the request's own
		r, w := humago.Unwrap(hc)
		streamLogs(r.Context(), w, func(ctx context.Context) iter.Seq2[api.LogLine, error] { return s.backend.Logs(ctx, q) }, text)
	}}, nil
}

// streamLogs sends lines as NDJSON, or as they were written when text is set.
// An error before the first line has its status; a later one is a last line of
// NDJSON with the field "error".
func streamLogs(ctx context.Context, w http.ResponseWriter, lines func(context.Context) iter.Seq2[api.LogLine, error], text bool) {
	begun := false
	st := &stream[api.LogLine]{w: w, every: headerWait}
	st.begin = func() {
		begun = true
		w.Header().Set("Content-Type", "application/x-ndjson")
		if text {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
	}
	refused := false
	st.encode = func(buf []byte, it item[api.LogLine]) ([]byte, bool) {
		switch {
		case it.err != nil && !begun && len(buf) == 0:
			st.begin, refused = nil, true
			e := publicError(it.err)
			writeError(w, status(e.Code), e)
			return buf, true
		case it.err != nil && text:
			return append(append(append(buf, "perdure: "...), publicError(it.err).Error()...), '\n'), true
		case it.err != nil:
			return appendJSON(buf, map[string]any{"error": publicError(it.err)}), true
		case text:
			return append(append(buf, it.value.Text...), '\n'), false
		}
		return appendJSON(buf, it.value), false
	}
	st.run(ctx, lines)
	if !begun && !refused {
		st.begin()
	}
}

// appendJSON writes a value and the end of the line.
func appendJSON(buf []byte, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		data = []byte(`{"error":{"code":"internal","message":"cannot write the line as JSON"}}`)
	}
	return append(append(buf, data...), '\n')
}
