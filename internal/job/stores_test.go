package job_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/perdure/perdure/internal/store/postgres"
	"github.com/perdure/perdure/internal/store/postgrestest"
	"github.com/perdure/perdure/internal/store/sqlite"
	"github.com/perdure/perdure/internal/store/storetest"
)

var server postgrestest.Server

func TestMain(m *testing.M) {
	if what := os.Getenv(nodeEnv); what != "" {
		if err := runNode(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	server.Stop()
	os.Exit(code)
}

// opener opens a new, empty store, which is closed with the test.
type opener func(testing.TB) storetest.Store

func newSQLite(t testing.TB) storetest.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "p.db"), sqlite.Options{})
	return closing(t, s, err)
}

func newPostgres(t testing.TB) storetest.Store {
	t.Helper()
	url, schema := server.Schema(t)
	s, err := postgres.Open(context.Background(), postgres.Options{URL: url, Schema: schema})
	return closing(t, s, err)
}

func closing(t testing.TB, s storetest.Store, err error) storetest.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestEngine is what jobs promise, on each store.
func TestEngine(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		test func(*testing.T, opener)
	}{
		{"JobCompletes", testJobCompletes},
		{"J1RetriesRun", testJ1RetriesRun},
		{"Outcomes", testOutcomes},
		{"SnoozeDoesNotCount", testSnoozeDoesNotCount},
		{"J8TimeoutIsTheReason", testJ8TimeoutIsTheReason},
		{"J9CancelKeepsHistory", testJ9CancelKeepsHistory},
		{"J3CrashedNodeLosesNoJob", testJ3CrashedNodeLosesNoJob},
		{"J16StopHandsBack", testJ16StopHandsBack},
		{"FinishHappensOnce", testFinishHappensOnce},
		{"UniqueKeys", testUniqueKeys},
		{"BadInput", testBadInput},
		{"LimitsOfAQueue", testLimitsOfAQueue},
		{"RateOfAQueue", testRateOfAQueue},
		{"PausedQueueStartsNothing", testPausedQueueStartsNothing},
		{"OrderOfAQueue", testOrderOfAQueue},
		{"J20ScheduledStartsInTime", testJ20ScheduledStartsInTime},
		{"Deadlines", testDeadlines},
		{"HandlerThatDoesNotReturn", testHandlerThatDoesNotReturn},
		{"J19ProgressAndLogAreKept", testJ19ProgressAndLogAreKept},
		{"RetentionRemovesOldJobs", testRetentionRemovesOldJobs},
		{"J13WorkersAreCounted", testJ13WorkersAreCounted},
		{"LostAnswersLoseNoJob", testLostAnswersLoseNoJob},
	}
	for name, open := range map[string]opener{"sqlite": newSQLite, "postgres": newPostgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range tests {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.test(t, open)
				})
			}
		})
	}
}
