// Package sqlite keeps everything that the server remembers in one SQLite file:
// one goroutine with one connection that writes, in transactions that all who
// wait share, and a small pool of connections that read. It does what store.Store
// and event.Store say.
//
// With synchronous NORMAL, the default, what is committed survives the death of
// every process by any signal; a loss of power may take the last transactions,
// never the file's consistency. FULL makes each commit wait for the disk.
package sqlite
