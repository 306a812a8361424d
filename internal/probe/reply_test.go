package probe

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/api"
)

// told is what a Runner reports first about a probe.
func told(t *testing.T, p api.Probe) Result {
	t.Helper()
	r := NewRunner(Options{})
	defer r.Close()
	got := make(chan Result, 1)
	p.Interval = api.Duration(time.Hour)
	if p.Timeout == 0 {
		p.Timeout = api.Duration(time.Minute)
	}
	if _, err := r.Start(Spec{Name: "x", Probe: p}, func(res Result) { got <- res }); err != nil {
		t.Fatal(err)
	}
	return <-got
}

// rawServer answers every request as serve does, and closes its connection.
func rawServer(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, answer)
	return "http://" + l.Addr().String()
}

func serve(t *testing.T, l net.Listener, answer func(net.Conn)) {
	t.Helper()
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					answer(conn)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); group.Wait() })
}

// Both ways to ask, with a goroutine and without, take odd servers alike.
func TestOddServers(t *testing.T) {
	t.Parallel()
	text := func(s string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, s) } // the prober may have hung up
	}
	endless := func(first, then string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := io.WriteString(c, first)
			for err == nil {
				_, err = io.WriteString(c, then)
			}
		}
	}
	up := map[string]any{"up": true}
	for name, c := range map[string]struct {
		serve  func(net.Conn)
		json   map[string]any
		answer Answer
		detail string
	}{
		"1.0":             {text("HTTP/1.0 200 OK\r\n\r\n{\"up\":true}"), up, Yes, ""},
		"no reason":       {text("HTTP/1.1 200\r\n\r\n"), nil, Yes, ""},
		"bare newlines":   {text("HTTP/1.1 200 OK\nContent-Length: 11\n\n{\"up\":true}rubbish"), up, Yes, ""},
		"interim":         {text("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n\r\n"), nil, No, "status 503, not 2xx"},
		"only interim":    {text("HTTP/1.1 100 Continue\r\n\r\n"), nil, No, "ended too early"},
		"switching":       {text("HTTP/1.1 101 Switching Protocols\r\n\r\n"), nil, No, "status 101"},
		"chunked":         {text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\n{\"up\r\n7\r\n\":true}\r\n0\r\nTrailer: x\r\n\r\n"), up, Yes, ""},
		"bad chunk":       {text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), up, No, "malformed chunk"},
		"overrun chunk":   {text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n"), up, No, "malformed chunk"},
		"cut chunk":       {text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"up"), up, No, "ended too early"},
		"cut body":        {text("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"up\":true}"), up, No, "ended too early"},
		"gzip":            {text("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), nil, No, "unknown transfer encoding"},
		"two lengths":     {text("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), nil, No, "malformed length"},
		"negative length": {text("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), nil, No, "malformed length"},
		"no colon":        {text("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"), nil, No, "malformed header"},
		"folded":          {text("HTTP/1.1 200 OK\r\nX: a\r\n b c\r\n\r\n"), nil, Yes, ""},
		"no content":      {text("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), up, No, "no JSON"},
		"cut head":        {text("HTTP/1.1 200 OK\r\nX: y\r\n"), nil, No, "ended too early"},
		"nothing":         {text(""), nil, No, "ended too early"},
		"another":         {text("SSH-2.0-x\r\n"), nil, No, "malformed status line"},
		"long code":       {text("HTTP/1.1 2000 OK\r\n\r\n"), nil, No, "malformed status line"},
		"endless line":    {endless("HTTP/1.1 200 OK\r\nX: ", strings.Repeat("y", 1000)), nil, No, "headers are too long"},
		"endless headers": {endless("HTTP/1.1 200 OK\r\n", "X: y\r\n"), nil, No, "headers are too long"},
		"endless interim": {endless("", "HTTP/1.1 100 Continue\r\n\r\n"), nil, No, "headers are too long"},
		"endless body":    {endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("y", 1000)), nil, Yes, ""},
		"endless JSON":    {endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("[", 1000)), up, No, "longer than"},
		"endless chunks":  {endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("4\r\nabcd\r\n", 100)), up, No, "longer than"},
		"huge length":     {text("HTTP/1.1 200 OK\r\nContent-Length: 4611686018427387903\r\n\r\n"), up, No, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := api.Probe{HTTP: &api.HTTPProbe{URL: rawServer(t, c.serve), JSON: c.json}}
			check := func(how string, answer Answer, detail string) {
				// A server that is hung up on, or hangs up on what it has not read,
				// may reset the connection before all was read.
				if answer != c.answer || !strings.Contains(detail, c.detail) || c.detail == "" && detail != "" {
					t.Errorf("%s: %s %q, want %s %q", how, answer, detail, c.answer, c.detail)
				}
			}
			answer, detail := askOnce(t, p)
			check("by itself", answer, detail)
			res := told(t, p)
			check("by a Runner", res.Answer, res.Detail)
		})
	}
}

// The deadline is over the whole ask: a server that says a byte now and then
// does not hold it open.
func TestADripDoesNotMoveTheDeadline(t *testing.T) {
	t.Parallel()
	url := rawServer(t, func(c net.Conn) {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nX: ")
		for err == nil {
			<-tick.C
			_, err = io.WriteString(c, "y")
		}
	})
	res := told(t, api.Probe{HTTP: &api.HTTPProbe{URL: url}, Timeout: api.Duration(50 * time.Millisecond)})
	if res.Answer != No || !strings.Contains(res.Detail, "in time") || res.Took < 50*time.Millisecond {
		t.Errorf("%+v", res)
	}
}

// What reply makes of an answer is what package net/http makes of it, however
// the answer is cut into pieces.
func TestReplyAgreesWithNetHTTP(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		end := rapid.SampledFrom([]string{"\r\n", "\n"}).Draw(t, "end of line")
		body := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body")
		var b bytes.Buffer
		code := rapid.SampledFrom([]int{200, 204, 301, 304, 404, 503}).Draw(t, "code")
		fmt.Fprintf(&b, "HTTP/1.%d %d%s%s", rapid.IntRange(0, 1).Draw(t, "minor"), code, rapid.SampledFrom([]string{"", " ", " Some Reason"}).Draw(t, "reason"), end)
		for range rapid.IntRange(0, 3).Draw(t, "headers") {
			fmt.Fprintf(&b, "X-%s: %s%s", rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "key"), rapid.StringMatching(`[a-z:, ]{0,9}`).Draw(t, "value"), end)
		}
		how := rapid.SampledFrom([]string{"length", "chunked", "close"}).Draw(t, "framing")
		switch how {
		case "length":
			fmt.Fprintf(&b, "content-LENGTH:%d %s%s%s", len(body), end, end, body)
		case "chunked":
			fmt.Fprintf(&b, "Transfer-Encoding: Chunked%s%s", end, end)
			for rest := body; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
				fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			b.WriteString("0\r\n\r\n")
		case "close":
			fmt.Fprintf(&b, "%s%s", end, body)
		}
		all := b.Bytes()
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), nil) //nolint:bodyclose // it is in memory
		if err != nil {
			t.Fatalf("net/http does not take it: %v", err)
		}
		wantBody, err := io.ReadAll(want.Body)
		if err != nil {
			t.Fatalf("net/http does not take the body: %v", err)
		}
		var r reply
		var got []byte
		for done := false; !done; {
			n := min(len(all), rapid.IntRange(1, 80).Draw(t, "piece"))
			r.buf, all = append(r.buf, all[:n]...), all[n:]
			ok, err := r.readHead()
			if err == nil && ok {
				got, done, err = r.readBody(len(all) == 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !done && len(all) == 0 {
				t.Fatal("no end")
			}
		}
		if r.code != want.StatusCode || !bytes.Equal(got, wantBody) {
			t.Errorf("%d %q, want %d %q", r.code, got, want.StatusCode, wantBody)
		}
	})
}
