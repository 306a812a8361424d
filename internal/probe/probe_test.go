package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func server(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// askOnce makes one ask with a generous timeout.
func askOnce(t *testing.T, p api.Probe) (Answer, string) {
	t.Helper()
	a, err := newAsker(Spec{Name: "x", Probe: p})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return a.ask(ctx)
}

func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/503":
			w.WriteHeader(503)
		case "/302":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/json":
			_, _ = fmt.Fprint(w, `{"status":"healthy","n":1,"db":{"up":true,"pool":[{"size":3}]},"a.b":"literal","big":12345678901234567890}`)
		case "/chunked":
			_, _ = fmt.Fprint(w, `{"status":`)
			w.(http.Flusher).Flush()
			_, _ = fmt.Fprint(w, `"healthy"}`)
		case "/huge":
			_, _ = fmt.Fprint(w, `{"status":"`+strings.Repeat("x", maxBody)+`"}`)
		case "/header":
			if r.Header.Get("X-Key") != "k" || r.Host != "other.example" || r.URL.Query().Get("q") != "1" {
				w.WriteHeader(400)
			}
		}
	})
	status := func(s ...string) api.HTTPProbe { return api.HTTPProbe{Status: s} }
	fields := func(f map[string]any) api.HTTPProbe { return api.HTTPProbe{JSON: f} }
	for _, c := range []struct {
		path   string
		probe  api.HTTPProbe
		answer Answer
		detail string
	}{
		{"/ok", api.HTTPProbe{}, Yes, ""},
		{"/503", api.HTTPProbe{}, No, "status 503, not 2xx"},
		{"/503", status("200", "503"), Yes, ""},
		{"/302", api.HTTPProbe{}, No, "status 302"},
		{"/302", status("3XX"), Yes, ""},
		{"/json", fields(map[string]any{"status": "healthy", "n": 1.0, "db.up": true, "db.pool.0.size": uint64(3), "a.b": "literal"}), Yes, ""},
		{"/json", fields(map[string]any{"big": uint64(12345678901234567890)}), Yes, ""},
		{"/json", fields(map[string]any{"db": map[string]any{"up": true, "pool": []any{map[string]any{"size": 3}}}}), Yes, ""},
		{"/json", fields(map[string]any{"status": "sick"}), No, `status is "healthy", not "sick"`},
		{"/json", fields(map[string]any{"n": "1"}), No, `n is 1, not "1"`},
		{"/json", fields(map[string]any{"db.down": true}), No, `no field "db.down"`},
		{"/json", fields(map[string]any{"db.pool.7.size": 1}), No, "no field"},
		{"/ok", fields(map[string]any{"status": "x"}), No, "no JSON"},
		{"/chunked", fields(map[string]any{"status": "healthy"}), Yes, ""},
		{"/huge", fields(map[string]any{"status": "x"}), No, "longer than"},
		{"/header?q=1", api.HTTPProbe{Headers: map[string]string{"X-Key": "k", "Host": "other.example"}}, Yes, ""},
	} {
		c.probe.URL = url + c.path
		answer, detail := askOnce(t, api.Probe{HTTP: &c.probe})
		if answer != c.answer || !strings.Contains(detail, c.detail) || c.detail == "" && detail != "" {
			t.Errorf("%s %v: %s %q, want %s %q", c.path, c.probe, answer, detail, c.answer, c.detail)
		}
	}
}

func TestHTTPSChecksTheCertificate(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	if answer, detail := askOnce(t, api.Probe{HTTP: &api.HTTPProbe{URL: s.URL}}); answer != No || !strings.Contains(detail, "certificate") {
		t.Errorf("%s %q", answer, detail)
	}
	if answer, detail := askOnce(t, api.Probe{HTTP: &api.HTTPProbe{URL: s.URL, Insecure: true}}); answer != Yes {
		t.Errorf("insecure: %s %q", answer, detail)
	}
}

