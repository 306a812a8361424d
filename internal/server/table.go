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
	seq     uint64        // the journal has been read up to here

	journal string            // the journal that all numbers are of
	base    uint64            // every entry up to here was in a list that was taken over
	gone    map[string]uint64 // removals that a list under way may not know yet
}

// row is one process. Its record is replaced, never changed.
type row struct {
	rec     control.Record
	def     *api.Definition
	changed chan struct{} // closed at the next change of this row
}

func newTable() *table {
	return &table{rows: map[string]*row{}, changed: make(chan struct{}), gone: map[string]uint64{}}
}

// put takes the record of a journal entry over, unless what is here is newer.
func (t *table) put(rec control.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rec.Seq > t.base {
		t.set(rec)
	}
}

// set takes a record over unless a newer one is there.
func (t *table) set(rec control.Record) {
	r := t.rows[rec.Name]
	if r == nil {
		r = &row{changed: make(chan struct{})}
		t.rows[rec.Name] = r
	} else if rec.Seq < r.rec.Seq {
		return
	}
	if rec.Definition != nil {
		r.def = rec.Definition
	}
	rec.Definition = nil
	r.rec = rec
	t.touch(r)
}

// drop forgets a process that the journal entry seq has removed, unless what is
// here is newer.
func (t *table) drop(name string, seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq <= t.base {
		return
	}
	t.gone[name] = seq
	if r := t.rows[name]; r != nil && r.rec.Seq <= seq {
		t.delete(name, r)
	}
}

func (t *table) delete(name string, r *row) {
	delete(t.rows, name)
	t.touch(r)
}

// replace takes over a list of all processes that includes every entry of the
// journal up to asOf, and perhaps later ones. Entries that were read meanwhile
// keep their word against it.
func (t *table) replace(recs []control.Record, journal string, asOf uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.journal != journal {
		// The numbers of another journal say nothing about this one's.
		t.journal, t.base, t.seq = journal, 0, 0
		clear(t.gone)
		for _, r := range t.rows {
			r.rec.Seq = 0
		}
	}
	keep := make(map[string]bool, len(recs))
	for _, rec := range recs {
		if seq, gone := t.gone[rec.Name]; gone && rec.Seq <= seq {
			continue
		}
		keep[rec.Name] = true
		t.set(rec)
	}
	for name, r := range t.rows {
		if !keep[name] && r.rec.Seq <= asOf {
			t.delete(name, r)
		}
	}
	t.base = max(t.base, asOf)
	maps.DeleteFunc(t.gone, func(_ string, seq uint64) bool { return seq <= t.base })
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
