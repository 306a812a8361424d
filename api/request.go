package api

import "time"

// Info tells which Perdure answers.
type Info struct {
	Version string `json:"version"`
	// PID is the server's, SupervisorPID the supervisor's (0 when it is away).
	PID           int `json:"pid"`
	SupervisorPID int `json:"supervisor_pid"`
	// SupervisorAway says why there is no supervisor, and when the next one is
	// tried; empty when there is one.
	SupervisorAway string    `json:"supervisor_away,omitempty"`
	StartedAt      time.Time `json:"started_at"`
	// StateDir is where its files are; Files are the configuration files.
	StateDir string   `json:"state_dir"`
	Files    []string `json:"files,omitempty"`
	// Troubles are what cannot be written now, the gravest first.
	Troubles []Trouble `json:"troubles,omitempty"`
}

// UpgradeRequest asks that another program take the place of supervisor and
// server, while all processes live on.
type UpgradeRequest struct {
	// Binary is the absolute path of the program, on the machine of the server.
	Binary string `json:"binary"`
}

// UpgradeResult says what an upgrade has done, and is about to do.
type UpgradeResult struct {
	// From is the version of the supervisor before, To that of the program.
	From string `json:"from"`
	To   string `json:"to"`
	// SupervisorPID is the supervisor's, which has changed program; Replaced says
	// that it could not, and was ended without its processes: the new one has
	// adopted them.
	SupervisorPID int  `json:"supervisor_pid"`
	Replaced      bool `json:"replaced,omitempty"`
	// ServerPID is the server's, which changes program after this answer.
	ServerPID int `json:"server_pid"`
}

// CommandRequest is an operator's command to one process.
type CommandRequest struct {
	// Verb is "start", "stop", "restart", "reset", "signal" or "kill".
	Verb string `json:"verb"`
	// Signal is for "signal", such as "HUP" or "SIGHUP".
	Signal string `json:"signal,omitempty"`
	// Force is for "start": even if the breaker is open.
	Force bool `json:"force,omitempty"`
	// Wait says to answer only when the command has come true: start and
	// restart when the new generation is ready (or running where it has no
	// ready probe), stop and kill when it is proven gone.
	Wait bool `json:"wait,omitempty"`
	// Timeout bounds Wait. Default 1m.
	Timeout Duration `json:"timeout,omitempty"`
}

// WaitRequest asks to wait until a process is something.
type WaitRequest struct {
	// For is "started", "running", "ready", "healthy", "completed", "stopped"
	// (nothing of it lives) or the name of any state.
	For string `json:"for"`
	// Timeout bounds the wait. Default 1m.
	Timeout Duration `json:"timeout,omitempty"`
}

// EventQuery selects events.
type EventQuery struct {
	// Pattern is matched against the type: "*" stands for any text, dots
	// included. Several are joined by commas. Empty means all.
	Pattern string `json:"pattern,omitempty"`
	// Name selects one process.
	Name string `json:"name,omitempty"`
	// After selects events with a greater Seq; Since events at or after a time.
	After uint64     `json:"after,omitempty"`
	Since *time.Time `json:"since,omitempty"`
	// Limit bounds a page, at most 1000. Default 100.
	Limit int `json:"limit,omitempty"`
	// Last selects the last n events instead of the first ones.
	Last int `json:"last,omitempty"`
}

// EventPage is a page of events, in the order of Seq.
type EventPage struct {
	Events []Event `json:"events"`
	// LastSeq is the place of the newest event of the whole log.
	LastSeq uint64 `json:"last_seq"`
	// FirstSeq is the place of the oldest event that is kept.
	FirstSeq uint64 `json:"first_seq"`
	// More says that there are more events after this page.
	More bool `json:"more"`
}

// LogQuery selects log lines.
type LogQuery struct {
	// Names are names or globs of processes; empty means all.
	Names []string `json:"names,omitempty"`
	// Stream is "stdout", "stderr" or empty for both.
	Stream string `json:"stream,omitempty"`
	// Lines is how many lines to begin with, per process, counted from the
	// end; -1 means all that are kept. It is ignored with Since or Cursor.
	Lines int `json:"lines"`
	// Since selects lines at or after a time.
	Since *time.Time `json:"since,omitempty"`
	// Cursor continues after a line of an earlier answer (one process only).
	Cursor string `json:"cursor,omitempty"`
	// Follow goes on with new lines.
	Follow bool `json:"follow,omitempty"`
}

// ReloadResult says what a reload changed, by name.
type ReloadResult struct {
	Added     []string `json:"added,omitempty"`
	Changed   []string `json:"changed,omitempty"`
	Removed   []string `json:"removed,omitempty"`
	Unchanged []string `json:"unchanged,omitempty"`
	// Settings are the keys of settings that differ, such as "settings.sync". All
	// hold at once but listen and token_file, which hold from the next start on.
	Settings []string `json:"settings,omitempty"`
	// Warnings are findings that refuse nothing.
	Warnings []Finding `json:"warnings,omitempty"`
}

// Finding is one thing that is wrong, missing or worth knowing, from validate
// or doctor.
type Finding struct {
	// Level is "error", "warning", "info" or "ok".
	Level string `json:"level"`
	// File, Line and Column say where, counted from 1.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// Field is the path of the field, such as "processes.web.restart".
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	// Hint says what to do.
	Hint string `json:"hint,omitempty"`
}

// Config is the configuration in force.
type Config struct {
	Files       []string              `json:"files,omitempty"`
	Definitions map[string]Definition `json:"processes"`
	Settings    Settings              `json:"settings"`
}

// Settings are the parts of a file that concern Perdure itself.
type Settings struct {
	// ShutdownTimeout bounds the stop of everything. Default: the longest chain
	// of graces, plus 5s.
	ShutdownTimeout Duration `json:"shutdown_timeout,omitempty" yaml:"shutdown_timeout,omitempty"`
	// Listen is a TCP address for the API, such as "127.0.0.1:7070". Default:
	// none, the Unix socket only. TokenFile must be set with it.
	Listen string `json:"listen,omitempty" yaml:"listen,omitempty"`
	// TokenFile holds the bearer token for TCP, at least 16 characters; the
	// file must not be readable by others.
	TokenFile string `json:"token_file,omitempty" yaml:"token_file,omitempty"`
	// Sync says when what happens is safe from a power cut: the longest time until
	// the journal is flushed to the disk, such as "100ms" (default), which a power
	// cut may lose; "0s" starts nothing before it is safe; "off" leaves it to the
	// system. The event log follows it: see docs/reference/durability.md.
	Sync string `json:"sync,omitempty" yaml:"sync,omitempty"`
	// Events says how long events are kept.
	Events Retention `json:"events,omitzero" yaml:"events,omitempty"`
	// Watchdog takes the settings of other systems over.
	Watchdog *Watchdog `json:"watchdog,omitempty" yaml:"watchdog,omitempty"`
}

// Retention says how long events are kept; what is over either bound goes.
type Retention struct {
	// MaxAge is the age. Default 720h (30 days).
	MaxAge Duration `json:"max_age,omitempty" yaml:"max_age,omitempty"`
	// MaxCount is the number. Default 1000000.
	MaxCount int64 `json:"max_count,omitempty" yaml:"max_count,omitempty"`
}
