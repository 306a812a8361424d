package journal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/fault"
)

// syncState orders fsyncs. Its lock is taken before Journal.mu, never within.
type syncState struct {
	turn   sync.Mutex // held by the one who syncs
	synced uint64     // guarded by turn: everything up to it is durable

	every   atomic.Int64  // Options.SyncEvery
	dirty   chan struct{} // wakes the syncer; capacity 1
	running sync.WaitGroup

	mu  sync.Mutex
	err error
}

func (s *syncState) begin(every time.Duration) {
	s.every.Store(int64(every))
	s.dirty = make(chan struct{}, 1)
}

func (s *syncState) interval() time.Duration { return time.Duration(s.every.Load()) }

// wake has the syncer sync one interval from now.
func (s *syncState) wake() {
	select {
	case s.dirty <- struct{}{}:
	default: // it is awake
	}
}

// SetSyncEvery changes Options.SyncEvery, which must not have been below 0, for
// the appends to come. A negative interval is 0.
func (j *Journal) SetSyncEvery(every time.Duration) {
	j.syncState.every.Store(int64(max(0, every)))
	// What was written before is durable at the end of the new interval.
	j.syncState.wake()
}

func (s *syncState) lastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *syncState) setError(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// afterWrite makes the entry seq durable where the options ask for it before
// Append returns. Callers that come while another one syncs share the next fsync.
func (j *Journal) afterWrite(seq uint64) error {
	if j.syncState.interval() != 0 {
		return nil
	}
	return j.syncTo(seq)
}

// Sync makes everything that was appended before durable.
func (j *Journal) Sync() error { return j.syncTo(j.LastSeq()) }

func (j *Journal) syncTo(seq uint64) error {
	s := &j.syncState
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.synced >= seq && seq > 0 && !j.isClosed() {
		return nil
	}
	last, err := j.syncNewest()
	if err != nil {
		err = fmt.Errorf("cannot make the journal durable: %w", err)
		s.setError(err)
		// After a failed fsync the kernel may have dropped what it could not
		// write (fsync(2)); a new segment writes all that lives once more.
		j.mu.Lock()
		j.distrust = true
		j.mu.Unlock()
		return err
	}
	s.setError(nil)
	s.synced = last
	return nil
}

// syncNewest syncs the newest segment and returns the last number that is
// durable with it. A segment that was closed meanwhile was synced before.
func (j *Journal) syncNewest() (last uint64, err error) {
	for {
		j.mu.Lock()
		file, seq := j.file, j.seq
		j.mu.Unlock()
		if err := fault.Point("journal.sync"); err != nil {
			return 0, err
		}
		err := file.Sync()
		if err == nil {
			return seq, nil
		}
		j.mu.Lock()
		replaced := j.file != file
		j.mu.Unlock()
		if !replaced || !errors.Is(err, os.ErrClosed) {
			return 0, err
		}
	}
}

func (j *Journal) isClosed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.closed
}

// syncLoop runs from Open to Close unless SyncEvery is below 0. It sleeps while
// nothing is written.
func (j *Journal) syncLoop() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-j.done:
			return
		case <-j.syncState.dirty:
		}
		timer.Reset(j.syncState.interval())
		select {
		case <-j.done:
			return
		case <-timer.C:
		}
		// A failure is kept for Stats, and the next append begins a new segment.
		_ = j.Sync()
	}
}
