package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/perdure/perdure/api"
)

// maxAnswer bounds one answer and one line of a stream.
const maxAnswer = 64 << 20

// Options say where the server is. Exactly one of Socket and URL is set.
type Options struct {
	// Socket is the path of the Unix socket, such as ".perdure/api.sock". Any
	// length works on Linux; elsewhere at most about 100 bytes.
	Socket string
	// URL is the address of the API on TCP, such as "http://127.0.0.1:7070".
	URL string
	// Token is the bearer token; TCP needs one.
	Token string
}

// Client is a connection to one Perdure. It may be used by many goroutines at
// once. Close it when it is not needed any more.
type Client struct {
	base  string // scheme and host, without a slash at the end
	where string // for messages
	token string
	http  *http.Client
}

// New returns a client. It does not connect yet, so it succeeds when no server
// runs; a wrong option is CodeInvalid.
func New(o Options) (*Client, error) {
	c := &Client{token: o.Token}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 8,
		DisableCompression:  true,
	}
	switch {
	case (o.Socket == "") == (o.URL == ""):
		return nil, api.Errorf(api.CodeInvalid, "cannot make a client: set either Socket or URL")
	case o.Socket != "":
		c.base, c.where = "http://perdure", o.Socket
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialUnix(ctx, dialer, o.Socket)
		}
	default:
		u, err := url.Parse(o.URL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, api.Errorf(api.CodeInvalid, "cannot use %q as the address of Perdure (write it like http://127.0.0.1:7070)", o.URL)
		}
		c.base, c.where = strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/"), o.URL
	}
	c.http = &http.Client{
		Transport: transport,
		// A redirect could carry the token elsewhere; the API never sends one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close closes idle connections. Requests and streams that are under way end
// with their own contexts.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// call sends in as JSON (nothing when nil) and reads the answer into out
// (nothing when nil).
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return api.Errorf(api.CodeInvalid, "cannot write the request as JSON: %v", err)
		}
		body = bytes.NewReader(data)
	}
	resp, err := c.open(ctx, method, path, query, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		// The rest is read so that the connection can be used again.
		if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
			return c.lost(ctx, err)
		}
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.lost(ctx, err)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return api.Errorf(api.CodeInternal, "cannot read the answer of Perdure at %s: %v", c.where, err)
	}
	return nil
}

// open sends a request and returns an answer with a 2xx status. The caller
// closes its body.
func (c *Client) open(ctx context.Context, method, path string, query url.Values, body io.Reader, header http.Header) (*http.Response, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "cannot make a request for %s: %v", target, err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refused(resp)
}

// refused turns an answer that is not 2xx into an error.
func (c *Client) refused(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return api.Errorf(api.CodeUnavailable, "cannot read the answer of Perdure at %s: %v", c.where, err)
	}
	e := new(api.Error)
	if json.Unmarshal(data, e) == nil && e.Code != "" {
		return e
	}
	return api.Errorf(api.CodeInternal, "cannot understand the answer of %s: %s (is it Perdure?)", c.where, resp.Status)
}

// lost turns a failure to connect or to read into an error. The end of ctx is
// told as itself: CodeTimeout for a deadline, else CodeUnavailable, both with
// the context's error in the chain.
func (c *Client) lost(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		code := api.CodeUnavailable
		if errors.Is(cause, context.DeadlineExceeded) {
			code = api.CodeTimeout
		}
		return fmt.Errorf("%w (%w)", api.Errorf(code, "cannot wait for Perdure at %s any longer", c.where), cause)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var oe *net.OpError
	if errors.As(err, &oe) && oe.Op == "dial" {
		err = oe.Err
	}
	return api.Errorf(api.CodeUnavailable, `cannot reach Perdure at %s: %v (is it running? start it with "perdure up")`, c.where, err)
}

// processPath is the path of a process's resource.
func processPath(name, rest string) string {
	return "/v1/processes/" + url.PathEscape(name) + rest
}
