// Package sqlite keeps the event log in one SQLite file in WAL mode: one
// connection that writes and a small pool that reads. It does what event.Store
// says.
//
// With synchronous NORMAL, the default, what is committed survives the death of
// every process by any signal; a loss of power may take the last transactions,
// never the file's consistency. Options.Full makes each commit wait for the disk.
package sqlite
