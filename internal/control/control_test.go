package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/journal"
)

func TestEveryMethodOverTheSocket(t *testing.T) {
	t.Parallel()
	f := newFake()
	path, _ := serve(t, f, ServeOptions{})
	c := dial(t, path)
	ctx := t.Context()
	wantInfo, _ := f.Info(ctx)
	if info, err := c.Info(ctx); err != nil || !cmp.Equal(info, wantInfo) {
		t.Error(info, err)
	}
	res, err := c.Apply(ctx, ApplyRequest{Definitions: []api.Definition{{Name: "a"}, {Name: "b"}}})
	if err != nil || !cmp.Equal(res.Added, []string{"a", "b"}) {
		t.Error(res, err)
	}
	wantRec, _ := f.Command(ctx, Command{Verb: "start", Name: "web"})
	if rec, err := c.Command(ctx, Command{Verb: "start", Name: "web"}); err != nil || !cmp.Equal(rec, wantRec) {
		t.Error(rec, err)
	}
	wantList, _, _ := f.List(ctx)
	if list, seq, err := c.List(ctx); err != nil || seq != 12 || !cmp.Equal(list, wantList) {
		t.Error(list, seq, err)
	}
	if err := c.Ack(ctx, 99); err != nil || f.acked != 99 {
		t.Error(f.acked, err)
	}
	if err := c.Guard(ctx, ServerCommand{}); err != nil {
		t.Error(err)
	}
	err = c.Guard(ctx, ServerCommand{Argv: []string{"a", "b"}, Dir: "/d", Env: []string{"K=v"}})
	if api.CodeOf(err) != api.CodeConflict || err.Error() != `["a" "b"] in /d with ["K=v"]` {
		t.Errorf("guard: %v", err)
	}
	if err := c.Upgrade(ctx, "/bin/perdure"); err != nil {
		t.Error(err)
	}
	if err := c.Upgrade(ctx, "/none"); api.CodeOf(err) != api.CodeFailed {
		t.Errorf("upgrade: %v", err)
	}
	if err := c.Shutdown(ctx, 1500*time.Millisecond); err != nil {
		t.Error(err)
	}
}

func TestErrorsKeepCodeTextAndField(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, newFake(), ServeOptions{})
	c := dial(t, path)
	_, err := c.Apply(t.Context(), ApplyRequest{})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeInvalid || e.Field != "definitions" || e.Message != "cannot apply nothing" {
		t.Errorf("%#v", err)
	}
	_, err = c.Command(t.Context(), Command{Verb: "stop", Name: "x"})
	if api.CodeOf(err) != api.CodeNotFound || err.Error() != `cannot stop "x": no such process` {
		t.Errorf("%v (%s)", err, api.CodeOf(err))
	}
}

func TestFollowStreamsTellsGapsAndEnds(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, newFake(), ServeOptions{})
	c := dial(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for frames, err := range c.Follow(ctx, 1) {
		var gap *journal.GapError
		switch {
		case errors.As(err, &gap):
			got = append(got, fmt.Sprint("gap ", gap.First))
		case err != nil:
			t.Fatal(err)
		}
		for _, f := range frames {
			got = append(got, fmt.Sprint(f.Seq))
			if e, err := f.Entry(); err != nil || f.Key != "process/x" || !e.Time.Equal(time.Unix(int64(f.Seq), 5)) ||
				len(e.Events) != 1 || e.Events[0].Type != "x" || e.Seq != f.Seq {
				t.Errorf("%+v, %v", e, err)
			}
			if f.Seq == 103 {
				cancel() // the end of ctx is not an error
			}
		}
	}
	if diff := cmp.Diff([]string{"gap 100", "100", "101", "102", "103"}, got[:5]); diff != "" {
		t.Error(diff)
	}
	for _, err := range c.Follow(t.Context(), 666) {
		if api.CodeOf(err) != api.CodeInternal || err.Error() != "cannot read the journal" {
			t.Errorf("got %v", err)
		}
	}
}

func TestSlowFollowerIsWaitedForAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.hugeSize = 1 << 20
	f.yielded = make(chan uint64)
	path, _ := serve(t, f, ServeOptions{})
	c := dial(t, path)
	conn := rawDial(t, path)
	if _, err := fmt.Fprintf(conn, "{\"version\":%d}\n{\"id\":1,\"method\":\"follow\",\"params\":{\"seq\":0}}\n", Version); err != nil {
		t.Fatal(err)
	}
	// Nothing is read of conn. The first entry fills the socket, so the second
	// is never asked for: the source is not read ahead of the reader.
	if seq := <-f.yielded; seq != 1 {
		t.Fatal(seq)
	}
	for range 20 {
		if _, err := c.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case seq := <-f.yielded:
		t.Fatalf("entry %d was taken though nobody reads", seq)
	default:
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends when the test closes conn
	for want := uint64(2); want < 5; want++ {
		if seq := <-f.yielded; seq != want {
			t.Fatalf("entry %d, want %d", seq, want)
		}
	}
}

