package api

import "time"

// Trouble is something that keeps Perdure from writing what it should write. It
// ends by itself when its cause does; nobody has to restart anything.
type Trouble struct {
	Kind TroubleKind `json:"kind"`
	// Name is the process that it concerns; empty: everything.
	Name  string    `json:"name,omitempty"`
	Since time.Time `json:"since"`
	// Cause is "full", "read_only", "slow", "damaged", "gone" (the state directory
	// was removed or replaced) or "error".
	Cause string `json:"cause"`
	// Error is what the system says.
	Error string `json:"error"`
	// Effect says what does not work meanwhile, Hint what to do.
	Effect string `json:"effect"`
	Hint   string `json:"hint"`
}

// TroubleKind is what cannot be written.
type TroubleKind string

// The kinds of trouble.
const (
	// TroubleJournal means: the journal cannot be written.
	TroubleJournal TroubleKind = "journal"
	// TroubleSync means: what is written to the journal cannot be flushed to the
	// disk, or only very slowly.
	TroubleSync TroubleKind = "sync"
	// TroubleOutput means: the output of a process cannot be stored.
	TroubleOutput TroubleKind = "output"
	// TroubleDatabase means: the event log cannot be written.
	TroubleDatabase TroubleKind = "database"
)

// TroubleKinds lists all kinds, the gravest first.
func TroubleKinds() []TroubleKind {
	return []TroubleKind{TroubleJournal, TroubleSync, TroubleDatabase, TroubleOutput}
}

// Text says in one sentence what the trouble is, without what to do.
func (t Trouble) Text() string {
	what := map[TroubleKind]string{TroubleJournal: "the journal cannot be written", TroubleSync: "the journal cannot be flushed to the disk",
		TroubleOutput: "the output of " + t.Name + " cannot be stored", TroubleDatabase: "the event log cannot be written"}[t.Kind]
	if t.Kind == TroubleSync && t.Cause == "slow" {
		what = "the disk of the journal is slow"
	}
	return what + " (" + t.Error + "): " + t.Effect
}
