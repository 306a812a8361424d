package postgres

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store"
)

const columns = `seq, time, type, process_id, name, generation, data`

// perTx is how many events one transaction may have: the low bits of a Seq.
const perTx = 1 << 16

// insertEvents appends the events of a transaction and returns the last one's Seq.
func (s *Store) insertEvents(ctx context.Context, pt pgx.Tx, events []api.Event) (uint64, error) {
	if len(events) == 0 {
		return 0, nil
	}
	if len(events) > perTx {
		return 0, api.Errorf(api.CodeInvalid, "cannot append %d events in one transaction, more than %d", len(events), perTx)
	}
	n := len(events)
	times, generations := make([]int64, n), make([]int64, n)
	types, ids, names, data := make([]string, n), make([]string, n), make([]string, n), make([][]byte, n)
	for i, e := range events {
		times[i], types[i], ids[i], names[i], generations[i] = e.Time.UnixNano(), e.Type, e.ProcessID, e.Name, int64(e.Generation)
		if len(e.Data) > 0 {
			data[i] = e.Data
		}
	}
	var last int64
	err := pt.QueryRow(ctx, `WITH made AS (INSERT INTO event (`+columns+`)
		SELECT ((pg_current_xact_id()::text::bigint + $1) << 16) + e.n - 1, e.time, e.type, e.id, e.name, e.generation, e.data
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bytea[])
		WITH ORDINALITY AS e (time, type, id, name, generation, data, n) RETURNING seq)
		SELECT max(seq) FROM made`, s.base, times, types, ids, names, generations, data).Scan(&last)
	if err != nil {
		return 0, err
	}
	for i := range events {
		events[i].Seq = uint64(last) - uint64(n-1-i)
	}
	return uint64(last), nil
}

// Commit appends a batch in a transaction of its own.
func (s *Store) Commit(ctx context.Context, b *event.Batch) error {
	_, err := s.update(ctx, func(t store.Tx) error {
		b.Skipped = false
		if b.Source != "" {
			n, err := t.Exec(ctx, `INSERT INTO source (name, cursor) VALUES ($1, $2)
				ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor WHERE excluded.cursor > source.cursor`, b.Source, int64(b.Cursor))
			if err != nil {
				return err
			}
			if b.Skipped = n == 0; b.Skipped {
				return nil
			}
		}
		t.(*tx).events = b.Events // they get their Seq
		return nil
	})
	return err
}

// Notify has a goroutine hand all events to sink from those on that are not settled
// yet.
func (s *Store) Notify(sink func([]api.Event)) {
	started := make(chan struct{})
	s.work.Go(func() { s.follow(sink, started) })
	<-started
}

// settled is the Seq below which no transaction can add an event any more.
func (s *Store) settled() string {
	return `((pg_snapshot_xmin(pg_current_snapshot())::text::bigint + ` + strconv.FormatInt(s.base, 10) + `) << 16)`
}

// How follow looks again after a wake-up that showed nothing: an older transaction
// somewhere in the cluster holds the new events back, most often for a moment only.
const (
	followBatch = 1000
	soon        = 2 * time.Millisecond
	soonTimes   = 25
)

// follow is the goroutine that hands events to a sink.
func (s *Store) follow(sink func([]api.Event), started chan<- struct{}) {
	at, known, again := int64(0), false, 0
	for {
		var n int
		var err error
		if !known {
			_, last, boundsErr := s.Bounds(s.ctx)
			at, known, err = int64(last), boundsErr == nil, boundsErr
			if started != nil {
				close(started)
				started = nil
			}
		} else if n, err = s.hand(sink, &at); n > 0 {
			again = soonTimes // more may be held back
		}
		wait := s.o.Poll
		switch {
		case err == nil && n == followBatch:
			continue
		case again > 0:
			again, wait = again-1, soon
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.look:
			again = soonTimes
		case <-timer.C:
		case <-s.ctx.Done():
		}
		timer.Stop()
		if s.ctx.Err() != nil {
			return
		}
	}
}

// hand hands one batch to sink.
func (s *Store) hand(sink func([]api.Event), at *int64) (int, error) {
	events, err := s.query(s.ctx, `SELECT `+columns+` FROM event WHERE seq > $1 AND seq < `+s.settled()+` ORDER BY seq LIMIT $2`, *at, followBatch)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	sink(events)
	*at = int64(events[len(events)-1].Seq)
	return len(events), nil
}

func (s *Store) query(ctx context.Context, query string, args ...any) ([]api.Event, error) {
	found, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, s.explain("read", err)
	}
	defer found.Close()
	var out []api.Event
	for found.Next() {
		var e api.Event
		var seq, nanos, generation int64
		var data []byte
		if err := found.Scan(&seq, &nanos, &e.Type, &e.ProcessID, &e.Name, &generation, &data); err != nil {
			return nil, s.explain("read", err)
		}
		e.Seq, e.Generation, e.Time, e.Data = uint64(seq), uint64(generation), time.Unix(0, nanos).UTC(), data
		out = append(out, e)
	}
	return out, s.explain("read", found.Err())
}

