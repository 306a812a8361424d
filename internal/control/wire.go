package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/journal"
)

// MaxLine is the longest line in bytes, either way: room for an Apply of a
// thousand large definitions.
const MaxLine = 64 << 20

// The methods on the wire.
const (
	methodInfo     = "info"
	methodApply    = "apply"
	methodCommand  = "command"
	methodList     = "list"
	methodFollow   = "follow"
	methodHold     = "hold"
	methodAck      = "ack"
	methodGuard    = "guard"
	methodUpgrade  = "upgrade"
	methodShutdown = "shutdown"
	methodWorkers  = "workers"
	methodSend     = "send"
	methodCancel   = "cancel"
)

// hello is the first line of both ends.
type hello struct {
	Version int        `json:"version"`
	Error   *wireError `json:"error,omitempty"`
}

// request is a line from the client. Cancel names a request whose answer
// nobody waits for any more; it has no answer of its own.
type request struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// response is a line from the server.
type response struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
}

type wireError struct {
	api.Error
	// First is set for a *journal.GapError.
	First uint64 `json:"first,omitempty"`
}

type listResult struct {
	Records []Record `json:"records"`
	Seq     uint64   `json:"seq"`
}

type seqParams struct {
	Seq uint64 `json:"seq"`
}

type upgradeParams struct {
	Path string `json:"path"`
}

type shutdownParams struct {
	Timeout api.Duration `json:"timeout"`
}

// toWire keeps the code and, where err is an *api.Error itself, its field.
func toWire(err error) *wireError {
	var gap *journal.GapError
	if errors.As(err, &gap) {
		return &wireError{Error: api.Error{Code: api.CodeConflict, Message: err.Error()}, First: gap.First}
	}
	if e, ok := err.(*api.Error); ok { //nolint:errorlint // a wrapped one keeps the wrapper's text
		return &wireError{Error: *e}
	}
	code := api.CodeOf(err)
	if code == api.CodeInternal {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			code = api.CodeTimeout
		case errors.Is(err, context.Canceled):
			code = api.CodeUnavailable
		}
	}
	return &wireError{Error: api.Error{Code: code, Message: err.Error()}}
}

func (w *wireError) asError() error {
	if w.First > 0 {
		return &journal.GapError{First: w.First}
	}
	e := w.Error
	return &e
}

var errLineTooLong = errors.New("a line is longer than the protocol allows")

// readLine returns the next line without its end. The bytes are valid until the
// next call. It never holds more than limit bytes.
func readLine(r *bufio.Reader, spare []byte, limit int) (line, grown []byte, err error) {
	part, err := r.ReadSlice('\n')
	if err == nil {
		return part[:len(part)-1], spare, nil
	}
	spare = spare[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(spare)+len(part) > limit {
			return nil, nil, errLineTooLong
		}
		spare = append(spare, part...)
		part, err = r.ReadSlice('\n')
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(spare)+len(part) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, spare, err
	}
	if len(spare)+len(part) > limit {
		return nil, nil, errLineTooLong
	}
	spare = append(spare, part...)
	return spare[:len(spare)-1], spare, nil
}

// lineReader reads lines and lets go of a buffer that one long line made large.
type lineReader struct {
	r     *bufio.Reader
	spare []byte
	limit int
}

const keepSpare = 1 << 20

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 16<<10), limit: limit}
}

// next returns the next line, valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	if cap(l.spare) > keepSpare {
		l.spare = nil
	}
	line, spare, err := readLine(l.r, l.spare, l.limit)
	l.spare = spare
	return line, err
}

// encodeLine returns v as one line.
func encodeLine(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) >= MaxLine {
		return nil, fmt.Errorf("cannot send %d bytes over the control socket: at most %d are allowed", len(b), MaxLine)
	}
	return append(b, '\n'), nil
}

// checkVersion returns an error that both a person and the other end understand.
func checkVersion(theirs int) error {
	if theirs == Version {
		return nil
	}
	return api.Errorf(api.CodeConflict,
		"cannot talk: this end speaks version %d of the control protocol and the other end version %d; use the same perdure for both", Version, theirs)
}
