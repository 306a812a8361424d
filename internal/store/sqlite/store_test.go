package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
	"github.com/perdure/perdure/internal/store"
	"github.com/perdure/perdure/internal/store/storetest"
)

func open(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {Synchronous: "full"}, {JournalMode: "TRUNCATE"}} {
		t.Run(o.Synchronous+o.JournalMode, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) storetest.Store {
				return open(t, filepath.Join(t.TempDir(), "a b?%23#c.db"), o)
			})
		})
	}
}

// A changed synchronous holds for the next transaction, and for the connection
// that takes a failed one's place.
func TestSetSynchronous(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "p.db"), Options{})
	want := func(mode int) {
		t.Helper()
		var have int
		err := s.Update(t.Context(), func(store.Tx) error {
			return s.writer.conn.QueryRowContext(context.Background(), `PRAGMA synchronous`).Scan(&have)
		})
		if err != nil || have != mode {
			t.Errorf("synchronous is %d, want %d: %v", have, mode, err)
		}
	}
	want(1)
	s.SetSynchronous("full")
	want(2)
	_ = s.Update(t.Context(), func(store.Tx) error { return s.dropWriter(context.Canceled) })
	want(2)
	if err := s.Flush(); err != nil { // nothing to do
		t.Error(err)
	}
	s.SetSynchronous("nonsense")
	want(2)
	s.SetSynchronous("OFF")
	want(0)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Flush says so when it cannot: without it nothing is dropped elsewhere.
func TestFlush(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"WAL", "TRUNCATE"} {
		path := filepath.Join(t.TempDir(), "p.db")
		s := open(t, path, Options{JournalMode: mode})
		if err := s.Commit(t.Context(), &event.Batch{Events: storetest.Make(3)}); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantError(t, s.Flush(), api.CodeUnavailable, path)
	}
}

func TestReopenKeepsSequence(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	for i := range uint64(3) {
		s := open(t, path, Options{})
		b := &event.Batch{Source: "j", Cursor: i + 1, Events: storetest.Make(1)}
		if err := s.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if b.Events[0].Seq != i+1 {
			t.Errorf("Seq = %d, want %d", b.Events[0].Seq, i+1)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, path, Options{})
	defer s.Close()
	if err := s.Commit(t.Context(), &event.Batch{Events: storetest.Make(1)}); err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + end)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("mode of %s is %o, want 600", path+end, got)
		}
	}
}

// wantError checks the code and that the text names the file and the cure.
func wantError(t *testing.T, err error, code api.Code, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if got := api.CodeOf(err); got != code {
		t.Errorf("code = %s, want %s (%v)", got, code, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, path, Options{})
	if _, err := s.writer.conn.ExecContext(t.Context(), `INSERT INTO schema_ledger VALUES (99, 'later', 0)`); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path, Options{})
	wantError(t, err, api.CodeFailed, path, "newer Perdure", "99")
	_, err = OpenSound(t.Context(), path, Options{}, time.Now(), nil)
	wantError(t, err, api.CodeFailed, path, "newer Perdure", "99")
}

func TestDamagedFileIsNamedAndMovedAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	junk := bytes.Repeat([]byte("not a database "), 1000)
	if err := os.WriteFile(path, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path, Options{})
	wantError(t, err, api.CodeFailed, path, "damaged", "aside")
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, junk) {
		t.Errorf("the damaged file was touched (%v)", err)
	}
	to, err := MoveAside(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, junk) {
		t.Errorf("the file was not moved whole to %s (%v)", to, err)
	}
	s := open(t, path, Options{})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A file that is none, one that is cut short and one that was found damaged in use
