package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// sseMessage is one message of a server-sent event stream (HTML standard, 9.2).
type sseMessage struct {
	id, event string
	data      []byte // valid until the next call of next
}

// sseReader reads server-sent events. Comments and retry fields are skipped: the
// heartbeat's use is that a dead connection is noticed by the system.
type sseReader struct {
	r    *bufio.Reader
	line []byte
	data []byte
}

func newSSEReader(r io.Reader) *sseReader {
	return &sseReader{r: bufio.NewReaderSize(r, 32<<10)}
}

// next returns the next message that has any field.
func (s *sseReader) next() (sseMessage, error) {
	var m sseMessage
	s.data = s.data[:0]
	any := false
	for {
		line, err := readLine(s.r, &s.line)
		if err != nil {
			return m, err
		}
		if len(line) == 0 {
			if !any {
				continue
			}
			m.data = s.data
			return m, nil
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			m.id, any = string(value), true
		case "event":
			m.event, any = string(value), true
		case "data":
			if len(s.data) > 0 {
				s.data = append(s.data, '\n')
			}
			s.data, any = append(s.data, value...), true
		}
	}
}

// readLine returns a line without its end. The slice is valid until the next
// call; buf is what it grows in when a line does not fit the reader's buffer.
func readLine(r *bufio.Reader, buf *[]byte) ([]byte, error) {
	*buf = (*buf)[:0]
	for {
		part, err := r.ReadSlice('\n')
		if err == nil && len(*buf) == 0 {
			return bytes.TrimRight(part, "\r\n"), nil
		}
		*buf = append(*buf, part...)
		switch {
		case err == nil:
			return bytes.TrimRight(*buf, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
				if len(*buf) == 0 {
					err = io.EOF
				}
			}
			return nil, err
		case len(*buf) > maxAnswer:
			return nil, errors.New("a line of the stream is longer than 64 MiB")
		}
	}
}
