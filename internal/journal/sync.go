package journal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/fault"
)

// syncState orders fsyncs. Its lock is taken before Journal.mu, never within.
type syncState struct {
	turn   sync.Mutex // held by the one who syncs
	synced uint64     // guarded by turn: everything up to it is durable

	mu  sync.Mutex
	err error
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
	if j.opts.SyncEvery != 0 {
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
		err := datasync(file)
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

// syncLoop runs from Open to Close where SyncEvery is above 0. It sleeps while
// nothing is written.
func (j *Journal) syncLoop() {
	timer := time.NewTimer(j.opts.SyncEvery)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-j.done:
			return
		case <-j.dirty:
		}
		timer.Reset(j.opts.SyncEvery)
		select {
		case <-j.done:
			return
		case <-timer.C:
		}
		// A failure is kept for Stats, and the next append begins a new segment.
		_ = j.Sync()
	}
}

// syncDir makes names in dir durable. Systems that cannot do so say an error
// that is no loss for a running system, so it is for the caller to weigh.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
