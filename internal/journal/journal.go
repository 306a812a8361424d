// Package journal is an append-only log that knows the latest value of each key.
//
// It is a folder of segments. Every segment begins with a copy of the newest
// frame of every live key (the snapshot), so that the newest segment alone
// tells the whole present, and the older ones are needed only by readers that
// are behind. A segment appears under its name with its snapshot complete, or
// not at all.
//
// A frame is written by one write(2): once Append has returned, SIGKILL of the
// process loses nothing. A power cut loses at most Options.SyncEvery. The
// format is described in docs/reference/journal.md.
//
// The journal takes no lock on its folder: exactly one process may have it
// open, and the caller sees to that.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// FormatVersion is the version of the files that this package writes, and the
// newest that it reads. The ledger is in docs/reference/journal.md.
const FormatVersion = 1

// The bounds of one frame.
const (
	// MaxPayload is the largest payload in bytes.
	MaxPayload = 32 << 20
	// MaxKey is the longest key in bytes.
	MaxKey = 4096
)

// SeqJump is how far the numbering jumps when frames may have been lost whose
// numbers a reader has seen already, so that no number is ever used twice.
const SeqJump = 1 << 20

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("the journal is closed")

// Options are the settings of a journal. The zero value is not the default
// everywhere: see SyncEvery.
type Options struct {
	// SegmentSize is the size in bytes at which a segment is closed. Default
	// 16 MiB. A segment is at least four times as large as its snapshot.
	SegmentSize int64
	// SyncEvery is the longest time between a write and its fsync: a power cut
	// loses at most this. 0 means that Append returns after the fsync, shared
	// by concurrent callers; below 0 there is no fsync. DefaultSyncEvery is
	// what the supervisor uses. SetSyncEvery changes it.
	SyncEvery time.Duration
	// OnSync is told when an fsync fails or is slow, and when that is over. It may
	// append, and must not wait for an fsync. May be nil.
	OnSync func(SyncHealth)
	// MaxBytes bounds all segments together; the oldest beyond it are dropped
	// and counted, acknowledged or not. Default 256 MiB.
	MaxBytes int64
}

// DefaultSyncEvery is the interval of fsync that the supervisor uses.
const DefaultSyncEvery = 100 * time.Millisecond

// Frame is one entry.
type Frame struct {
	// Seq is the entry's number: it grows by one from entry to entry and is
	// never reused. It jumps by SeqJump after a loss (see GapError).
	Seq uint64
	// Time is the wall clock at the append, for people.
	Time time.Time
	Key  string
	// Payload belongs to whoever got the frame.
	Payload []byte
	// Deleted says that the entry removed the key.
	Deleted bool
}

// Entry is one element of AppendAll.
type Entry struct {
	Key     string
	Payload []byte
	Delete  bool
}

// Report says what Open found.
type Report struct {
	// Segments is the number of segments, LastSeq the number of the last entry.
	Segments int
	LastSeq  uint64
	// Repairs says what was damaged and what became of it; empty is well.
	Repairs []Repair
	// Jumped says that the numbering jumped by SeqJump because entries may
	// have been lost at the end.
	Jumped bool
}

// Repair is one damage that Open met.
type Repair struct {
	// File is the name of the segment.
	File string
	// Offset and Bytes say where and how much.
	Offset, Bytes int64
	// Kind is "torn_tail" (an unfinished write, cut off), "corrupt_tail" (cut
	// off), "corrupt" (skipped) or "header" (of a segment; its frames were read).
	Kind string
}

// String returns a sentence for people.
func (r Repair) String() string {
	return fmt.Sprintf("%s: %s at offset %d, %d bytes", r.File, r.Kind, r.Offset, r.Bytes)
}

// Lost says that the damage may have taken entries with it. An unfinished write
// was none yet.
func (r Repair) Lost() bool { return r.Kind != "torn_tail" && r.Kind != "header" }

// GapError tells a reader that entries between its place and First are gone:
// removed, dropped beyond MaxBytes, damaged or (after a power cut) maybe never
// kept. First is where it may go on; it lies before the reader's place when the
// journal is younger than the reader.
type GapError struct{ First uint64 }

// Error returns the sentence.
func (e *GapError) Error() string {
	return fmt.Sprintf("journal entries before number %d are gone", e.First)
}

