package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/logstore"
)

// told are the storage events in the journal: "failed KIND CAUSE NAME" and
// "recovered KIND NAME", each with its time.
func told(t *testing.T, w *world) (lines []string, times []time.Time) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.frames {
		e, err := decode(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range e.Events {
			var d struct{ Kind, Cause string }
			if ev.Type != "storage.failed" && ev.Type != "storage.recovered" {
				continue
			}
			if err := json.Unmarshal(ev.Data, &d); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %s", ev.Type[len("storage."):], d.Kind, d.Cause, ev.Name))
			at := ev.Time
			if at.IsZero() {
				at = e.Time
			}
			times = append(times, at)
		}
	}
	return lines, times
}

// A trouble is told once at its beginning and once at its end, however often it is
// met. What could not be written is written later, in order, with its own time.
func TestTroublesAreToldOncePerEpisode(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web"), def("api"))
		synctest.Wait()
		w.breakJournal(fmt.Errorf("cannot write: %w", syscall.EROFS))
		began := time.Now()
		do(t, s, "stop", "web")
		do(t, s, "stop", "api")
		s.troubles.output("web", logstore.Trouble{Err: syscall.ENOSPC})
		s.troubles.synced(journal.SyncHealth{Slow: true})
		pass(time.Hour)
		info, err := s.Info(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var kinds []api.TroubleKind
		for _, tr := range info.Troubles {
			kinds = append(kinds, tr.Kind)
		}
		if want := []api.TroubleKind{api.TroubleJournal, api.TroubleSync, api.TroubleOutput}; !slices.Equal(kinds, want) {
			t.Errorf("troubles %v, want %v", kinds, want)
		}
		s.troubles.output("web", logstore.Trouble{})
		w.breakJournal(nil)
		pass(2 * retryStorage)
		synctest.Wait()
		s.troubles.synced(journal.SyncHealth{})
		lines, times := told(t, w)
		want := []string{"failed journal read_only ", "failed output full web", "failed sync slow ", "recovered output  web",
			"recovered journal  ", "recovered sync  "}
		if !slices.Equal(lines, want) {
			t.Fatalf("told %q, want %q", lines, want)
		}
		if !times[0].Equal(began) || !times[3].Equal(began.Add(time.Hour)) {
			t.Errorf("it began at %s: %s", began, times)
		}
		if info, err = s.Info(context.Background()); err != nil || len(info.Troubles) > 0 {
			t.Errorf("still told: %+v, %v", info.Troubles, err)
		}
		w.breakJournal(errFull)
		do(t, s, "start", "web")
		w.breakJournal(nil)
		pass(2 * retryStorage)
		if lines, _ = told(t, w); len(lines) != 8 {
			t.Errorf("a second episode: told %q", lines)
		}
		closed(t, s)
	})
}

// What waits to be written is bounded, and the newest is kept.
func TestOwedEntriesAreBounded(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		w.breakJournal(errors.New("dead"))
		for i := range maxOwedEntries + 10 {
			s.troubles.write(supervisorKey, control.Entry{Events: []control.Event{{Type: fmt.Sprintf("test.n%d", i)}}})
		}
		before := len(w.frames)
		w.breakJournal(nil)
		pass(2 * retryStorage)
		synctest.Wait()
		// The last but for the word that it can be written again.
		last, err := decode(w.frames[len(w.frames)-2])
		if err != nil || last.Events[0].Type != fmt.Sprintf("test.n%d", maxOwedEntries+9) {
			t.Errorf("the last is %+v, %v", last.Events, err)
		}
		if n := len(w.frames) - before; n != maxOwedEntries+1 {
			t.Errorf("%d are written", n)
		}
		closed(t, s)
	})
}
