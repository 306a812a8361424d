//go:build !linux

// Package postgrestest runs a real PostgreSQL for tests, on Linux.
package postgrestest

import "testing"

// Server stands for a server that there is on Linux only.
type Server struct{}

// Schema skips the test.
func (*Server) Schema(t testing.TB) (databaseURL, schema string) {
	t.Skip("a private PostgreSQL is started on Linux only")
	return "", ""
}

// Stop does nothing.
func (*Server) Stop() {}
