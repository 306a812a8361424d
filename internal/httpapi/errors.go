package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/event"
)

// status is the HTTP status of a code (docs/reference/errors.md).
func status(code api.Code) int { return code.Info().HTTPStatus }

// publicError returns what a caller is told of err: the whole text, under the
// code and field of the *api.Error in its chain.
func publicError(err error) *api.Error {
	var trimmed *event.TrimmedError
	if errors.As(err, &trimmed) {
		return &api.Error{Code: api.CodeNotFound, Message: err.Error()}
	}
	var e *api.Error
	if !errors.As(err, &e) {
		return &api.Error{Code: api.CodeInternal, Message: err.Error()}
	}
	if top, ok := err.(*api.Error); ok && top == e { //nolint:errorlint // whether anything was wrapped around it is the question
		return e
	}
	out := &api.Error{Code: e.Code, Field: e.Field, Message: err.Error()}
	if e.Field != "" {
		out.Message = strings.TrimPrefix(out.Message, e.Field+": ")
	}
	return out
}

// writeError answers with an error; the header must not have been sent.
func writeError(w http.ResponseWriter, code int, e *api.Error) {
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	// A caller that has gone needs no answer.
	_ = json.NewEncoder(w).Encode(e)
}

// fail is a handler's error on its way through huma: an *api.Error with its
// status. It is written as the *api.Error alone.
type fail struct{ err *api.Error }

func (f fail) Error() string                { return f.err.Error() }
func (f fail) GetStatus() int               { return status(f.err.Code) }
func (f fail) Unwrap() error                { return f.err }
func (f fail) MarshalJSON() ([]byte, error) { return json.Marshal(f.err) }

// asFail makes a handler's error ready for huma.
func asFail(err error) error {
	if err == nil {
		return nil
	}
	return fail{publicError(err)}
}

// cutOff is the error of a request that was cut off because the server is being
// replaced, else err.
func cutOff(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), ErrReplaced) {
		return api.Errorf(api.CodeUnavailable, "%v", ErrReplaced)
	}
	return err
}

// humaContext is embedded under a name that is not that of its method Context.
type humaContext = huma.Context

// answerContext lets transformError choose the status, which huma sets after it.
type answerContext struct {
	humaContext
	force int
}

// Unwrap lets humago reach its own context.
func (c *answerContext) Unwrap() huma.Context { return c.humaContext }

// SetStatus sends the status.
func (c *answerContext) SetStatus(code int) {
	if c.force != 0 {
		code = c.force
	}
	c.humaContext.SetStatus(code)
}

// transformError gives huma's own errors, which are about the request, the
// shape and the status of all others.
func transformError(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	if c, ok := ctx.(*answerContext); ok && m.Status == http.StatusUnprocessableEntity {
		c.force = http.StatusBadRequest
	}
	ctx.SetHeader("Content-Type", "application/json")
	return modelError(m), nil
}

func modelError(m *huma.ErrorModel) *api.Error {
	e := &api.Error{Code: codeOfStatus(m.Status), Message: "cannot read the request: " + m.Detail}
	var texts []string
	for _, d := range m.Errors {
		field := strings.TrimPrefix(strings.TrimPrefix(d.Location, "body."), "query.")
		field = strings.TrimPrefix(strings.TrimPrefix(field, "path."), "header.")
		if e.Field == "" && field != "body" {
			e.Field = field
		}
		text := d.Message
		if len(m.Errors) > 1 && field != "" {
			text = field + ": " + text
		}
		texts = append(texts, text)
	}
	if len(texts) > 0 {
		e.Message = "cannot read the request: " + strings.Join(texts, "; ")
	}
	return e
}

func codeOfStatus(s int) api.Code {
	switch {
	case s == http.StatusNotFound:
		return api.CodeNotFound
	case s == http.StatusRequestTimeout:
		return api.CodeTimeout
	case s >= 500:
		return api.CodeInternal
	}
	return api.CodeInvalid
}
