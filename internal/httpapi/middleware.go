package httpapi

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// ServeHTTP guards a request and passes it to its route: first who calls, then
// what it may do, then the body; so a stranger is never read from.
func (s *server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &guardedWriter{ResponseWriter: rw, timeout: s.opts.WriteTimeout}
	begin := time.Now()
	defer func() {
		if p := recover(); p != nil {
			s.panicked(w, r, p)
		}
		s.opts.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", w.status, "took", time.Since(begin))
	}()
	level, code, err := s.authorize(r)
	if err != nil {
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		writeError(w, code, err)
		return
	}
	handler, pattern := s.mux.Handler(r)
	need, known := s.access[pattern]
	switch {
	case !known:
		s.unknown(w, r, handler)
		return
	case level < need:
		writeError(w, http.StatusForbidden, api.Errorf(api.CodeDenied, "cannot do this with a token that may only %s: it needs %s", level, need))
		return
	}
	if err := readBody(w, r); err != nil {
		w.Header().Set("Connection", "close")
		writeError(w, http.StatusRequestEntityTooLarge, err)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// panicked logs a panic and answers if nothing was sent yet.
func (s *server) panicked(w *guardedWriter, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		//ok: this is net/http's own way to end a connection, passed on
		panic(p)
	}
	s.opts.Log.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.status == 0 {
		writeError(w, http.StatusInternalServerError, api.Errorf(api.CodeInternal, "cannot answer: a fault of Perdure's own, see its log"))
	}
}

// authorize says what the caller may do, or the status and error to refuse with.
func (s *server) authorize(r *http.Request) (access, int, *api.Error) {
	if peerOf(r.Context()).trusted {
		return admin, 0, nil
	}
	if err := s.checkHost(r); err != nil {
		return nobody, http.StatusForbidden, err
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && token != "" {
		// Sums of equal length, so that neither content nor length is told by
		// the time that it takes.
		sum := sha256.Sum256([]byte(token))
		isAdmin := subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1 && s.opts.Token != ""
		isReader := subtle.ConstantTimeCompare(sum[:], s.readToken[:]) == 1 && s.opts.ReadToken != ""
		switch {
		case isAdmin:
			return admin, 0, nil
		case isReader:
			return read, 0, nil
		}
	}
	return nobody, http.StatusUnauthorized, api.Errorf(api.CodeDenied, "cannot let you in: send the token as \"Authorization: Bearer …\"")
}

// checkHost refuses names that a stranger may have pointed here (DNS rebinding)
// and pages of other origins. An address in Host is safe, since a browser sends
// what is in its address bar.
func (s *server) checkHost(r *http.Request) *api.Error {
	if !s.allowedHost(r.Host) {
		return api.Errorf(api.CodeDenied, "cannot serve the host %q: use localhost or an address", r.Host)
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return api.Errorf(api.CodeDenied, "cannot serve a page of %q", origin)
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" {
		return api.Errorf(api.CodeDenied, "cannot serve a page of another site")
	}
	return nil
}

func (s *server) allowedHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return net.ParseIP(host) != nil || s.hosts[strings.ToLower(host)]
}

// unknown answers for paths and methods that are in no row of the table, in the
// shape of all errors. Redirects of the mux to clean paths pass.
func (s *server) unknown(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	probe := &statusProbe{header: http.Header{}}
	handler.ServeHTTP(probe, r)
	switch probe.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", probe.header.Get("Allow"))
		writeError(w, probe.status, api.Errorf(api.CodeInvalid, "cannot %s %s: it takes %s", r.Method, r.URL.Path, probe.header.Get("Allow")))
	case http.StatusMovedPermanently, http.StatusPermanentRedirect, http.StatusTemporaryRedirect:
		w.Header().Set("Location", probe.header.Get("Location"))
		w.WriteHeader(probe.status)
	default:
		writeError(w, http.StatusNotFound, api.Errorf(api.CodeNotFound, "cannot find %s: see /openapi.json for all paths", r.URL.Path))
	}
}

// readBody takes the whole body in, bounded in size and time. The deadline is
// lifted afterwards: left in place it would end a request that waits for long.
func readBody(w http.ResponseWriter, r *http.Request) *api.Error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	rc := http.NewResponseController(w)
	// A writer that knows no deadlines is a test's.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		return api.Errorf(api.CodeInvalid, "cannot read the body of the request (at most 8 MiB, within 30s): %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	return nil
}

// guardedWriter notes the status and gives each write a deadline, so that a
// dead reader goes.
type guardedWriter struct {
	http.ResponseWriter
	timeout time.Duration
	status  int
}

// Unwrap lets http.ResponseController reach the connection.
func (w *guardedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the status.
func (w *guardedWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.arm()
	w.ResponseWriter.WriteHeader(code)
}

// Write sends a part of the body.
func (w *guardedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.arm()
	return w.ResponseWriter.Write(p)
}

func (w *guardedWriter) arm() {
	// A writer that knows no deadlines is a test's.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.timeout))
}

// statusProbe learns what a handler would answer.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header         { return p.header }
func (p *statusProbe) Write(b []byte) (int, error) { p.WriteHeader(http.StatusOK); return len(b), nil }
func (p *statusProbe) WriteHeader(code int) {
	if p.status == 0 {
		p.status = code
	}
}