// are moved aside. The new one begins with a word about it, and above all numbers
// that were given.
func TestOpenSoundReplacesADamagedFile(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"no database": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("junk "), 5000), 0o600) },
		"cut short":   func(path string) error { return os.Truncate(path, 3*4096) },
		"emptied":     func(path string) error { return os.Truncate(path, 0) },
		"found so":    MarkDamaged,
		"found so, and moved by one that was killed": func(path string) error {
			_, err := MoveAside(path, time.Now())
			return errors.Join(err, MarkDamaged(path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "p.db")
			tell := func(old string, why error) api.Event {
				return api.Event{Type: "told", Time: time.Now(), Data: []byte(fmt.Sprintf("%q", old+" "+why.Error()))}
			}
			sound := func() *Store {
				t.Helper()
				s, err := OpenSound(t.Context(), path, Options{}, time.Now(), tell)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := sound()
			if err := s.Commit(t.Context(), &event.Batch{Source: "j", Cursor: 7, Events: storetest.Make(500)}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			s = sound()
			first, last, err := s.Bounds(t.Context())
			if err != nil || first != last || first <= 500 {
				t.Errorf("events from %d to %d, %v", first, last, err)
			}
			if cursor, err := s.Cursor(t.Context(), "j"); err != nil || cursor != 0 {
				t.Errorf("the cursor is %d, %v: what the journal has is not read again", cursor, err)
			}
			aside, err := filepath.Glob(path + ".damaged-*Z")
			if err != nil || len(aside) != 1 {
				t.Fatalf("moved aside: %q, %v", aside, err)
			}
			if got, err := os.ReadFile(aside[0]); err != nil || before != nil && !bytes.Equal(got, before) {
				t.Errorf("the old file was not kept as it was (%v)", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = sound() // it is sound now
			if _, again, err := s.Bounds(t.Context()); err != nil || again != last {
				t.Errorf("opened again it ends with %d, not %d: %v", again, last, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Damage from an early page on may meet what opening reads: then opening tells it.
func TestDamageNearTheBeginningIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, path, Options{})
	if err := s.Commit(t.Context(), &event.Batch{Events: storetest.Make(5000)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 8 * 4096; i < len(data); i++ {
		data[i] = 0xA5
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged, err := Open(t.Context(), path, Options{})
	if err == nil {
		err = damaged.Check(t.Context())
		defer damaged.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damage is told as: %v", err)
	}
}

func TestDamagedPageIsFound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, path, Options{})
	if err := s.Commit(t.Context(), &event.Batch{Events: storetest.Make(5000)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The events are in the second half; opening reads only what is before.
	for i := len(data) / 2; i < len(data); i++ {
		data[i] = 0xA5
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, Options{})
	defer s.Close()
	if err := s.Check(t.Context()); err == nil {
		t.Error("Check found nothing in a damaged file")
	}
	_, err = s.Select(t.Context(), event.Selection{Through: 5000, Limit: 5000})
	wantError(t, err, api.CodeFailed, path, "damaged")
}

func TestLockedFileComesBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, path, Options{BusyTimeout: time.Millisecond})
	defer s.Close()
	other, err := sql.Open("sqlite", path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	b := &event.Batch{Source: "j", Cursor: 1, Events: storetest.Make(2)}
	wantError(t, s.Commit(t.Context(), b), api.CodeUnavailable, path, "locked")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if b.Skipped || b.Events[0].Seq != 1 {
		t.Errorf("after the lock: skipped %v, Seq %d; want false, 1", b.Skipped, b.Events[0].Seq)
	}
}

func TestFullDiskComesBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, path, Options{})
	defer s.Close()
	// SQLite says SQLITE_FULL when the file may not grow, as when the disk is full.
	if _, err := s.writer.conn.ExecContext(t.Context(), `PRAGMA max_page_count = 10`); err != nil {
		t.Fatal(err)
	}
	b := &event.Batch{Source: "j", Cursor: 1, Events: storetest.Make(5000)}
	wantError(t, s.Commit(t.Context(), b), api.CodeUnavailable, path, "disk is full")
	if _, last, err := s.Bounds(t.Context()); err != nil || last != 0 {
		t.Errorf("after a failure the newest event is %d (%v), want 0", last, err)
	}
	if _, err := s.writer.conn.ExecContext(t.Context(), `PRAGMA max_page_count = 1000000`); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, last, err := s.Bounds(t.Context()); err != nil || last != 5000 {
		t.Errorf("after the second try the newest event is %d (%v), want 5000", last, err)
	}
}

func TestReadOnlyComesBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.db")
	s := open(t, path, Options{})
	defer s.Close()
	if _, err := s.writer.conn.ExecContext(t.Context(), `PRAGMA query_only = 1`); err != nil {
		t.Fatal(err)
	}
	b := &event.Batch{Events: storetest.Make(1)}
	wantError(t, s.Commit(t.Context(), b), api.CodeUnavailable, path, "cannot be written")
	// The next try uses a new connection.
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestReadersDoNotWaitForTheWriter(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "p.db"), Options{})
	defer s.Close()
	if err := s.Commit(t.Context(), &event.Batch{Events: storetest.Make(10)}); err != nil {
		t.Fatal(err)
	}
	// The write lock is taken and kept.
	holding, release, released := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		released <- s.Update(context.Background(), func(store.Tx) error {
			close(holding)
			<-release
			return nil
		})
	}()
	<-holding
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			got, err := s.Select(t.Context(), event.Selection{Through: 10, Limit: 100})
			if err != nil || len(got) != 10 {
				t.Errorf("Select = %d events, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	close(release)
	if err := <-released; err != nil {
		t.Error(err)
	}
}

func TestPlansUseTheIndexes(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "p.db"), Options{})
	defer s.Close()
	for _, sel := range []event.Selection{
		{Through: 9, Limit: 1},
		{Through: 9, Limit: 1, Name: "web"},
		{Through: 9, Limit: 1, Types: []string{"a"}},
		{Through: 9, Limit: 1, Types: []string{"a", "b"}, Newest: true},
	} {
		text, args := selectText(sel)
		rows, err := s.read.Query(`EXPLAIN QUERY PLAN `+text, args...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			// A sort inside a part would read all of it; the one over the
			// bounded parts of several types is meant.
			if strings.HasPrefix(detail, "SCAN event") || strings.Contains(detail, "TEMP B-TREE") && len(sel.Types) < 2 {
				t.Errorf("%+v: the plan says %q", sel, detail)
			}
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "p.db"), Options{})
			defer s.Close()
			events := storetest.Make(n)
			for i := range events {
				events[i].Data = []byte(`{"code":1,"signal":"","expected":false,"uptime_ms":1234567,"cause":"exit","text":"` + strings.Repeat("x", 100) + `"}`)
			}
			total := 0
			for b.Loop() {
				if err := s.Commit(b.Context(), &event.Batch{Events: events}); err != nil {
					b.Fatal(err)
				}
				total += n
			}
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func TestBackupIsWholeWhileOthersWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "p.db"), Options{})
	defer s.Close()
	if err := s.Commit(t.Context(), &event.Batch{Source: "j", Cursor: 3, Events: storetest.Make(300)}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = s.Commit(ctx, &event.Batch{Events: storetest.Make(2)})
		}
	})
	path := filepath.Join(dir, "copy.db")
	if err := s.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Backup(t.Context(), path), api.CodeInvalid, path, "exists")
	if runtime.GOOS != "windows" {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the copy has %v, %v; want mode 600", info, err)
		}
	}
	c := open(t, path, Options{})
	defer c.Close()
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
	first, last, err := c.Bounds(t.Context())
	cursor, err2 := c.Cursor(t.Context(), "j")
	if err != nil || err2 != nil || first != 1 || last < 300 || cursor != 3 {
		t.Errorf("the copy has events %d to %d, cursor %d (%v, %v)", first, last, cursor, err, err2)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for field, o := range map[string]Options{"synchronous": {Synchronous: "sometimes"}, "journal_mode": {JournalMode: "memory"}} {
		_, err := Open(t.Context(), filepath.Join(t.TempDir(), "p.db"), o)
		wantError(t, err, api.CodeInvalid, field, "it is one of")
	}
	s := open(t, filepath.Join(t.TempDir(), "p.db"), Options{Synchronous: "full", JournalMode: "delete", BusyTimeout: 77 * time.Millisecond})
	defer s.Close()
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "delete", "busy_timeout": "77"} {
		var got string
		err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Row(t.Context(), `PRAGMA `+pragma).Scan(&got) })
		if err != nil || got != want {
			t.Errorf("%s = %s, %v; want %s", pragma, got, err, want)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "p.db"), Options{})
	defer s.Close()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			err := s.Update(context.Background(), func(tx store.Tx) error {
				_, err := tx.Exec(context.Background(), `INSERT INTO source (name, cursor) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET cursor = cursor + 1`, "x")
				return err
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func TestWhatIsGivenUpIsNotDone(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "p.db"), Options{})
	defer s.Close()
	holding, release, released := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		released <- s.Update(context.Background(), func(store.Tx) error {
			close(holding)
			<-release
			return nil
		})
	}()
	<-holding
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := s.Update(ctx, func(store.Tx) error {
		t.Error("what was given up is done")
		return nil
	})
	wantError(t, err, api.CodeTimeout, "any longer")
	close(release)
	if err := <-released; err != nil {
		t.Error(err)
	}
	if err := s.Commit(t.Context(), &event.Batch{Events: storetest.Make(1)}); err != nil { // after it in the queue
		t.Error(err)
	}
}
