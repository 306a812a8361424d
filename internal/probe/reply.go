package probe

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// maxBody bounds what is read of an answer, in bytes.
const maxBody = 1 << 20

// maxHead bounds the status line and the headers of an answer, in bytes.
const maxHead = 64 << 10

// reply reads an HTTP/1 answer as it comes (RFC 9112): the status line, what
// tells where the body ends, and the body. Interim answers (1xx, but 101) are
// passed over. The zero value is ready; buf is filled by the caller.
type reply struct {
	buf []byte // all that has come

	scan  int // up to here no end of line is in buf
	begin int // of the line that is being read
	code  int // 0 until the status line has come
	minor byte
	head  int // where the body begins; 0 until it is known

	length  int // of the body; -1 when it ends with the connection
	chunked bool
	body    []byte // what has been decoded of chunks
	next    int    // the chunk that is to be decoded
}

// reset makes r ready for another answer and keeps its buffer.
func (r *reply) reset() { *r = reply{buf: r.buf[:0]} }

var (
	errNotHTTP    = errors.New("malformed status line")
	errHeader     = errors.New("malformed header")
	errLength     = errors.New("malformed length of the body")
	errEncoding   = errors.New("unknown transfer encoding")
	errChunk      = errors.New("malformed chunk")
	errCutShort   = errors.New("the connection ended too early")
	errHeadTooBig = errors.New("the answer's headers are too long")
	errBodyTooBig = errors.New("the answer is longer than " + strconv.Itoa(maxBody) + " bytes")
)

// line returns the next whole line without its end. No line: ok is false.
func (r *reply) line() (line []byte, ok bool) {
	i := bytes.IndexByte(r.buf[r.scan:], '\n')
	if i < 0 {
		r.scan = len(r.buf)
		return nil, false
	}
	line = bytes.TrimSuffix(r.buf[r.begin:r.scan+i], []byte("\r"))
	r.scan += i + 1
	r.begin = r.scan
	return line, true
}

// readHead returns true once the head has come.
func (r *reply) readHead() (bool, error) {
	for r.head == 0 {
		line, ok := r.line()
		if r.scan > maxHead {
			return false, errHeadTooBig
		}
		var err error
		switch {
		case !ok:
			return false, nil
		case r.code == 0:
			err = r.status(line)
		case len(line) > 0:
			err = r.header(line)
		case r.code < 200 && r.code != 101:
			r.code = 0
		default:
			r.head = r.begin
			r.next = r.begin
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// status reads "HTTP/1.1 200 OK"; the reason may be missing, with the space
// before it.
func (r *reply) status(line []byte) error {
	const version = len("HTTP/1.1")
	if len(line) < version+4 || string(line[:5]) != "HTTP/" || !digit(line[5]) || line[6] != '.' || !digit(line[7]) || line[8] != ' ' {
		return errNotHTTP
	}
	code := bytes.TrimLeft(line[version:], " ")
	if len(code) < 3 || !digit(code[0]) || code[0] == '0' || !digit(code[1]) || !digit(code[2]) || len(code) > 3 && code[3] != ' ' {
		return errNotHTTP
	}
	r.code = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	r.minor = line[7]
	r.length, r.chunked = -1, false
	if r.code == 204 || r.code == 304 {
		r.length = 0
	}
	return nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// header takes over what tells where the body ends.
func (r *reply) header(line []byte) error {
	if line[0] == ' ' || line[0] == '\t' {
		return nil // goes on with the line before; neither of ours is so long
	}
	key, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(key) == 0 {
		return errHeader
	}
	switch {
	case r.code == 204 || r.code == 304: // there is no body, whatever they say
	case len(key) == len("Content-Length") && strings.EqualFold(string(key), "Content-Length"):
		n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 62)
		length := int(min(n, maxBody+1))
		if err != nil || r.length >= 0 && r.length != length {
			return errLength
		}
		r.length = length
	case len(key) == len("Transfer-Encoding") && strings.EqualFold(string(key), "Transfer-Encoding") && r.minor != '0':
		if !strings.EqualFold(string(bytes.TrimSpace(value)), "chunked") {
			return errEncoding
		}
		r.chunked = true
	}
	return nil
}

// readBody returns the body once it has come; eof says that nothing more does.
func (r *reply) readBody(eof bool) (body []byte, done bool, err error) {
	have := r.buf[r.head:]
	switch {
	case r.chunked:
		done, err := r.chunks()
		if err == nil && !done && eof {
			err = errCutShort
		}
		return r.body, done, err
	case r.length > maxBody || len(have) > maxBody && r.length < 0:
		return nil, false, errBodyTooBig
	case r.length >= 0 && len(have) >= r.length:
		return have[:r.length], true, nil
	case r.length >= 0 && eof:
		return nil, false, errCutShort
	}
	return have, eof, nil
}

// chunks decodes what has come of a chunked body (RFC 9112, 7.1) and returns
// true at its end. What follows the last chunk is not waited for.
func (r *reply) chunks() (bool, error) {
	for {
		rest := r.buf[r.next:]
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			if len(rest) > maxChunkLine {
				return false, errChunk
			}
			return false, nil
		}
		text, _, _ := bytes.Cut(rest[:i], []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 16, 62)
		switch {
		case err != nil:
			return false, errChunk
		case size == 0:
			return true, nil
		case size > maxBody || len(r.body)+int(size) > maxBody || r.next > 2*maxBody:
			return false, errBodyTooBig
		}
		data := rest[i+1:]
		if len(data) < int(size)+2 {
			return false, nil
		}
		if data[size] != '\n' && string(data[size:size+2]) != "\r\n" {
			return false, errChunk
		}
		r.body = append(r.body, data[:size]...)
		r.next += i + 1 + int(size) + 1
		if data[size] == '\r' {
			r.next++
		}
	}
}

// maxChunkLine bounds the line before a chunk, in bytes.
const maxChunkLine = 4096
