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
	reading chan struct{} // closed when seq grows; nil while nobody waits
	seq     uint64        // the journal has been read up to here

	journal string            // the journal that all numbers are of
	base    uint64            // every entry up to here was in a list that was taken over
	gone    map[string]uint64 // removals that a list under way may not know yet
}

// row is one process. Its record is replaced, never changed.
type row struct {
	rec     control.Record
	def     *api.Definition
	changed chan struct{} // closed at the next change of this row; nil while nobody waits
}

func newTable() *table {
	return &table{rows: map[string]*row{}, gone: map[string]uint64{}}
}

// take takes over the journal entries up to seq, unless what is here is newer.
// Those who wait are woken once for all of them.
func (t *table) take(entries []control.Entry, seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range entries {
		switch {
		case e.Record == nil || e.Seq <= t.base:
		case e.Removed:
			t.drop(e.Record.Name, e.Seq)
		default:
			t.set(*e.Record)
		}
	}
	if seq > t.seq {
		t.seq = seq
		wake(&t.reading)
	}
}

// set takes a record over unless a newer one is there.
func (t *table) set(rec control.Record) {
	r := t.rows[rec.Name]
	if r == nil {
		r = &row{}
		t.rows[rec.Name] = r
	} else if rec.Seq < r.rec.Seq {
		return
	}
	if rec.Definition != nil {
		r.def = rec.Definition
	}
	rec.Definition = nil
	r.rec = rec
	wake(&r.changed)
}

// drop forgets a process that the journal entry seq has removed, unless what is
// here is newer.
func (t *table) drop(name string, seq uint64) {
	t.gone[name] = seq
	if r := t.rows[name]; r != nil && r.rec.Seq <= seq {
		t.delete(name, r)
	}
}

func (t *table) delete(name string, r *row) {
	delete(t.rows, name)
	wake(&r.changed)
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

// wake wakes those who wait for a change.
func wake(changed *chan struct{}) {
	if *changed != nil {
		close(*changed)
		*changed = nil
	}
}

// waitFor returns a channel that is closed at the next change.
func waitFor(changed *chan struct{}) <-chan struct{} {
	if *changed == nil {
		*changed = make(chan struct{})
	}
	return *changed
}

func (t *table) names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.rows))
}

// get returns a process.
func (t *table) get(name string) (control.Record, *api.Definition, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[name]
	if r == nil {
		return control.Record{}, nil, notFound(name)
	}
	return r.rec, r.def, nil
}

// await waits until ok says yes or an error. It first sees the record as it is.
func (t *table) await(ctx context.Context, name string, ok func(control.Record, *api.Definition) (bool, error)) (control.Record, error) {
	for {
		t.mu.Lock()
		r := t.rows[name]
		if r == nil {
			t.mu.Unlock()
			return control.Record{}, notFound(name)
		}
		rec, def, changed := r.rec, r.def, waitFor(&r.changed)
		t.mu.Unlock()
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

// without says that there is no process of that name, by what is known up to a
// journal entry or further.
func (t *table) without(name string, seq uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rows[name] == nil && max(t.base, t.seq) >= seq
}

func notFound(name string) error {
	return api.Errorf(api.CodeNotFound, "cannot find process %q", name)
}

// awaitSeq waits until the journal has been read up to seq.
func (t *table) awaitSeq(ctx context.Context, seq uint64) error {
	for {
		t.mu.Lock()
		have, changed := t.seq, waitFor(&t.reading)
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
