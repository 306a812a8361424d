// Package control is the door between the server and the supervisor: what one
// asks of the other, and the same over a Unix socket.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/supervise"
)

// Version is the version of the protocol. The ledger of what each version
// added is in docs/reference/control.md.
const Version = 2

// Supervisor is what the server may ask. *supervisor.Supervisor does it in the
// same process, *Client over the socket.
type Supervisor interface {
	// Info tells who answers.
	Info(ctx context.Context) (Info, error)
	// Apply takes a set of definitions. It returns when the change is
	// persisted, not when the processes have followed.
	Apply(ctx context.Context, req ApplyRequest) (ApplyResult, error)
	// Command gives an operator's command to one process. It returns when the
	// command is persisted, with the record as it is then.
	Command(ctx context.Context, cmd Command) (Record, error)
	// List returns the records of all processes, by name, and the sequence
	// number of the last journal entry that they include.
	List(ctx context.Context) ([]Record, uint64, error)
	// Follow yields all journal entries after the given sequence number, then
	// goes on with new ones until ctx ends. They come in batches: as many as
	// are there, and never none. A batch belongs to whoever gets it.
	Follow(ctx context.Context, after uint64) iter.Seq2[[]Frame, error]
	// Ack says that all entries up to seq are safe elsewhere and may be dropped.
	Ack(ctx context.Context, seq uint64) error
	// Guard says how the server that asks is started again when it dies. A
	// command without arguments says that nobody starts it. It holds until
	// another server, or the same, says otherwise.
	Guard(ctx context.Context, cmd ServerCommand) error
	// Upgrade has the supervisor become the program at path (execve(2)): same
	// pid, and its processes stay its children. It returns when the program has
	// been checked and the supervisor is about to; Info then tells when it has.
	Upgrade(ctx context.Context, path string) error
	// Shutdown stops all processes in reverse order of dependency, kills what
	// is left after the timeout, and returns when all are proven gone. The
	// supervisor then ends. Desired states are not changed. A second Shutdown
	// with a shorter timeout hurries the first.
	Shutdown(ctx context.Context, timeout time.Duration) error
}

// Info is the answer to Info.
type Info struct {
	Version   int       `json:"version"`
	Build     string    `json:"build"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	// Journal is the random name of the journal, which a reader keeps with its place.
	Journal string `json:"journal"`
	// LastSeq is the sequence number of the last journal entry, OpenSeq what it
	// was when this supervisor opened the journal: what is above is its own word.
	LastSeq uint64 `json:"last_seq"`
	OpenSeq uint64 `json:"open_seq"`
	// Notes are what doctor should know, such as "cgroup v2 is not writable: …".
	Notes []string `json:"notes,omitempty"`
	// Damage is what the journal had lost when the supervisor opened it.
	Damage []string `json:"damage,omitempty"`
	// Troubles are what cannot be written now.
	Troubles []api.Trouble `json:"troubles,omitempty"`
	// Failed says why the supervisor has not become another program when it was
	// last asked to; empty when it has, or was not asked.
	Failed string `json:"failed,omitempty"`
}

// ApplyRequest brings definitions, complete with defaults.
type ApplyRequest struct {
	Definitions []api.Definition `json:"definitions"`
	// Full says that processes which are not in Definitions (and came from a
	// file before) are stopped and removed.
	Full bool `json:"full"`
	// Boot says that this is `perdure up` and no reload: what has ended, is wished
	// to run and now has a new definition is begun. What this boot of Perdure has
	// not begun yet is begun by any Apply; see type Boot.
	Boot bool `json:"boot"`
	// Hold says that no live process is restarted for a change: its next
	// generation has it.
	Hold bool `json:"hold,omitempty"`
	// Source is "file" or "api".
	Source string `json:"source"`
	// Settings are taken over before the definitions; nil leaves them as they are.
	// They are journaled, and are those of every later supervisor.
	Settings *Settings `json:"settings,omitempty"`
}

// Settings are what the supervisor works by, besides the definitions.
type Settings struct {
	// Sync is the group-commit interval of the journal: the longest time from the
	// write of an entry to its fsync, and what a power cut may lose. 0: nothing is
	// begun before its entry is durable; below 0: there is no fsync.
	Sync api.Duration `json:"sync"`
}

// ApplyResult lists names.
type ApplyResult struct {
	Added     []string `json:"added,omitempty"`
	Changed   []string `json:"changed,omitempty"` // restarted if active
	Removed   []string `json:"removed,omitempty"`
	Unchanged []string `json:"unchanged,omitempty"`
}

// Command is an operator's command to one process.
type Command struct {
	// Verb is start, stop, restart, reset, signal, kill or remove.
	Verb string `json:"verb"`
	Name string `json:"name"`
	// Signal is for signal, such as "SIGHUP".
	Signal string `json:"signal,omitempty"`
	// Force is for start: even if the breaker is open.
	Force bool `json:"force,omitempty"`
}

// ServerCommand starts a server.
type ServerCommand struct {
	Argv []string `json:"argv,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	// Env is the whole environment, "KEY=value". It is kept in memory alone,
	// because it may hold secrets.
	Env []string `json:"env,omitempty"`
}

