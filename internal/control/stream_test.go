package control

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/journal"
)

// read returns all that a stream yields.
func read(b []byte) (frames []Frame, batches int, errs []error) {
	s := streamReader{r: bufio.NewReaderSize(bytes.NewReader(b), readAhead)}
	for batch, err := range s.batches() {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		batches++
		frames = append(frames, batch...)
	}
	return frames, batches, errs
}

func TestStreamBringsFramesAsTheyAre(t *testing.T) {
	t.Parallel()
	want := []Frame{
		{Seq: 1, Time: time.Unix(1, 2).UTC(), Key: "process/a", Payload: []byte("{\"a\":\n1}")},
		{Seq: 1 << 60, Time: time.Unix(-5, 0).UTC(), Key: "", Payload: []byte{}},
		{Seq: 3, Time: time.Unix(3, 0).UTC(), Key: "k", Payload: bytes.Repeat([]byte{0}, 3*readAhead)},
		{Seq: 4, Time: time.Unix(4, 0).UTC(), Key: "k", Payload: []byte("x")},
	}
	var out bytes.Buffer
	w := streamWriter{to: &out}
	if err := errors.Join(w.send(want[:2], nil), w.send(nil, &journal.GapError{First: 3}), w.send(want[2:], nil),
		w.send(nil, api.Errorf(api.CodeFailed, "over"))); err != nil {
		t.Fatal(err)
	}
	got, batches, errs := read(out.Bytes())
	same := func(a, b Frame) bool {
		return a.Seq == b.Seq && a.Time.Equal(b.Time) && a.Key == b.Key && bytes.Equal(a.Payload, b.Payload)
	}
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("%d frames came, not as they were sent", len(got))
	}
	var gap *journal.GapError
	if len(errs) != 2 || !errors.As(errs[0], &gap) || gap.First != 3 || errs[1].Error() != "over" || batches > 4 {
		t.Errorf("%d batches, %v", batches, errs)
	}
	// Cut off anywhere, it yields a beginning of the frames and says that it is cut.
	for n := range 200 {
		got, _, errs := read(out.Bytes()[:n])
		if len(got) > 2 || !slices.EqualFunc(got, want[:len(got)], same) || len(errs) == 0 {
			t.Fatalf("cut at %d: %d frames, %v", n, len(got), errs)
		}
		if last := errs[len(errs)-1]; !errors.Is(last, io.EOF) && !errors.Is(last, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: %v", n, last)
		}
	}
}

func TestStreamRefusesWhatIsTooLong(t *testing.T) {
	t.Parallel()
	w := streamWriter{to: io.Discard}
	if err := w.send([]Frame{{Payload: make([]byte, MaxLine)}}, nil); err == nil {
		t.Error("sent")
	}
}

// FuzzStream reads anything as a stream.
func FuzzStream(f *testing.F) {
	frame, err := appendFrame(nil, &Frame{Seq: 1, Key: "k", Payload: []byte("{}")})
	if err != nil {
		f.Fatal(err)
	}
	gap, err := appendError(frame, &journal.GapError{First: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add(gap)
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, _, errs := read(data)
		size := 0
		for i := range frames {
			size += pieceHead + entryHead + len(frames[i].Key) + len(frames[i].Payload)
		}
		if size > len(data) || len(errs) == 0 {
			t.Errorf("%d bytes of frames in %d, %d errors", size, len(data), len(errs))
		}
	})
}