func TestWhoeverDoesNotAnswerSaysNo(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	silent := "http://" + l.Addr().String() // accepted by the kernel, never answered
	a, err := newAsker(Spec{Probe: api.Probe{HTTP: &api.HTTPProbe{URL: silent}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if answer, detail := a.ask(ctx); answer != No || !strings.Contains(detail, "in time") {
		t.Errorf("silence: %s %q", answer, detail)
	}
	off, cancelOff := context.WithCancel(t.Context())
	cancelOff()
	if answer, _ := a.ask(off); answer != Unknown {
		t.Errorf("called off: %s", answer)
	}
}

func TestGarbageIsNo(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for _, text := range []string{"SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 2*maxHead)} {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(conn, text) // the prober may hang up before it has all
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); group.Wait() })
	for range 2 {
		if answer, detail := askOnce(t, api.Probe{HTTP: &api.HTTPProbe{URL: "http://" + l.Addr().String()}}); answer != No || detail == "" {
			t.Errorf("%s %q", answer, detail)
		}
	}
}

func TestTCPAnswers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(address string) Answer {
		a, _ := askOnce(t, api.Probe{TCP: &api.TCPProbe{Address: address}})
		return a
	}
	for _, address := range []string{"unix:" + path, l.Addr().String()} {
		if a := ask(address); a != Yes {
			t.Errorf("%s: %s", address, a)
		}
	}
	if err := errors.Join(u.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if a := ask("unix:" + path); a != No {
		t.Errorf("closed unix socket: %s", a)
	}
}

// Keeps out M9.
func TestOwnFaultsAreUnknown(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]Answer{
		syscall.EMFILE: Unknown, syscall.ENFILE: Unknown, syscall.EADDRNOTAVAIL: Unknown,
		syscall.ECONNREFUSED: No, syscall.ECONNRESET: No, syscall.EHOSTUNREACH: No,
	} {
		if got, _ := classify(t.Context(), fmt.Errorf("dial: %w", err)); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

// M7: a probe that is killed by a signal is a no; only exit code 0 is a yes.
func TestExecAnswers(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	for _, c := range []struct {
		ctx    context.Context
		code   int
		err    error
		answer Answer
		detail string
	}{
		{t.Context(), 0, nil, Yes, ""},
		{t.Context(), 1, nil, No, "exit code 1: out"},
		{t.Context(), 137, nil, No, "exit code 137: out"},
		{t.Context(), 0, errors.New("no such file"), Unknown, "cannot run the command: no such file"},
		{ended, 0, context.DeadlineExceeded, No, "the command did not end in time"},
	} {
		e := execAsker{exec: func(context.Context, []string) (int, string, error) { return c.code, "\nout\nmore", c.err }}
		if answer, detail := e.ask(c.ctx); answer != c.answer || detail != c.detail {
			t.Errorf("%d %v: %s %q", c.code, c.err, answer, detail)
		}
	}
}

func TestWrongSpecsAreRefused(t *testing.T) {
	t.Parallel()
	for _, p := range []api.Probe{
		{}, {HTTP: &api.HTTPProbe{URL: "ftp://x"}}, {HTTP: &api.HTTPProbe{URL: "/x"}}, {TCP: &api.TCPProbe{Address: "x"}},
		{TCP: &api.TCPProbe{Address: "unix:"}}, {Exec: &api.ExecProbe{Command: api.Command{"x"}}},
	} {
		r := NewRunner(Options{})
		if _, err := r.Start(Spec{Name: "x", Probe: p}, func(Result) {}); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%+v: %v", p, err)
		}
		r.Close()
	}
}

func execSpec(name string, p api.Probe, e Exec) Spec {
	p.Exec = &api.ExecProbe{Command: api.Command{"x"}}
	return Spec{Name: name, Probe: p, Exec: e}
}

// sleepy is an Exec that lasts d by the bubble's clock.
func sleepy(d time.Duration) Exec {
	return func(ctx context.Context, _ []string) (int, string, error) {
		select {
		case <-time.After(d):
			return 0, "", nil
		case <-ctx.Done():
			return -1, "", ctx.Err()
		}
	}
}

// P12: asks of one probe never overlap, and the interval counts from the end.
func TestScheduleCountsFromTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRunner(Options{})
		defer r.Close()
		begin := time.Now()
		var at []time.Duration
		stop, err := r.Start(execSpec("a", api.Probe{
			InitialDelay: api.Duration(5 * time.Second), Interval: api.Duration(10 * time.Second), Timeout: api.Duration(4 * time.Second),
		}, sleepy(3*time.Second)), func(res Result) {
			if res.Answer != Yes || res.Took != 3*time.Second {
				t.Error(res)
			}
			at = append(at, time.Since(begin))
		})
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(40 * time.Second)
		stop()
		<-time.After(time.Hour)
		want := []time.Duration{8 * time.Second, 21 * time.Second, 34 * time.Second}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Error(diff)
		}
	})
}

