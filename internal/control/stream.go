package control

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/journal"
)

// A Follow's connection carries no lines but pieces, little endian:
//
//	uint32  bytes that follow
//	byte    what it is
//	entry:  uint64 seq, int64 Unix nanoseconds, uint16 length of the key, key, payload
//	error:  a wireError as JSON
const (
	pieceEntry = 1
	pieceError = 2

	pieceHead = 4
	entryHead = 1 + 8 + 8 + 2
)

// readAhead is how much of a stream is read at once.
const readAhead = 128 << 10

// maxFrames bounds the frames of a batch that a stream yields.
const maxFrames = 4096

// appendFrame appends the piece of an entry.
func appendFrame(b []byte, f *Frame) ([]byte, error) {
	n := entryHead + len(f.Key) + len(f.Payload)
	if n > MaxLine || len(f.Key) > journal.MaxKey {
		return b, fmt.Errorf("cannot send an entry of %d bytes over the control socket: at most %d are allowed", n, MaxLine)
	}
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(n))
	b = append(b, pieceEntry)
	b = le.AppendUint64(b, f.Seq)
	b = le.AppendUint64(b, uint64(f.Time.UnixNano()))
	b = le.AppendUint16(b, uint16(len(f.Key)))
	b = append(b, f.Key...)
	return append(b, f.Payload...), nil
}

// appendError appends the piece of an error.
func appendError(b []byte, err error) ([]byte, error) {
	text, err := json.Marshal(toWire(err))
	if err != nil {
		return b, err
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(1+len(text)))
	return append(append(b, pieceError), text...), nil
}

// streamWriter sends what a Follow yields, each batch by one write.
type streamWriter struct {
	to  io.Writer
	buf []byte
}

func (w *streamWriter) send(frames []Frame, err error) error {
	b := w.buf[:0]
	for i := range frames {
		var bad error
		if b, bad = appendFrame(b, &frames[i]); bad != nil {
			return bad
		}
	}
	if err != nil {
		if b, err = appendError(b, err); err != nil {
			return err
		}
	}
	fault.Here("control.frames.before")
	_, err = w.to.Write(b)
	fault.Here("control.frames.after")
	if w.buf = b; cap(b) > keepSpare {
		w.buf = nil
	}
	return err
}

// streamReader reads a stream.
type streamReader struct{ r *bufio.Reader }

var errPiece = errors.New("the stream of the supervisor's journal is garbled")

// next returns the next piece: a frame, or an error that was sent.
func (s *streamReader) next() (f Frame, sent, err error) {
	head, err := s.r.Peek(pieceHead)
	if err != nil {
		return f, nil, cutOff(len(head), err)
	}
	n := binary.LittleEndian.Uint32(head)
	if n == 0 || n > MaxLine {
		return f, nil, errPiece
	}
	_, _ = s.r.Discard(pieceHead) // they are there
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return f, nil, cutOff(1, err)
	}
	switch {
	case b[0] == pieceError:
		var w wireError
		if err := json.Unmarshal(b[1:], &w); err != nil {
			return f, nil, errPiece
		}
		return f, w.asError(), nil
	case b[0] != pieceEntry || len(b) < entryHead:
		return f, nil, errPiece
	}
	le := binary.LittleEndian
	key := int(le.Uint16(b[17:]))
	if len(b) < entryHead+key {
		return f, nil, errPiece
	}
	return Frame{Seq: le.Uint64(b[1:]), Time: time.Unix(0, int64(le.Uint64(b[9:]))).UTC(),
		Key: string(b[entryHead : entryHead+key]), Payload: b[entryHead+key:]}, nil, nil
}

// cutOff tells an end within a piece from one between two.
func cutOff(got int, err error) error {
	if got > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// whole says whether a whole piece is here already.
func (s *streamReader) whole() bool {
	if s.r.Buffered() < pieceHead {
		return false
	}
	head, err := s.r.Peek(pieceHead)
	return err == nil && int64(s.r.Buffered()) >= pieceHead+int64(binary.LittleEndian.Uint32(head))
}

// batches yields the frames as they have come: all that is here, then it waits.
// An error is the last thing that it yields, but for a *journal.GapError.
func (s *streamReader) batches() iter.Seq2[[]Frame, error] {
	return func(yield func([]Frame, error) bool) {
		var batch []Frame
		flush := func() bool {
			frames := batch
			batch = nil
			return len(frames) == 0 || yield(frames, nil)
		}
		for {
			f, sent, err := s.next()
			if sent == nil && err == nil {
				batch = append(batch, f)
				if s.whole() && len(batch) < maxFrames {
					continue
				}
			}
			if !flush() {
				return
			}
			var gap *journal.GapError
			switch {
			case err != nil:
				yield(nil, err)
				return
			case sent != nil && (!yield(nil, sent) || !errors.As(sent, &gap)):
				return
			}
		}
	}
}