// Record is one process as the supervisor knows it.
type Record struct {
	// Seq is the sequence number of the journal entry that made the record so.
	Seq  uint64 `json:"seq,omitempty"`
	ID   string `json:"id"`
	Name string `json:"name"`
	// Definition is set in List and in the entry that (re)defined the process;
	// elsewhere it is nil, to keep entries small.
	Definition *api.Definition `json:"definition,omitempty"`
	Source     string          `json:"source"`
	CreatedAt  time.Time       `json:"created_at"`
	State      supervise.State `json:"state"`
	// BootID is the boot whose clock the state's instants are read from.
	BootID string `json:"boot_id,omitempty"`
	// Boot is the number of the boot of Perdure that has begun the process last.
	Boot     uint64         `json:"boot,omitempty"`
	Identity *proc.Identity `json:"identity,omitempty"` // of the live generation
}

// Boot is one boot of Perdure: from the Apply that begins it to the proven end of
// everything. The death of a supervisor or a server is no end of it. It begins
// each process once: those with autostart get the wish to run, but for those
// that were stopped by hand and are "unless-stopped", and those that came over
// the API get it back if they had it.
type Boot struct {
	// Number counts the boots of a state directory, from 1.
	Number uint64 `json:"number"`
	// BootID is the boot of the machine, with which this one ends as well.
	BootID string `json:"boot_id"`
	// Over says that everything has been ended.
	Over bool `json:"over,omitempty"`
}

// Frame is a journal entry on its way to a reader: its payload is what the
// journal has, so that passing it on costs no decoding.
type Frame struct {
	Seq  uint64
	Time time.Time
	// Key says what the entry is about. Of several entries with one key the
	// newest has all that is to be known.
	Key string
	// Payload is an Entry as JSON.
	Payload []byte
}

// Entry decodes all of a frame.
func (f Frame) Entry() (Entry, error) {
	var e Entry
	err := json.Unmarshal(f.Payload, &e)
	return f.complete(e, err)
}

// complete adds what only the frame knows.
func (f Frame) complete(e Entry, err error) (Entry, error) {
	if err != nil {
		return Entry{Seq: f.Seq, Time: f.Time}, fmt.Errorf("cannot read journal entry %d (%s): %w", f.Seq, f.Key, err)
	}
	e.Seq, e.Time = f.Seq, f.Time
	if e.Record != nil {
		e.Record.Seq = f.Seq
	}
	return e, nil
}

// Entry is one journal entry: what became of one process, whole.
type Entry struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Record is the process after the entry; nil for events of the supervisor's own.
	Record *Record `json:"record,omitempty"`
	// Removed says that the process is no more.
	Removed bool    `json:"removed,omitempty"`
	Events  []Event `json:"events,omitempty"`
	// Exit, when set, asks that Perdure end with this exit code.
	Exit *int `json:"exit,omitempty"`
	// Boot is set in the entries that begin or end a boot of Perdure.
	Boot *Boot `json:"boot,omitempty"`
	// Journal is the name of the journal, in the entry that keeps it beside the file.
	Journal string `json:"journal,omitempty"`
	// Settings are set in the entries that change them.
	Settings *Settings `json:"settings,omitempty"`
	// Worker is set in the entries of what workers say.
	Worker *Worker `json:"worker,omitempty"`
}

// Event is an event before it has a place in the log.
type Event struct {
	Type string `json:"type"`
	// Time is when it happened, if that was long before its entry could be
	// written; zero means the time of the entry.
	Time       time.Time       `json:"time,omitzero"`
	ProcessID  string          `json:"process_id,omitempty"`
	Name       string          `json:"name,omitempty"`
	Generation uint64          `json:"generation,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}
