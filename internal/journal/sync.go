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
	changed chan struct{} // every has another value; capacity 1
	start   sync.Once
	running sync.WaitGroup

	mu  sync.Mutex
	err error

	onSync  func(SyncHealth) // may be nil
	telling sync.Mutex       // held while onSync is called
	fsyncs  uint64           // guarded by telling: how many have ended
	told    SyncHealth       // guarded by telling
}

// SyncHealth says how the last fsync went.
type SyncHealth struct {
	// Err is why it failed, or nil.
	Err error
	// Slow says that it takes, or has taken, longer than SlowSync.
	Slow bool
}

// SlowSync is the time after which an fsync is told to be slow.
const SlowSync = 2 * time.Second

// timed is an fsync of which onSync is told: that it takes long while it does,
// and at its end how it went.
func (s *syncState) timed(fsync func() (uint64, error)) (uint64, error) {
	if s.onSync == nil {
		return fsync()
	}
	s.telling.Lock()
	number := s.fsyncs
	s.telling.Unlock()
	begin := time.Now()
	late := time.AfterFunc(SlowSync, func() {
		s.telling.Lock()
		defer s.telling.Unlock()
		if s.fsyncs == number {
			s.tell(SyncHealth{Err: s.told.Err, Slow: true})
		}
	})
	last, err := fsync()
	late.Stop()
	s.telling.Lock()
	defer s.telling.Unlock()
	s.fsyncs++
	s.tell(SyncHealth{Err: err, Slow: time.Since(begin) >= SlowSync})
	return last, err
}

// tell tells what has changed. It needs telling.
func (s *syncState) tell(h SyncHealth) {
	changed := (h.Err == nil) != (s.told.Err == nil) || h.Slow != s.told.Slow
	s.told = h
	if changed {
		s.onSync(h)
	}
}

func (s *syncState) begin(every time.Duration, onSync func(SyncHealth)) {
	s.onSync = onSync
	s.every.Store(int64(every))
	s.dirty, s.changed = make(chan struct{}, 1), make(chan struct{}, 1)
}

func (s *syncState) interval() time.Duration { return time.Duration(s.every.Load()) }

// wake has the syncer sync one interval from now.
func (s *syncState) wake() { notify(s.dirty) }

// notify leaves a word for whoever reads c; one is enough.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// SetSyncEvery changes Options.SyncEvery. What was written before is durable at
// the end of the new interval; below 0, it is when the interval is set again.
func (j *Journal) SetSyncEvery(every time.Duration) {
	s := &j.syncState
	s.every.Store(int64(every))
	if every >= 0 {
		j.startSyncLoop()
	}
	notify(s.changed)
	s.wake()
}

// startSyncLoop starts the syncer, once, unless the journal is closed.
func (j *Journal) startSyncLoop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.syncState.start.Do(func() { j.syncState.running.Go(j.syncLoop) })
	}
}

// SyncEvery returns the interval in force.
func (j *Journal) SyncEvery() time.Duration { return j.syncState.interval() }

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

// Durable returns when the entry seq, and so all before it, is durable, if
// SyncEvery is 0, and at once if it is not. Callers that come while another one
// syncs share the next fsync. After an error it may be asked again: the entry
// itself is kept.
func (j *Journal) Durable(seq uint64) error {
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
	last, err := s.timed(j.syncNewest)
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
// durable with it. A segment that was closed meanwhile was synced before. One
// whose fsync has failed is replaced: the next fsync of it may succeed and mean
// nothing.
func (j *Journal) syncNewest() (last uint64, err error) {
	for {
		j.mu.Lock()
		if j.distrust && !j.closed {
			if err := j.rotate(); err != nil {
				j.mu.Unlock()
				return 0, err
			}
		}
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

// syncLoop runs until Close. It sleeps while nothing is written.
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
		if !j.awaitSync(timer) {
			return
		}
		// A failure is kept for Stats. It is tried again with a new segment, whether
		// or not more is appended.
		for j.Sync() != nil {
			timer.Reset(syncRetry)
			select {
			case <-j.done:
				return
			case <-timer.C:
			}
		}
	}
}

// syncRetry is the time between two tries to flush.
const syncRetry = time.Second

// awaitSync waits for the end of the interval, whatever that is changed to
// meanwhile. It returns false when the journal is closed.
func (j *Journal) awaitSync(timer *time.Timer) bool {
	for {
		var due <-chan time.Time
		if every := j.syncState.interval(); every >= 0 {
			timer.Reset(every)
			due = timer.C
		}
		select {
		case <-due:
			return true
		case <-j.syncState.changed:
		case <-j.done:
			return false
		}
	}
}
