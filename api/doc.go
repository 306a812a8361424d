// Package api holds the words that Perdure speaks: process definitions,
// process records, events, log lines and errors, as they stand in
// perdure.yaml, in the HTTP API and in the Go library.
//
// Every other package of the project may import api; api imports only the
// standard library. Fields are added, never given a new meaning.
//
// Durations are Go durations in text ("30s"), times are RFC 3339 in UTC.
package api