// Cursor returns the stored cursor of a source, 0 when there is none.
func (s *Store) Cursor(ctx context.Context, source string) (uint64, error) {
	var cursor int64
	err := s.pool.QueryRow(ctx, `SELECT coalesce((SELECT cursor FROM source WHERE name = $1), 0)`, source).Scan(&cursor)
	return uint64(cursor), s.explain("read", err)
}

// Bounds returns what is settled.
func (s *Store) Bounds(ctx context.Context) (first, last uint64, err error) {
	var f, l int64
	err = s.pool.QueryRow(ctx, `SELECT (SELECT next FROM counter WHERE name = 'event_trimmed'),
		coalesce((SELECT max(seq) FROM event WHERE seq < `+s.settled()+`), 0)`).Scan(&f, &l)
	if err == nil && l > 0 {
		f++
	}
	return uint64(f), uint64(l), s.explain("read", err)
}

// Types returns the types that exist, by one step in the index per type.
func (s *Store) Types(ctx context.Context) ([]string, error) {
	found, err := s.pool.Query(ctx, `WITH RECURSIVE t(x) AS (
		(SELECT min(type COLLATE "C") FROM event)
		UNION ALL SELECT (SELECT type FROM event WHERE type > t.x ORDER BY type LIMIT 1) FROM t WHERE t.x IS NOT NULL)
		SELECT x FROM t WHERE x IS NOT NULL`)
	if err != nil {
		return nil, s.explain("read", err)
	}
	out, err := pgx.CollectRows(found, pgx.RowTo[string])
	slices.Sort(out)
	return out, s.explain("read", err)
}

// Select returns events in the order of Seq.
func (s *Store) Select(ctx context.Context, sel event.Selection) ([]api.Event, error) {
	where, args := `WHERE seq > $1 AND seq <= $2`, []any{int64(sel.After), int64(sel.Through)}
	and := func(text string, arg any) {
		args = append(args, arg)
		where += text + strconv.Itoa(len(args))
	}
	if !sel.Since.IsZero() {
		and(` AND time >= $`, sel.Since.UnixNano())
	}
	if sel.Name != "" {
		where += ` AND name <> ''`
		and(` AND name = $`, sel.Name)
	}
	if len(sel.Types) > 0 {
		args = append(args, sel.Types)
		where += ` AND type = ANY($` + strconv.Itoa(len(args)) + `)`
	}
	order := ` ORDER BY seq LIMIT $`
	if sel.Newest {
		order = ` ORDER BY seq DESC LIMIT $`
	}
	and(order, sel.Limit)
	events, err := s.query(ctx, `SELECT `+columns+` FROM event `+where, args...)
	if sel.Newest {
		slices.Reverse(events)
	}
	return events, err
}

// Trim removes old events in one transaction.
func (s *Store) Trim(ctx context.Context, keep int, before time.Time, limit int) (n int, first uint64, err error) {
	err = s.Update(ctx, func(t store.Tx) error {
		n = 0
		var trimmed, cut, newest int64
		// The lock keeps two nodes from counting the same events.
		if err := t.Row(ctx, `SELECT next FROM counter WHERE name = 'event_trimmed' FOR UPDATE`).Scan(&trimmed); err != nil {
			return err
		}
		err := t.Row(ctx, `SELECT coalesce((SELECT seq FROM event ORDER BY seq DESC OFFSET $1 LIMIT 1), 0), coalesce((SELECT max(seq) FROM event), 0)`,
			max(keep, 1)).Scan(&cut, &newest)
		if err != nil {
			return err
		}
		if keep <= 0 {
			cut = 0
		}
		if trimmed, n, err = removable(ctx, t, trimmed, cut, newest, before, limit); err != nil {
			return err
		}
		first = uint64(trimmed) + 1
		if n == 0 {
			if newest == 0 {
				first = 0
			}
			return nil
		}
		if _, err := t.Exec(ctx, `DELETE FROM event WHERE seq <= $1`, trimmed); err != nil {
			return err
		}
		_, err = t.Exec(ctx, `UPDATE counter SET next = $1 WHERE name = 'event_trimmed'`, trimmed)
		return err
	})
	return n, first, err
}

// removable counts the oldest events that are over a bound, and returns the last
// one's Seq.
func removable(ctx context.Context, t store.Tx, trimmed, cut, newest int64, before time.Time, limit int) (int64, int, error) {
	found, err := t.Rows(ctx, `SELECT seq, time FROM event WHERE seq < $1 ORDER BY seq LIMIT $2`, newest, limit)
	if err != nil {
		return 0, 0, err
	}
	defer found.Close()
	n := 0
	for found.Next() {
		var seq, nanos int64
		if err := found.Scan(&seq, &nanos); err != nil {
			return 0, 0, err
		}
		if seq > cut && (before.IsZero() || nanos >= before.UnixNano()) {
			break
		}
		trimmed, n = seq, n+1
	}
	return trimmed, n, found.Err()
}