// Health asks of many processes share wake-ups; none is late, and none is earlier
// than its slack.
func TestSpreadAsksShareWakeUps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRunner(Options{})
		defer r.Close()
		begin := time.Now()
		var mu sync.Mutex
		last, wakes, asks := map[string]time.Duration{}, map[time.Duration]bool{}, 0
		const interval, slack = 4 * time.Second, maxSlack
		for i := range 50 {
			spec := execSpec(fmt.Sprint("p", i), api.Probe{InitialDelay: api.Duration(time.Second), Interval: api.Duration(interval)}, sleepy(0))
			spec.Spread = true
			_, err := r.Start(spec, func(Result) {
				mu.Lock()
				defer mu.Unlock()
				now := time.Since(begin)
				asks++
				wakes[now] = true
				before, again := last[spec.Name]
				last[spec.Name] = now
				if gap := now - before; again && (gap > interval || gap < interval-slack) {
					t.Errorf("%s after %s", spec.Name, gap)
				}
				if !again && (now < time.Second || now > 2*time.Second) {
					t.Errorf("%s first after %s", spec.Name, now)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(60 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if asks < 50*14 || len(wakes) > asks/4 {
			t.Errorf("%d asks in %d wake-ups", asks, len(wakes))
		}
	})
}

// Keeps out N21.
func TestTimeoutIsNoAndStopCallsOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRunner(Options{})
		defer r.Close()
		var got []Answer
		stop, err := r.Start(execSpec("a", api.Probe{Interval: api.Duration(10 * time.Second), Timeout: api.Duration(2 * time.Second)}, sleepy(time.Hour)),
			func(res Result) { got = append(got, res.Answer) })
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(13 * time.Second) // within the second ask
		stop()
		stop()
		<-time.After(time.Hour)
		if diff := cmp.Diff([]Answer{No}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestStopFromWithinReport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRunner(Options{})
		defer r.Close()
		stops := make(chan func(), 1)
		var n atomic.Int64
		stop, err := r.Start(execSpec("a", api.Probe{InitialDelay: api.Duration(time.Second)}, sleepy(0)), func(Result) {
			n.Add(1)
			(<-stops)()
		})
		if err != nil {
			t.Fatal(err)
		}
		stops <- stop
		<-time.After(time.Hour)
		if n.Load() != 1 {
			t.Errorf("%d reports", n.Load())
		}
	})
}

// Keeps out M10.
func TestAtMostMaxParallelAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRunner(Options{MaxParallel: 4})
		defer r.Close()
		var now, most, all atomic.Int64
		for i := range 50 {
			_, err := r.Start(execSpec(fmt.Sprint(i), api.Probe{Interval: api.Duration(time.Hour)}, func(context.Context, []string) (int, string, error) {
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				<-time.After(time.Second)
				now.Add(-1)
				return 0, "", nil
			}), func(Result) { all.Add(1) })
			if err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Minute)
		if most.Load() != 4 || all.Load() != 50 {
			t.Errorf("%d at once, %d in all", most.Load(), all.Load())
		}
	})
}

func TestSpreadIsBoundedAndTheSameForAName(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for i := range 100 {
		d := spread(fmt.Sprint("p", i), time.Second)
		if d < 0 || d >= time.Second || d != spread(fmt.Sprint("p", i), time.Second) {
			t.Fatal(d)
		}
		seen[d/(50*time.Millisecond)] = true
	}
	if len(seen) < 15 {
		t.Errorf("100 names fall into %d of 20 parts", len(seen))
	}
}

func TestCloseEndsAsksUnderWay(t *testing.T) {
	t.Parallel()
	r := NewRunner(Options{})
	begun := make(chan struct{})
	_, err := r.Start(execSpec("a", api.Probe{Timeout: api.Duration(time.Hour)}, func(ctx context.Context, _ []string) (int, string, error) {
		close(begun)
		<-ctx.Done()
		return -1, "", ctx.Err()
	}), func(Result) { t.Error("a report after Close") })
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	r.Close()
	if stop, err := r.Start(execSpec("b", api.Probe{}, sleepy(0)), func(Result) {}); err != nil {
		t.Error(err)
	} else {
		stop()
	}
}
