package postgres_test

import (
	"context"
	"os"
	"testing"

	"github.com/perdure/perdure/internal/store/postgres"
	"github.com/perdure/perdure/internal/store/postgrestest"
	"github.com/perdure/perdure/internal/store/storetest"
)

var server postgrestest.Server

func TestMain(m *testing.M) {
	code := m.Run()
	server.Stop()
	os.Exit(code)
}

func open(t testing.TB, o postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Store {
		url, schema := server.Schema(t)
		return open(t, postgres.Options{URL: url, Schema: schema})
	})
}
