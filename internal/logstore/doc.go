// Package logstore keeps what processes write: it captures their output
// through named FIFOs, stores it in segments with a time index beside them,
// rotates, compresses and removes segments, and reads them back.
//
// # Capture
//
// Each process has two FIFOs, RUN/NAME.out and RUN/NAME.err. The capture and
// the child both hold them open for reading and writing, so that the death of
// either gives the other neither EPIPE nor an end of file: at worst a writer
// waits. Nothing is ever concluded from the end of a FIFO.
//
// On Linux bytes go from the FIFO to the segment by splice(2), inside one
// system call: a SIGKILL of the capturing process neither loses nor doubles a
// byte, and the next capture continues where the file ends. Elsewhere (and on
// file systems that cannot splice) they are read and then written; there a
// SIGKILL between the two loses at most one block of 64 KiB.
// What is in a FIFO lives as long as somebody holds the FIFO open; see Sink.FIFOs.
//
// # Files
//
// LOGS/NAME/ holds segments. A segment is named after the offset of its first
// byte, counted over all output that the process ever had, in 16 hexadecimal
// digits: BASE.log has the bytes of both streams in the order of their arrival,
// nothing added; BASE.idx says which bytes came from which stream and when.
// The segment with the greatest base is the one that is written; the link
// current.log leads to it. Closed segments may be packed: BASE.log.gz,
// BASE.idx.gz. Files are never renamed while they are written, so a reader in
// another process needs no lock.
//
// An index entry says "from this offset on, stream S, time T". It is written
// before the bytes it speaks of, and only when the stream changes or 1 ms has
// passed since the last one: the resolution of times is 1 ms, and the last entry
// covers everything to the end of the file.
package logstore

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Options say where a Capture keeps its files.
type Options struct {
	// LogDir gets one directory per process, RunDir the FIFOs. Both are made
	// with mode 0700 where they do not exist.
	LogDir, RunDir string
	// OnTrouble tells that the output of a process cannot be stored, once, when it
	// begins, and without an Err that it is stored again. It must not block and
	// must not call the Sink. May be nil.
	OnTrouble func(name string, t Trouble)
	// OnError tells what went wrong with closed segments: packing, removing. The
	// same holds for it.
	OnError func(name string, err error)
}

// Trouble says whether the output of a process can be stored. While it cannot,
// the bytes wait in the FIFO, and the process waits with them, or they are
// discarded (Retention.Drop). It is tried again every second.
type Trouble struct {
	// Err is why it cannot be stored; nil when it is stored again.
	Err error
	// Drops says that output is discarded meanwhile.
	Drops bool
	// Lost is, without an Err, how many bytes were discarded.
	Lost int64
}

// Retention says when a segment is closed and how long closed ones are kept.
// With its indexes, a process never takes more than (MaxFiles+1)*2*MaxSize bytes.
type Retention struct {
	// MaxSize is the number of bytes, index included, at which a segment is
	// closed: at the next point where both streams are at the end of a line, or
	// at 2*MaxSize. 0 means 10 MiB; less than 4 KiB is taken as 4 KiB.
	MaxSize int64
	// MaxAge closes a segment that began longer ago, and removes a closed one
	// that was last written longer ago. 0 means no limit. Looked at once a minute.
	MaxAge time.Duration
	// MaxFiles is how many closed segments are kept. 0 means 5, negative none.
	MaxFiles int
	// Compress packs closed segments with gzip, in the background.
	Compress bool
	// Drop discards output that cannot be stored, so that the process never waits
	// for the disk. What was discarded is counted, see Trouble.
	Drop bool
}

func (r Retention) normal() Retention {
	switch {
	case r.MaxSize <= 0:
		r.MaxSize = 10 << 20
	case r.MaxSize < 4<<10:
		r.MaxSize = 4 << 10
	}
	switch {
	case r.MaxFiles == 0:
		r.MaxFiles = 5
	case r.MaxFiles < 0:
		r.MaxFiles = 0
	}
	if r.MaxAge < 0 {
		r.MaxAge = 0
	}
	return r
}

// ErrClosed is returned by a Capture or a Sink after Close.
var ErrClosed = errors.New("the log capture is closed")

// checkName refuses names that could lead out of a directory or hide in it.
// Names are checked where they come in; this is the last door (N17).
func checkName(name string) error {
	if name == "" || len(name) > 200 || name[0] == '.' || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf("cannot keep logs for %q: a name has 1 to 200 bytes, no path separator and no leading dot", name)
	}
	return nil
}
