//go:build unix

package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// Somebody removes the state directory of a running supervisor. Another one may
// be started there by now, so this one starts nothing more; it can still stop.
func TestReplacedStateDirectoryStartsNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	r.apply(true, part("web", "obey"), part("api", "obey"))
	web := r.until("web runs", event("web", "process.ready", 1)).Record.State.PID
	r.until("api runs", event("api", "process.ready", 1))
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(web, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var info string
	for deadline := time.After(30 * time.Second); !strings.Contains(info, "cannot be written"); {
		i, err := r.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		info = ""
		for _, tr := range i.Troubles {
			info += tr.Text()
		}
		select {
		case <-deadline:
			t.Fatalf("the troubles do not tell it: %q", info)
		case <-time.After(time.Millisecond):
		}
	}
	rec := r.command("stop", "api")
	if rec.State.Desired != api.DesiredStopped {
		t.Errorf("after the stop: %+v", rec.State)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.Shutdown(ctx, 20*time.Second); err != nil {
		t.Error(err)
	}
	recs, _, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range recs {
		if rec.State.Generation > 1 && rec.State.PID != 0 || rec.State.Alive {
			t.Errorf("%s: %+v", rec.Name, rec.State)
		}
	}
	r.stop()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
