// Package event is the event log: a gap-free sequence of what happened, kept in
// a Store, replayed from any place and followed live.
//
// The store owns all writing: concurrent appenders share its transactions, an
// event may be part of a larger change, and nothing is shown to anyone before it
// is committed. Readers
// own nothing: a follower has a place in the log and is only woken; what it
// reads comes from a ring of the newest events that all share, or from the store
// when it is further behind. So no reader can slow a writer or lose an event.
package event
