package server

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
)

// table is the server's picture of all processes, as new as the journal that it
// has read. It is safe for concurrent use, and reading it waits for nobody.
type table struct {
	mu      sync.Mutex
	rows    map[string]*row
	changed chan struct{} // closed at the next change of any row
	seq     uint64
}

// row is one process. Its record is replaced, never changed.
type row struct {
	rec     control.Record
	def     *api.Definition
	changed chan struct{} // closed at the next change of this row
	removed bool
}

func newTable() *table {
	return &table{rows: map[string]*row{}, changed: make(chan struct{})}
}

// put takes a record over unless a newer one is there.
func (t *table) put(rec control.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[rec.Name]
	if r == nil {
		r = &row{changed: make(chan struct{})}
		t.rows[rec.Name] = r
	} else if r.rec.ID == rec.ID && rec.Seq < r.rec.Seq {
		return
	}
	if rec.Definition != nil {
		r.def = rec.Definition
	}
	rec.Definition = nil
	r.rec = rec
	t.touch(r)
}

// drop forgets a process.
func (t *table) drop(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rows[name]; r != nil {
		r.removed = true
		delete(t.rows, name)
		t.touch(r)
	}
}

// replace makes the table exactly recs.
func (t *table) replace(recs []control.Record) {
	keep := make(map[string]bool, len(recs))
	for _, r := range recs {
		keep[r.Name] = true
		t.put(r)
	}
	for _, name := range t.names() {
		if !keep[name] {
			t.drop(name)
		}
	}
}

func (t *table) touch(r *row) {
	close(r.changed)
	r.changed = make(chan struct{})
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *table) names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.rows))
}

// get returns a process, and a channel that is closed when it changes next.
func (t *table) get(name string) (control.Record, *api.Definition, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[name]
	if r == nil {
		return control.Record{}, nil, nil, notFound(name)
	}
	return r.rec, r.def, r.changed, nil
}

// await waits until ok says yes or an error. It first sees the record as it is.
func (t *table) await(ctx context.Context, name string, ok func(control.Record, *api.Definition) (bool, error)) (control.Record, error) {
	for {
		rec, def, changed, err := t.get(name)
		if err != nil {
			return rec, err
		}
		yes, err := ok(rec, def)
		if yes || err != nil {
			return rec, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return rec, ctx.Err()
		}
	}
}

func notFound(name string) error {
	return api.Errorf(api.CodeNotFound, "cannot find process %q", name)
}

// reached notes that the journal has been read up to seq.
func (t *table) reached(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq > t.seq {
		t.seq = seq
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// awaitSeq waits until the journal has been read up to seq.
func (t *table) awaitSeq(ctx context.Context, seq uint64) error {
	for {
		t.mu.Lock()
		have, changed := t.seq, t.changed
		t.mu.Unlock()
		if have >= seq {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