func TestManyRequestsInFlight(t *testing.T) {
	t.Parallel()
	f := newFake()
	path, _ := serve(t, f, ServeOptions{})
	c := dial(t, path)
	var calls sync.WaitGroup
	const n = 30
	for i := range n {
		calls.Go(func() {
			name := fmt.Sprint("p", i)
			if rec, err := c.Command(t.Context(), Command{Verb: "block", Name: name}); err != nil || rec.Name != name {
				t.Errorf("%v %v, want %s", rec.Name, err, name)
			}
		})
	}
	for range n {
		<-f.blocked
	}
	if _, err := c.Info(t.Context()); err != nil { // overtakes them all
		t.Error(err)
	}
	close(f.release)
	calls.Wait()
}

func TestGivingUpEndsTheRequestAtTheOtherEnd(t *testing.T) {
	t.Parallel()
	f := newFake()
	path, _ := serve(t, f, ServeOptions{})
	c := dial(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Command(ctx, Command{Verb: "block"})
		done <- err
	}()
	<-f.blocked
	cancel()
	if err := <-done; api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	<-f.canceled
	if _, err := c.Info(t.Context()); err != nil {
		t.Errorf("the connection is not usable afterwards: %v", err)
	}
}

func TestLossIsToldAtOnceAndTheNextCallReconnects(t *testing.T) {
	t.Parallel()
	f := newFake()
	path, stop := serve(t, f, ServeOptions{})
	c := dial(t, path)
	closed := c.Closed()
	done := make(chan error, 1)
	go func() {
		_, err := c.Command(t.Context(), Command{Verb: "block"})
		done <- err
	}()
	<-f.blocked
	stop()
	<-closed
	if err := <-done; api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("the call under way got %v", err)
	}
	if _, err := c.Info(t.Context()); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a call without a supervisor got %v", err)
	}
	serveAt(t, path, newFake(), ServeOptions{})
	if _, err := c.Info(t.Context()); err != nil {
		t.Errorf("a call to the next supervisor got %v", err)
	}
	select {
	case <-c.Closed():
		t.Error("the new connection counts as lost")
	default:
	}
}

func TestFollowTellsTheLoss(t *testing.T) {
	t.Parallel()
	path, stop := serve(t, newFake(), ServeOptions{})
	c := dial(t, path)
	var last error
	for frames, err := range c.Follow(t.Context(), 0) {
		last = err
		for _, f := range frames {
			if f.Seq == 3 {
				stop()
			}
		}
	}
	if api.CodeOf(last) != api.CodeUnavailable {
		t.Errorf("got %v", last)
	}
}

func TestClosedClient(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, newFake(), ServeOptions{})
	c := dial(t, path)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-c.Closed()
	if _, err := c.Info(t.Context()); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestOtherVersionIsRefused(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, newFake(), ServeOptions{})
	conn := rawDial(t, path)
	if _, err := fmt.Fprintln(conn, `{"version":99}`); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(answer, []byte("version 99")) || !bytes.Contains(answer, []byte(`"conflict"`)) {
		t.Errorf("%s %v", answer, err)
	}
}

func TestGarbageEndsOneConnectionOnly(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, newFake(), ServeOptions{})
	hi := fmt.Sprintf("{\"version\":%d}\n", Version)
	for name, text := range map[string]string{
		"no hello":      "GET / HTTP/1.1\r\n\r\n",
		"endless hello": strings.Repeat("x", 100_000),
		"no json":       hi + "\x00\xff\n",
		"half a line":   hi + `{"id":1,"method":"in`,
		"bad params":    hi + `{"id":1,"method":"follow","params":[]}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := rawDial(t, path)
			// The other end may hang up before it has all.
			_, _ = io.WriteString(conn, text)
			if uc, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = uc.CloseWrite()
			}
			_, _ = io.Copy(io.Discard, conn) // returns only when it has hung up
		})
	}
	c := dial(t, path)
	if _, err := c.Info(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := ask[struct{}](t.Context(), c, "nonsense", nil); api.CodeOf(err) != api.CodeInvalid {
		t.Errorf("an unknown method got %v", err)
	}
}

func TestLargeApply(t *testing.T) {
	t.Parallel()
	path, _ := serve(t, newFake(), ServeOptions{})
	c := dial(t, path)
	var req ApplyRequest
	for i := range 1000 {
		req.Definitions = append(req.Definitions, api.Definition{Name: fmt.Sprint("p", i), Description: filled(4000)})
	}
	if res, err := c.Apply(t.Context(), req); err != nil || len(res.Added) != 1000 {
		t.Error(len(res.Added), err)
	}
}

func TestAnotherUserIsTurnedAway(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	dir, err := os.MkdirTemp("", "perdure-control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s.sock")
	serveAt(t, path, newFake(), ServeOptions{})
	self := filepath.Join(dir, "helper")
	data, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(self, data, 0o755)
	}
	// The modes of folder and socket are opened, so that the check of the peer
	// alone is left.
	for p, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err == nil {
			err = os.Chmod(p, mode)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, path)
	cmd.Env = append(os.Environ(), helperEnv+"=dial")
	cmd.Dir = dir
	asNobody(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.HasPrefix(string(out), "denied") {
		t.Errorf("got %q", out)
	}
}

func TestDialNobody(t *testing.T) {
	t.Parallel()
	_, err := Dial(t.Context(), filepath.Join(t.TempDir(), "none.sock"))
	if api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("got %v", err)
	}
}
