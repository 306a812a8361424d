package supervisor

import (
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/logstore"
)

// troubles knows what cannot be written now, and keeps the entries of the
// supervisor's own until they can be: what was told during a trouble is in the
// log after it, with the time at which it was. It is safe for concurrent use.
type troubles struct {
	dir    string
	logger *slog.Logger

	writing sync.Mutex // held by the one who writes entries; taken before mu

	mu      sync.Mutex
	log     log // nil until begin
	open    map[trouble]api.Trouble
	blocked map[string]bool // who could not be written down: processes, and "" for ourselves
	owed    []owed
	retry   *time.Timer
	closed  bool
}

// trouble is what a trouble is about.
type trouble struct {
	kind api.TroubleKind
	name string
}

// owed is an entry that is to be written.
type owed struct {
	key   string
	entry control.Entry
	at    time.Time
}

// maxOwedEntries bounds the entries that wait; the oldest go.
const maxOwedEntries = 1000

func newTroubles(dir string, logger *slog.Logger) *troubles {
	return &troubles{dir: dir, logger: logger, open: map[trouble]api.Trouble{}, blocked: map[string]bool{}}
}

// begin says where entries are written. What came before is written now.
func (t *troubles) begin(l log) {
	t.mu.Lock()
	t.log = l
	t.mu.Unlock()
	t.flush()
}

// close ends the tries to write what is owed.
func (t *troubles) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	stop(t.retry)
}

// list returns the troubles of now, the gravest first.
func (t *troubles) list() []api.Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []api.Trouble
	for _, tr := range t.open {
		out = append(out, tr)
	}
	kinds := api.TroubleKinds()
	slices.SortFunc(out, func(a, b api.Trouble) int {
		if d := slices.Index(kinds, a.Kind) - slices.Index(kinds, b.Kind); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// unwritten says whether the journal cannot be written.
func (t *troubles) unwritten() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.blocked) > 0
}

// write writes an entry of the supervisor's own behind those that wait.
func (t *troubles) write(key string, e control.Entry) {
	t.mu.Lock()
	t.owed = append(t.owed, owed{key, e, time.Now().UTC()})
	t.mu.Unlock()
	t.flush()
}

// flush writes what is owed, in order.
func (t *troubles) flush() {
	t.writing.Lock()
	err := t.flushed()
	t.writing.Unlock()
	t.storage("", err)
}

func (t *troubles) flushed() error {
	for {
		t.mu.Lock()
		if t.log == nil || len(t.owed) == 0 {
			t.mu.Unlock()
			return nil
		}
		next := t.owed[0]
		t.mu.Unlock()
		payload, err := next.entry.Payload()
		if err != nil {
			t.logger.Error("Cannot write an entry of the supervisor's own", "key", next.key, "error", err)
		} else if _, err := t.log.Write(next.key, payload); err != nil {
			t.wait()
			return err
		}
		t.mu.Lock()
		t.owed = t.owed[1:]
		t.mu.Unlock()
	}
}

// wait keeps what is owed for another try, with the time at which it was. It is
// called by the one who writes.
func (t *troubles) wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.owed) - maxOwedEntries; n > 0 {
		t.owed = slices.Delete(t.owed, 0, n)
	}
	for _, o := range t.owed {
		for i := range o.entry.Events {
			if e := &o.entry.Events[i]; e.Time.IsZero() {
				e.Time = o.at
			}
		}
	}
	stop(t.retry)
	if !t.closed {
		t.retry = time.AfterFunc(retryStorage, t.flush)
	}
}

// storage notes whether the state of a process, or with an empty name an entry of
// our own, could be persisted.
func (t *troubles) storage(name string, err error) {
	t.mu.Lock()
	if err != nil {
		t.blocked[name] = true
	} else {
		delete(t.blocked, name)
	}
	over := len(t.blocked) == 0
	t.mu.Unlock()
	switch {
	case err != nil:
		t.fails(trouble{kind: api.TroubleJournal}, err, "what runs goes on and can be stopped, and starts wait")
	case over:
		t.works(trouble{kind: api.TroubleJournal}, nil)
	}
}

