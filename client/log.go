package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/perdure/perdure/api"
)

// Logs yields log lines and, with q.Follow, goes on with new ones until ctx
// ends, which ends it without an error. Any error is the last thing it yields.
// A lost server is CodeUnavailable; continue with the cursor of the last line.
func (c *Client) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.LogLine, error] {
	return func(yield func(api.LogLine, error) bool) {
		err := c.logs(ctx, q, yield)
		if err != nil && ctx.Err() == nil {
			yield(api.LogLine{}, err)
		}
	}
}

// logs returns nil when the stream or the consumer's wish has ended.
func (c *Client) logs(ctx context.Context, q api.LogQuery, yield func(api.LogLine, error) bool) error {
	resp, err := c.open(ctx, http.MethodGet, "/v1/logs", logValues(q), nil, http.Header{"Accept": {"application/x-ndjson"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	var buf []byte
	for {
		data, err := readLine(r, &buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.lost(ctx, err)
		}
		if len(data) == 0 {
			continue
		}
		var line struct {
			api.LogLine
			Error *api.Error `json:"error"`
		}
		if err := json.Unmarshal(data, &line); err != nil {
			return api.Errorf(api.CodeInternal, "cannot read the log stream of %s: %v", c.where, err)
		}
		if line.Error != nil {
			return line.Error
		}
		if !yield(line.LogLine, nil) {
			return nil
		}
	}
}

func logValues(q api.LogQuery) url.Values {
	v := url.Values{"name": q.Names, "lines": {strconv.Itoa(q.Lines)}}
	setText(v, "stream", q.Stream)
	setText(v, "cursor", q.Cursor)
	if q.Since != nil {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.Follow {
		v.Set("follow", "1")
	}
	return v
}
