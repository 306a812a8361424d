package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// httpAsker makes a GET over a fresh connection. The request's bytes are made
// once.
type httpAsker struct {
	network, address string
	tls              *tls.Config // nil for http
	request          []byte
	status           []string
	fields           []field
}

// field is what a value of the answer's JSON must be.
type field struct {
	path string
	want any // as decodeJSON makes it
}

func newHTTP(p api.HTTPProbe) (asker, error) {
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, api.Errorf(api.CodeInvalid, "cannot ask %q: write it like http://127.0.0.1:8080/health", p.URL)
	}
	a := &httpAsker{network: "tcp", status: p.Status}
	if len(a.status) == 0 {
		a.status = []string{"2xx"}
	}
	port := u.Port()
	switch {
	case u.Scheme == "https":
		a.tls = &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: p.Insecure, NextProtos: []string{"http/1.1"}}
		port = cmpOr(port, "443")
	default:
		port = cmpOr(port, "80")
	}
	a.address = net.JoinHostPort(u.Hostname(), port)
	if a.request, err = requestBytes(u, p.Headers); err != nil {
		return nil, err
	}
	for path, want := range p.JSON {
		norm, err := normalise(want)
		if err != nil {
			return nil, api.Errorf(api.CodeInvalid, "cannot compare %q with %v: %v", path, want, err)
		}
		a.fields = append(a.fields, field{path: path, want: norm})
	}
	slices.SortFunc(a.fields, func(x, y field) int { return strings.Compare(x.path, y.path) })
	return a, nil
}

func cmpOr(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// requestBytes writes the request as net/http would, with the connection closed
// after it.
func requestBytes(u *url.URL, headers map[string]string) ([]byte, error) {
	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Close: true}
	req.Header = http.Header{"User-Agent": {"perdure-probe"}, "Accept": {"*/*"}}
	if u.User != nil {
		pass, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), pass)
	}
	for k, v := range headers {
		if strings.EqualFold(k, "Host") {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	var b bytes.Buffer
	if err := req.Write(&b); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "cannot make the request for %q: %v", u.Redacted(), err)
	}
	return b.Bytes(), nil
}

// ask makes the ask over a connection of package net.
func (a *httpAsker) ask(ctx context.Context) (Answer, string) {
	conn, err := dial(ctx, a.network, a.address)
	if err != nil {
		return classify(ctx, err)
	}
	defer func() { _ = conn.Close() }() // the answer is read, or is no use
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if a.tls != nil {
		conn = tls.Client(conn, a.tls)
	}
	if _, err := conn.Write(a.request); err != nil {
		return classify(ctx, err)
	}
	var r reply
	for {
		r.buf = slices.Grow(r.buf, readSize)
		n, err := conn.Read(r.buf[len(r.buf):cap(r.buf)])
		r.buf = r.buf[:len(r.buf)+n]
		if err != nil && !errors.Is(err, io.EOF) {
			return classify(ctx, err)
		}
		if answer, detail, done := a.judge(&r, err != nil); done {
			return answer, detail
		}
	}
}

// readSize is how much room there is at least for one read, in bytes. Answers
// to a health check are short.
const readSize = 1 << 10

// judge says what an answer means, once enough of it has come; eof says that
// nothing more does, and with it judge is always done. It follows no redirect:
// 3xx is an answer like any other.
func (a *httpAsker) judge(r *reply, eof bool) (answer Answer, detail string, done bool) {
	ok, err := r.readHead()
	switch {
	case errors.Is(err, errHeadTooBig):
		return No, err.Error(), true
	case err == nil && !ok && eof:
		err = errCutShort
	}
	if err != nil {
		return No, "no valid HTTP answer: " + err.Error(), true
	}
	if !ok {
		return Unknown, "", false
	}
	if !a.accepts(r.code) {
		return No, fmt.Sprintf("status %d, not %s", r.code, strings.Join(a.status, " or ")), true
	}
	if len(a.fields) == 0 {
		return Yes, "", true
	}
	body, ok, err := r.readBody(eof)
	switch {
	case errors.Is(err, errBodyTooBig):
		return No, err.Error(), true
	case err != nil:
		return No, "no valid HTTP answer: " + err.Error(), true
	case !ok:
		return Unknown, "", false
	}
	answer, detail = a.checkJSON(body)
	return answer, detail, true
}

// accepts matches numbers ("204") and classes ("2xx").
func (a *httpAsker) accepts(code int) bool {
	return slices.ContainsFunc(a.status, func(s string) bool {
		if len(s) == 3 && strings.EqualFold(s[1:], "xx") {
			return code/100 == int(s[0]-'0')
		}
		return s == strconv.Itoa(code)
	})
}

func (a *httpAsker) checkJSON(body []byte) (Answer, string) {
	doc, err := decodeJSON(body)
	if err != nil {
		return No, fmt.Sprintf("the answer is no JSON: %v", err)
	}
	for _, f := range a.fields {
		got, ok := lookUp(doc, f.path)
		if !ok {
			return No, fmt.Sprintf("the answer has no field %q", f.path)
		}
		if !equal(got, f.want) {
			return No, fmt.Sprintf("%s is %s, not %s", f.path, show(got), show(f.want))
		}
	}
	return Yes, ""
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return firstLine(string(b))
}

// normalise turns a value from YAML or Go into what decodeJSON would make of it.
func normalise(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return decodeJSON(b)
}

func decodeJSON(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return v, nil
}

// lookUp finds a field by its name or, where there is none, by the parts of a
// dotted path; numbers index arrays.
func lookUp(doc any, path string) (any, bool) {
	switch d := doc.(type) {
	case map[string]any:
		if v, ok := d[path]; ok {
			return v, true
		}
		first, rest, ok := strings.Cut(path, ".")
		if !ok {
			return nil, false
		}
		return lookUp(d[first], rest)
	case []any:
		first, rest, deeper := strings.Cut(path, ".")
		i, err := strconv.Atoi(first)
		if err != nil || i < 0 || i >= len(d) {
			return nil, false
		}
		if !deeper {
			return d[i], true
		}
		return lookUp(d[i], rest)
	}
	return nil, false
}

// equal compares decoded values; numbers by value, so that 1 equals 1.0.
func equal(a, b any) bool {
	switch x := a.(type) {
	case json.Number:
		y, ok := b.(json.Number)
		if !ok {
			return false
		}
		if x == y {
			return true
		}
		fx, errX := x.Float64()
		fy, errY := y.Float64()
		return errX == nil && errY == nil && fx == fy
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	}
	return a == b
}
