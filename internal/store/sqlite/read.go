package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
)

// Cursor returns the stored cursor of a source, 0 when there is none.
func (s *Store) Cursor(ctx context.Context, source string) (uint64, error) {
	var cursor uint64
	err := s.read.QueryRowContext(ctx, `SELECT coalesce((SELECT cursor FROM source WHERE name = ?), 0)`, source).Scan(&cursor)
	return cursor, s.explain("read the event log", err)
}

// Bounds returns the places of the oldest and the newest event.
func (s *Store) Bounds(ctx context.Context) (first, last uint64, err error) {
	// Two subqueries: SQLite uses the index only for a lone min or max.
	err = s.read.QueryRowContext(ctx, `SELECT coalesce((SELECT min(seq) FROM event), 0), coalesce((SELECT max(seq) FROM event), 0)`).Scan(&first, &last)
	return first, last, s.explain("read the event log", err)
}

// Types returns the types that exist, by one step in the index per type.
func (s *Store) Types(ctx context.Context) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, `WITH RECURSIVE t(x) AS (
		SELECT min(type) FROM event
		UNION ALL SELECT (SELECT min(type) FROM event WHERE type > t.x) FROM t WHERE t.x IS NOT NULL)
		SELECT x FROM t WHERE x IS NOT NULL`)
	if err != nil {
		return nil, s.explain("read the event log", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, s.explain("read the event log", err)
		}
		out = append(out, t)
	}
	return out, s.explain("read the event log", rows.Err())
}

// Select returns events in the order of Seq.
func (s *Store) Select(ctx context.Context, sel event.Selection) ([]api.Event, error) {
	text, args := selectText(sel)
	rows, err := s.read.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, s.explain("read the event log", err)
	}
	defer rows.Close()
	var out []api.Event
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return nil, s.explain("read the event log", err)
		}
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain("read the event log", err)
	}
	if sel.Newest {
		slices.Reverse(out)
	}
	return out, nil
}

func scanEvent(rows *sql.Rows) (api.Event, error) {
	var e api.Event
	var nanos int64
	var data []byte
	err := rows.Scan(&e.Seq, &nanos, &e.Type, &e.ProcessID, &e.Name, &e.Generation, &data)
	e.Time, e.Data = time.Unix(0, nanos).UTC(), data
	return e, err
}

// selectText writes the statement. Which index serves is said, not left to the
// planner, because it has no statistics: one type at a time by the index on the
// type, each part in order and bounded, so that the cost does not grow with the log.
func selectText(sel event.Selection) (string, []any) {
	order := ` ORDER BY seq LIMIT ?`
	if sel.Newest {
		order = ` ORDER BY seq DESC LIMIT ?`
	}
	switch {
	case sel.Name != "":
		where, args := condition(sel)
		where += ` AND name = ? AND name <> ''`
		args = append(args, sel.Name)
		if len(sel.Types) > 0 {
			where += ` AND type IN (?` + strings.Repeat(`, ?`, len(sel.Types)-1) + `)`
			for _, t := range sel.Types {
				args = append(args, t)
			}
		}
		return `SELECT ` + columns + ` FROM event INDEXED BY event_name` + where + order, append(args, sel.Limit)
	case len(sel.Types) == 0:
		where, args := condition(sel)
		return `SELECT ` + columns + ` FROM event NOT INDEXED` + where + order, append(args, sel.Limit)
	}
	var b strings.Builder
	var all []any
	for i, t := range sel.Types {
		where, args := condition(sel)
		if i > 0 {
			b.WriteString(` UNION ALL `)
		}
		b.WriteString(`SELECT * FROM (SELECT ` + columns + ` FROM event INDEXED BY event_type` + where + ` AND type = ?` + order + `)`)
		all = append(append(all, args...), t, sel.Limit)
	}
	if len(sel.Types) > 1 {
		b.WriteString(order)
		all = append(all, sel.Limit)
	}
	return b.String(), all
}

func condition(sel event.Selection) (string, []any) {
	where, args := ` WHERE seq > ? AND seq <= ?`, []any{int64(sel.After), int64(sel.Through)}
	if !sel.Since.IsZero() {
		where, args = where+` AND time >= ?`, append(args, sel.Since.UnixNano())
	}
	return where, args
}
