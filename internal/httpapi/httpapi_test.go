package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/client"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write docs/openapi.yaml") // a flag of the test binary

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCalls makes every call of the client over the socket and over TCP.
func TestCalls(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t)
			var c *client.Client
			if network == "unix" {
				c = onSocket(t, b)
			} else {
				c = newClient(t, client.Options{URL: onTCP(t, b, Options{Token: token}), Token: token})
			}
			testCalls(t, b, c)
		})
	}
}

func testCalls(t *testing.T, b *fakeBackend, c *client.Client) {
	ctx := t.Context()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	info, err := c.Info(ctx)
	check("Info", err)
	if info.PID != 7 {
		t.Errorf("Info = %+v", info)
	}
	list, err := c.Processes(ctx)
	check("Processes", err)
	if len(list) != 1 || list[0].Uptime.D() != time.Minute {
		t.Errorf("Processes = %+v", list)
	}
	_, err = c.Processes(ctx, "nobody")
	wantCode(t, err, api.CodeNotFound)
	_, err = c.Process(ctx, "nobody")
	wantCode(t, err, api.CodeNotFound)
	_, err = c.Process(ctx, "../secret")
	wantCode(t, err, api.CodeInvalid)
	def, err := c.Definition(ctx, "web")
	check("Definition", err)
	def.Name = "web"
	_, err = c.Define(ctx, def)
	check("Define", err)
	check("Remove", c.Remove(ctx, "web"))
	want := api.CommandRequest{Verb: "stop", Wait: true, Timeout: api.Duration(time.Second)}
	_, err = c.Command(ctx, "web", want)
	check("Command", err)
	_, err = c.Command(ctx, "web", api.CommandRequest{Verb: "dance"})
	wantCode(t, err, api.CodeInvalid)
	_, err = c.Reload(ctx)
	check("Reload", err)
	conf, err := c.Config(ctx)
	check("Config", err)
	if len(conf.Files) != 1 {
		t.Errorf("Config = %+v", conf)
	}
	_, err = c.Doctor(ctx)
	check("Doctor", err)
	check("Shutdown", c.Shutdown(ctx, 3*time.Second))
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := cmp.Diff([]api.CommandRequest{want}, b.commands); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]api.Definition{def}, b.defined); diff != "" {
		t.Errorf("definitions (-want +got):\n%s", diff)
	}
	if b.shutdown != 3*time.Second {
		t.Errorf("Shutdown got %v", b.shutdown)
	}
}

func wantCode(t *testing.T, err error, code api.Code) {
	t.Helper()
	if err == nil || api.CodeOf(err) != code {
		t.Errorf("error = %v (%s), want %s", err, api.CodeOf(err), code)
	}
}

func TestNoServerIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "api.sock")
	c := newClient(t, client.Options{Socket: path})
	_, err := c.Info(t.Context())
	wantCode(t, err, api.CodeUnavailable)
	for _, text := range []string{"cannot reach Perdure at " + path, `is it running? start it with "perdure up"`} {
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

func TestLongSocketPath(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("other systems have no way around the limit")
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l := listen(t, "unix", "/proc/self/fd/"+itoa(int(d.Fd()))+"/api.sock")
	serve(t, newBackend(t), l, Options{})
	c := newClient(t, client.Options{Socket: filepath.Join(dir, "api.sock")})
	if _, err := c.Info(t.Context()); err != nil {
		t.Error(err)
	}
}

func itoa(n int) string { data, _ := json.Marshal(n); return string(data) }

// do makes a raw request over TCP.
func do(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestEveryRouteNeedsItsAccess(t *testing.T) {
	t.Parallel()
	url := onTCP(t, newBackend(t), Options{Token: token, ReadToken: "another that reads only"})
	for _, rt := range routes() {
		path := strings.ReplaceAll(rt.path, "{name}", "web")
		if got, _ := do(t, rt.method, url+path, ""); got != http.StatusUnauthorized {
			t.Errorf("%s %s without a token = %d, want 401", rt.method, path, got)
		}
		if got, _ := do(t, rt.method, url+path, "", "Authorization", "Bearer wrong"); got != http.StatusUnauthorized {
			t.Errorf("%s %s with a wrong token = %d, want 401", rt.method, path, got)
		}
		if rt.access > read {
			if got, _ := do(t, rt.method, url+path, "", "Authorization", "Bearer another that reads only"); got != http.StatusForbidden {
				t.Errorf("%s %s with a reader's token = %d, want 403", rt.method, path, got)
			}
		}
	}
	if got, _ := do(t, "GET", url+"/v1/info", "", "Authorization", "Bearer another that reads only"); got != http.StatusOK {
		t.Errorf("a reader's token reads with %d, want 200", got)
	}
}

func TestWithoutTokensNobodyComesOverTCP(t *testing.T) {
	t.Parallel()
	url := onTCP(t, newBackend(t), Options{})
	for _, auth := range []string{"", "Bearer ", "Bearer x"} {
		if got, _ := do(t, "GET", url+"/v1/info", "", "Authorization", auth); got != http.StatusUnauthorized {
			t.Errorf("%q = %d, want 401", auth, got)
		}
	}
}

func TestHostAndOrigin(t *testing.T) {
	t.Parallel()
	url := onTCP(t, newBackend(t), Options{Token: token, Hosts: []string{"perdure.lan"}})
	self := strings.TrimPrefix(url, "http://")
	for _, c := range []struct {
		header []string
		want   int
	}{
		{nil, 200},
		{[]string{"Host", "localhost:1"}, 200},
		{[]string{"Host", "[::1]:1"}, 200},
		{[]string{"Host", "perdure.lan"}, 200},
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Host", "127.0.0.1.evil.example:80"}, 403},
		{[]string{"Origin", "http://" + self}, 200},
		{[]string{"Origin", "http://evil.example"}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
	} {
		got, body := do(t, "GET", url+"/v1/info", "", append(c.header, "Authorization", "Bearer "+token)...)
		if got != c.want {
			t.Errorf("%q = %d, want %d: %s", c.header, got, c.want, body)
		}
	}
}

func TestErrorsHaveOneShape(t *testing.T) {
	t.Parallel()
	url := onTCP(t, newBackend(t), Options{Token: token})
	for _, c := range []struct {
		method, path, body string
		status             int
		code               api.Code
		field              string
	}{
		{"GET", "/nowhere", "", 404, api.CodeNotFound, ""},
		{"PATCH", "/v1/info", "", 405, api.CodeInvalid, ""},
		{"GET", "/v1/processes/nobody", "", 404, api.CodeNotFound, ""},
		{"GET", "/v1/processes/a%2Fb", "", 400, api.CodeInvalid, "name"},
		{"GET", "/v1/processes?nane=x", "", 400, api.CodeInvalid, "nane"},
		{"GET", "/v1/processes?name=panic", "", 500, api.CodeInternal, ""},
		{"POST", "/v1/processes/web/command", `{"verb":`, 400, api.CodeInvalid, ""},
		{"POST", "/v1/processes/web/command", `{"verb":"start","tiemout":"1s"}`, 400, api.CodeInvalid, "tiemout"},
		{"POST", "/v1/processes/web/command", `{"verb":"start","timeout":"long"}`, 400, api.CodeInvalid, ""},
		{"POST", "/v1/processes/web/command", `{}`, 400, api.CodeInvalid, ""},
		{"POST", "/v1/processes/web/signal", ``, 400, api.CodeInvalid, "signal"},
		{"PUT", "/v1/processes/web", `{"command":["x"],"name":"db"}`, 400, api.CodeInvalid, "name"},
		{"PUT", "/v1/processes/web", `"` + strings.Repeat("x", maxBody) + `"`, 413, api.CodeInvalid, ""},
		{"GET", "/v1/events?limit=1001", "", 400, api.CodeInvalid, "limit"},
		{"GET", "/v1/events?pattern=a,,b", "", 400, api.CodeInvalid, "pattern"},
		{"GET", "/v1/events?since=yesterday", "", 400, api.CodeInvalid, "since"},
		{"GET", "/v1/events/stream?pattern=%C3%A9", "", 400, api.CodeInvalid, "pattern"},
		{"GET", "/v1/logs?name=nobody", "", 404, api.CodeNotFound, ""},
		{"GET", "/v1/logs?stream=both", "", 400, api.CodeInvalid, "stream"},
	} {
		got, body := do(t, c.method, url+c.path, c.body, "Authorization", "Bearer "+token)
		var e api.Error
		d := json.NewDecoder(strings.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			t.Errorf("%s %s: %q is no error: %v", c.method, c.path, body, err)
		}
		if got != c.status || e.Code != c.code || e.Message == "" || (c.field != "" && e.Field != c.field) {
			t.Errorf("%s %s = %d %+v, want %d %s %q", c.method, c.path, got, e, c.status, c.code, c.field)
		}
	}
}

func TestVerbRoutes(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	url := onTCP(t, b, Options{Token: token})
	want := []api.CommandRequest{}
	for _, v := range []string{"start", "stop", "restart", "reset", "kill", "signal"} {
		body := ""
		req := api.CommandRequest{Verb: v}
		if v == "signal" {
			body, req.Signal = `{"signal":"HUP"}`, "HUP"
		}
		if got, text := do(t, "POST", url+"/v1/processes/web/"+v, body, "Authorization", "Bearer "+token, "Content-Type", "application/json"); got != 200 {
			t.Errorf("%s = %d %s", v, got, text)
		}
		want = append(want, req)
	}
	if diff := cmp.Diff(want, b.commands); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	c := onSocket(t, b)
	n := 0
	for line, err := range c.Logs(t.Context(), api.LogQuery{Names: []string{"web"}, Lines: 1000}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := "line " + itoa(n); line.Text != want {
			t.Fatalf("line = %q, want %q", line.Text, want)
		}
		n++
	}
	if n != 1000 {
		t.Errorf("%d lines, want 1000", n)
	}
	// An error in the middle comes after the lines before it.
	n = 0
	var last error
	for _, err := range c.Logs(t.Context(), api.LogQuery{Lines: 5, Stream: "stderr"}) {
		if last = err; err == nil {
			n++
		}
	}
	wantCode(t, last, api.CodeUnavailable)
	if n != 5 {
		t.Errorf("%d lines before the error, want 5", n)
	}
	for _, err := range c.Logs(t.Context(), api.LogQuery{Names: []string{"nobody"}}) {
		wantCode(t, err, api.CodeNotFound)
	}
	// Following ends with the context, also when there is nothing to read.
	ctx, cancel := context.WithCancel(t.Context())
	for line, err := range c.Logs(ctx, api.LogQuery{Lines: 1, Follow: true}) {
		if err != nil || line.Text != "line 0" {
			t.Errorf("%+v, %v", line, err)
		}
		cancel()
	}
	cancel()
}

func TestLogsAsText(t *testing.T) {
	t.Parallel()
	url := onTCP(t, newBackend(t), Options{Token: token})
	got, body := do(t, "GET", url+"/v1/processes/web/logs?lines=2", "", "Authorization", "Bearer "+token, "Accept", "text/plain")
	if got != 200 || body != "line 0\nline 1\n" {
		t.Errorf("%d %q", got, body)
	}
}

// TestStreamFormat reads the wire itself.
func TestStreamFormat(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	_, err := b.log.Append(t.Context(), api.Event{Type: "process.exited", Name: "web", Time: time.Unix(1, 0).UTC(), Data: json.RawMessage("{\n\"a\": \"x\\ny\"\n}")})
	if err != nil {
		t.Fatal(err)
	}
	url := onTCP(t, b, Options{Token: token, Heartbeat: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/v1/events/stream?last=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := []string{"retry: 3000", "", "id: 1", "event: process.exited",
		`data: {"seq":1,"time":"1970-01-01T00:00:01Z","type":"process.exited","name":"web","data":{"a":"x\ny"}}`,
		"", "id: 1", "", ": heartbeat"}
	r := bufio.NewScanner(resp.Body)
	var got []string
	for len(got) < len(want) && r.Scan() {
		got = append(got, r.Text())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
}

// TestFollowSurvivesServers follows while the server is ended and started again.
func TestFollowSurvivesServers(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	path := filepath.Join(t.TempDir(), "api.sock")
	stop := serve(t, b, listen(t, "unix", path), Options{})
	c := newClient(t, client.Options{Socket: path})
	mustAppend(t, b.log, 10, "a.b")
	want := uint64(1)
	for e, err := range c.FollowEvents(t.Context(), api.EventQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != want {
			t.Fatalf("Seq = %d, want %d", e.Seq, want)
		}
		want++
		switch e.Seq {
		case 10, 20, 30:
			stop()
			mustAppend(t, b.log, 10, "a.b") // while no server is there
			stop = serve(t, b, listen(t, "unix", path), Options{})
		case 40:
			return
		}
	}
}

func TestFollowStopsAtLossWhenAsked(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	path := filepath.Join(t.TempDir(), "api.sock")
	stop := serve(t, b, listen(t, "unix", path), Options{})
	c := newClient(t, client.Options{Socket: path})
	mustAppend(t, b.log, 1, "a.b")
	var last error
	for _, err := range c.FollowEvents(t.Context(), api.EventQuery{}, client.StopAtLoss()) {
		if last = err; err == nil {
			stop()
		}
	}
	wantCode(t, last, api.CodeUnavailable)
}

func TestFollowTellsWhatRetentionTook(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	c := onSocket(t, b)
	mustAppend(t, b.log, 3000, "a.b") // more than the ring holds
	if _, err := b.log.Retain(t.Context(), api.Retention{MaxCount: 10}, time.Now()); err != nil {
		t.Fatal(err)
	}
	told := false
	for e, err := range c.FollowEvents(t.Context(), api.EventQuery{After: 5}) {
		var trimmed *client.TrimmedError
		if asTrimmed(err, &trimmed) {
			told = trimmed.First == 2991
			continue
		}
		if err != nil || !told || e.Seq != 2991 {
			t.Errorf("event %d, %v, told %v", e.Seq, err, told)
		}
		break
	}
}

func asTrimmed(err error, to **client.TrimmedError) bool {
	return errors.As(err, to)
}

// TestManyFollowersAndOneThatSleeps has 20 followers and one that reads nothing.
func TestManyFollowersAndOneThatSleeps(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	c := onSocket(t, b)
	const total = 4000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asleep, wake := make(chan struct{}), make(chan struct{})
	fellAsleep := sync.OnceFunc(func() { close(asleep) })
	var wg sync.WaitGroup
	follow := func(sleeper bool) {
		if sleeper {
			defer fellAsleep() // also after a failure
		}
		want := uint64(1)
		for e, err := range c.FollowEvents(ctx, api.EventQuery{Pattern: "a.*"}) {
			if err != nil || e.Seq != want {
				t.Errorf("event %d, %v; want %d", e.Seq, err, want)
				return
			}
			if sleeper && want == 1 {
				fellAsleep()
				<-wake
			}
			if want++; e.Seq == total {
				return
			}
		}
	}
	sleeper := make(chan struct{})
	go func() { defer close(sleeper); follow(true) }()
	for range 20 {
		wg.Go(func() { follow(false) })
	}
	mustAppend(t, b.log, 1, "a.b")
	<-asleep
	for range (total - 1) / 31 {
		mustAppend(t, b.log, 31, "a.b") // returns although one follower reads nothing
	}
	wg.Wait()
	close(wake)
	<-sleeper
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := newServer(newBackend(t), Options{Version: "0"})
	for _, rt := range routes() {
		item := s.spec.Paths[rt.path]
		if item == nil {
			t.Errorf("%s is not described", rt.path)
			continue
		}
		op := map[string]any{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete}[rt.method]
		data, err := json.Marshal(op)
		if err != nil || !bytes.Contains(data, []byte(`"x-access":"`+rt.access.String()+`"`)) {
			t.Errorf("%s %s does not state its access (%v)", rt.method, rt.path, err)
		}
	}
	if len(s.spec.Paths) == 0 || len(s.access) != len(routes()) {
		t.Errorf("%d paths, %d routes", len(s.spec.Paths), len(s.access))
	}
	got, err := s.spec.YAML()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "docs", "openapi.yaml")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/openapi.yaml is not up to date: go test ./internal/httpapi -run OpenAPI -update (-file +types)\n%s", diff)
	}
}

func TestHandlerUnderAnotherServerNeedsAToken(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	New(newBackend(t), Options{Token: token}).ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/v1/info", nil))
	if w.Code != http.StatusUnauthorized {
		t.Errorf("status = %d, want 401", w.Code)
	}
}