// VersionError says that a segment was written by a newer program.
type VersionError struct {
	File    string
	Version uint32
}

// Error returns the sentence.
func (e *VersionError) Error() string {
	return fmt.Sprintf("cannot read %s: it has format version %d and this program knows versions up to %d; use the newer program",
		e.File, e.Version, FormatVersion)
}

// Stats are figures for doctor.
type Stats struct {
	LastSeq  uint64
	Segments int
	Bytes    int64
	Keys     int
	// Dropped is the number of segments removed because of MaxBytes since Open.
	Dropped int
	// Damaged is the number of keys whose newest value could not be read back
	// and is lost, since Open.
	Damaged int
	// SyncError is the last failure of fsync, or nil since one has succeeded.
	SyncError error
}

// position is where the newest frame of a key is.
type position struct {
	seg  *origin
	off  int64
	size int64
	seq  uint64
}

// origin is the identity of a segment: two files that had the same name after
// one another differ in it. It never changes.
type origin struct {
	base uint64 // the first number that it may hold
	path string
}

// segment is one file. All fields are guarded by Journal.mu.
type segment struct {
	*origin
	size int64 // bytes that are valid
}

// Journal is an open journal. Its methods may be called from any goroutine.
type Journal struct {
	dir  string
	opts Options
	disk disk
	boot uint64

	mu        sync.Mutex
	file      file // the newest segment
	segs      []segment
	seq       uint64 // the last number given
	latest    map[string]position
	live      int64 // bytes of all newest frames
	rotateAt  int64 // size at which the next segment is begun
	distrust  bool  // the newest segment must not be the only one: rotate first
	buf       []byte
	wake      chan struct{} // closed by the next append; nil while nobody waits
	dropped   int
	damaged   int
	closed    bool
	done      chan struct{} // closed by Close
	syncState syncState
}

func (o Options) withDefaults() Options {
	if o.SegmentSize <= 0 {
		o.SegmentSize = 16 << 20
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	return o
}

// Open opens the journal in dir and makes it if needed (mode 0700, files 0600).
// Damage is repaired as far as possible and told in the report; only a newer
// format or an error of the file system makes Open fail. The caller calls Close.
func Open(dir string, o Options) (*Journal, Report, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, Report{}, fmt.Errorf("cannot make the journal: %w", err)
	}
	return open(dir, o, osDisk{}, bootHash())
}

// open is Open on a disk, in a boot of the machine.
func open(dir string, o Options, d disk, boot uint64) (*Journal, Report, error) {
	j := &Journal{
		dir: dir, opts: o.withDefaults(), disk: d, boot: boot,
		latest: map[string]position{}, done: make(chan struct{}),
	}
	j.syncState.begin(o.SyncEvery, o.OnSync)
	rep, err := j.recover()
	if err != nil {
		if j.file != nil {
			err = errors.Join(err, j.file.Close())
		}
		return nil, rep, err
	}
	rep.Segments, rep.LastSeq = len(j.segs), j.seq
	if o.SyncEvery >= 0 {
		j.startSyncLoop()
	}
	return j, rep, nil
}

// LastSeq returns the number of the last entry, 0 if there was never one.
func (j *Journal) LastSeq() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq
}

// Stats returns figures for doctor.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	s := Stats{LastSeq: j.seq, Segments: len(j.segs), Keys: len(j.latest), Dropped: j.dropped, Damaged: j.damaged}
	for _, g := range j.segs {
		s.Bytes += g.size
	}
	j.mu.Unlock()
	s.SyncError = j.syncState.lastError()
	return s
}

// Close ends all Follow, makes what was written durable (unless SyncEvery is
// below 0), marks the end as clean and closes the files. A second Close does
// nothing.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	close(j.done)
	// Without the mark the next Open only assumes a power cut after a reboot.
	_, markErr := j.write(appendFrame(j.buf[:0], kindClose, j.seq, time.Now().UnixNano(), "", nil))
	j.mu.Unlock()
	j.syncState.running.Wait()
	var syncErr error
	if j.syncState.interval() >= 0 {
		syncErr = j.Sync()
	}
	return errors.Join(markErr, syncErr, j.file.Close())
}

func (j *Journal) newest() *segment { return &j.segs[len(j.segs)-1] }

func (j *Journal) segmentPath(base uint64) string {
	return filepath.Join(j.dir, segmentName(base))
}
