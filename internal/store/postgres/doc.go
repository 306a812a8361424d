// Package postgres keeps what several servers share in one schema of a PostgreSQL
// database. It does what store.Store and event.Store say.
//
// Transactions are numbered when they begin to write and end in any order, so "all
// events above n" would miss those of a transaction that began early and ends late.
// An event's Seq is made of its transaction's number, and nothing is shown from
// numbers at which one may still run (pg_snapshot_xmin): what a follower has seen is
// all that will ever be there. NOTIFY only wakes; whoever misses it finds out by
// looking every now and then.
package postgres