// forget drops what is about a process that is no more.
func (t *troubles) forget(name string) {
	t.storage(name, nil)
	t.mu.Lock()
	delete(t.open, trouble{api.TroubleOutput, name})
	t.mu.Unlock()
}

// output notes whether the output of a process can be stored.
func (t *troubles) output(name string, tr logstore.Trouble) {
	what := trouble{api.TroubleOutput, name}
	if tr.Err == nil {
		var data map[string]any
		if tr.Drops || tr.Lost > 0 {
			data = map[string]any{"lost_bytes": tr.Lost}
		}
		t.works(what, data)
		return
	}
	effect := "it waits, and so does the process when its pipe is full"
	if tr.Drops {
		effect = "it is discarded"
	}
	t.fails(what, tr.Err, effect)
}

// synced notes how the last flush of the journal went.
func (t *troubles) synced(h journal.SyncHealth) {
	what := trouble{kind: api.TroubleSync}
	switch {
	case h.Err != nil:
		t.fails(what, h.Err, "a power cut may lose what has happened since")
	case h.Slow:
		t.fails(what, errSlow, "a power cut may lose what has happened since")
	default:
		t.works(what, nil)
	}
}

var errSlow = errors.New("a flush takes longer than " + journal.SlowSync.String())

// fails begins a trouble, if it is a new one.
func (t *troubles) fails(what trouble, err error, effect string) {
	cause := cause(err)
	t.mu.Lock()
	if _, known := t.open[what]; known || t.closed {
		t.mu.Unlock()
		return
	}
	t.open[what] = api.Trouble{Kind: what.kind, Name: what.name, Since: time.Now().UTC(), Cause: cause, Error: err.Error(),
		Effect: effect, Hint: Hint(cause, t.dir)}
	t.mu.Unlock()
	t.logger.Error("Cannot write", "what", what.kind, "process", what.name, "error", err, "effect", effect)
	t.tell(what.name, "storage.failed", map[string]any{"kind": what.kind, "cause": cause, "error": err.Error(), "effect": effect})
}

// works ends a trouble, if there is one.
func (t *troubles) works(what trouble, data map[string]any) {
	t.mu.Lock()
	was, known := t.open[what]
	delete(t.open, what)
	t.mu.Unlock()
	if !known {
		return
	}
	took := time.Since(was.Since)
	t.logger.Info("It can be written again", "what", what.kind, "process", what.name, "after", took)
	all := map[string]any{"kind": what.kind, "for_ms": took.Milliseconds()}
	for key, value := range data {
		all[key] = value
	}
	t.tell(what.name, "storage.recovered", all)
}

func (t *troubles) tell(name, event string, data map[string]any) {
	e := control.Event{Type: event, Name: name}
	e.Data, _ = json.Marshal(data) // made of JSON's own types
	t.write(supervisorKey, control.Entry{Events: []control.Event{e}})
}

// cause says in a word why something could not be written.
func cause(err error) string {
	switch {
	case errors.Is(err, errSlow):
		return "slow"
	case errors.Is(err, flock.ErrReplaced):
		return "gone"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return "full"
	case errors.Is(err, syscall.EROFS):
		return "read_only"
	}
	return "error"
}

// Hint says what to do about a trouble with the disk of a directory.
func Hint(cause, dir string) string {
	switch cause {
	case "full":
		return "make space on the disk of " + dir + "; it goes on by itself"
	case "read_only":
		return "let the file system of " + dir + " be written again; it goes on by itself"
	case "slow":
		return "look what else writes to the disk of " + dir + ", or raise settings.sync"
	case "damaged":
		return "the next server moves the file aside and begins a new one (`perdure upgrade` makes it come now)"
	case "gone":
		return "end this Perdure (SIGTERM to its supervisor), and start it again"
	}
	return "look at the disk of " + dir + " and at the kernel's messages; it goes on by itself"
}
