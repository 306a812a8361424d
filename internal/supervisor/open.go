package supervisor

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/flock"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/logstore"
	"github.com/perdure/perdure/internal/probe"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/session"
	"github.com/perdure/perdure/internal/supervise"
)

// Open returns a supervisor over the state directory. It takes the directory's
// lock, reads the journal, and adopts what is recorded in it and still lives.
// The caller calls Close. The descriptors of Options.Inherited are taken over.
func Open(ctx context.Context, o Options) (_ *Supervisor, err error) {
	o = o.filled()
	handed := byName(o.Inherited.Held)
	defer func() {
		for _, h := range handed {
			control.CloseFDs(h.FDs)
		}
	}()
	var closers []func() error
	defer func() {
		if err != nil {
			for i := len(closers) - 1; i >= 0; i-- {
				_ = closers[i]()
			}
		}
	}()
	held, err := o.lock(&closers)
	if err != nil {
		return nil, err
	}
	troubles := newTroubles(o.Dir, o.Logger)
	j, report, err := journal.Open(filepath.Join(o.Dir, "journal"), journal.Options{SyncEvery: journal.DefaultSyncEvery, OnSync: troubles.synced})
	if err != nil {
		return nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	closers = append(closers, j.Close)
	id, err := journalID(filepath.Join(o.Dir, "journal", "id"), j)
	if err != nil {
		return nil, err
	}
	// The journal's name, not the directory's: a state directory that was removed
	// and made anew while its processes lived must not meet them in its cgroups.
	h, err := proc.NewHost(proc.Options{Subreaper: !o.Embedded, CgroupName: o.cgroupName(id), NoPidfdInfo: os.Getenv(PidfdInfoVar) == "off",
		Adopting: o.estate.became()})
	if err != nil {
		return nil, fmt.Errorf("cannot prepare to run processes: %w", err)
	}
	closers = append(closers, h.Close)
	run, err := runDir(o.Dir, id)
	if err != nil {
		return nil, err
	}
	//nolint:contextcheck // the capture outlives the boot; Close ends it
	c, err := logstore.NewCapture(logstore.Options{LogDir: filepath.Join(o.Dir, "logs"), RunDir: run,
		OnTrouble: troubles.output, OnError: func(name string, err error) {
			o.Logger.Error("Cannot look after logs", "process", name, "error", err)
		}})
	if err != nil {
		return nil, fmt.Errorf("cannot prepare the logs: %w", err)
	}
	closers = append(closers, c.Close)
	p := probe.NewRunner(probe.Options{})
	closers = append(closers, func() error { p.Close(); return nil })
	hub, err := session.Open(session.Options{Clock: func() int64 { return int64(o.Clock()) }, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	closers = append(closers, hub.Close)
	s := newSupervisor(o, hostAdapter{h}, captureAdapter{c}, ownedLog{j, held}, p, troubles)
	s.hub = hub
	s.closers, s.notes, s.origin, s.runDir = closers, h.Notes(), origin{journal: id, seq: report.LastSeq, settings: defaultSettings()}, run
	if s.bootID, err = proc.BootID(); err != nil {
		return nil, err
	}
	h.Relayed(o.Inherited.Reaps)
	s.origin.damage = o.repaired(report.Repairs)
	if err := s.recover(ctx, j, handed); err != nil {
		return nil, err
	}
	h.Adopted()
	fault.Here("supervisor.recover.after")
	data := map[string]any{"pid": os.Getpid(), "build": o.Build}
	if len(report.Repairs) > 0 {
		data["journal_repairs"] = report.Repairs
	}
	o.estate.told(s, data)
	s.recovered()
	return s, nil
}

// repaired tells how the journal was repaired, and returns what was lost with it.
func (o *Options) repaired(repairs []journal.Repair) (lost []string) {
	for _, r := range repairs {
		o.Logger.Warn("The journal was repaired", "damage", r.String())
		if r.Lost() {
			lost = append(lost, r.String())
		}
	}
	return lost
}

// lock takes the state directory, unless the estate has it.
func (o Options) lock(closers *[]func() error) (*flock.Lock, error) {
	if o.estate != nil {
		return o.estate.lock, nil
	}
	held, err := flock.Take(lockPath(o.Dir))
	if err == nil {
		*closers = append(*closers, held.Release)
	}
	return held, err
}

func lockPath(dir string) string { return filepath.Join(dir, "supervisor.lock") }

// CgroupVar and PidfdInfoVar are the environment variables that turn off what the
// kernel can do, with the value "off": cgroups, and exit codes for those who are
// not the parent (PIDFD_GET_INFO).
const (
	CgroupVar    = "PERDURE_CGROUP"
	PidfdInfoVar = "PERDURE_PIDFD_INFO"
)

// cgroupName names the folder of a journal's cgroups; empty means none.
func (o Options) cgroupName(journal string) string {
	if o.NoCgroup || os.Getenv(CgroupVar) == "off" {
		return ""
	}
	return "perdure-" + journal[:12]
}

func (o Options) filled() Options {
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = func() supervise.Instant { return supervise.Instant(proc.Now()) }
	}
	if o.Roll == nil {
		o.Roll = mathrand.Float64
	}
	return o
}

// nameKey is the key of the entry that has the journal's name.
const nameKey = "name"

// journalID returns the random name of a journal and gives it one at its
// birth. Readers keep their place under it, so that a journal which was removed
// and begun anew is not taken for the old one. It is in the journal as well: a
// file that is damaged is written again.
func journalID(path string, j *journal.Journal) (string, error) {
	var id string
	for f, err := range j.LatestErr() {
		if err != nil || f.Key != nameKey {
			continue // what cannot be read is told by recover
		}
		if e, err := decode(f); err == nil {
			id = e.Journal
		}
	}
	b, err := os.ReadFile(path)
	there := strings.TrimSpace(string(b))
	sound := err == nil && len(there) == len(rand.Text())
	if sound && there == id {
		return id, nil
	}
	if id == "" {
		if id = strings.ToLower(rand.Text()); sound {
			id = there
		}
		if err := nameJournal(j, id); err != nil || sound {
			return id, err
		}
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("cannot name the journal: %w", err)
	}
	fault.Here("supervisor.journal.before_name")
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("cannot name the journal: %w", err)
	}
	return id, nil
}

// nameJournal writes the name down. A disk that is full now is no reason to end:
// it is tried again by the next supervisor.
func nameJournal(j *journal.Journal, id string) error {
	entry := control.Entry{Journal: id}
	payload, err := entry.Payload()
	if err == nil {
		_, _ = j.Write(nameKey, payload)
	}
	return err
}

// hostAdapter makes a host of a *proc.Host.
type hostAdapter struct{ h *proc.Host }

func (a hostAdapter) start(spec proc.Spec, notify func(proc.Notice)) (live, error) {
	p, err := a.h.Start(spec, notify)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (a hostAdapter) adopt(id proc.Identity, notify func(proc.Notice)) (live, error) {
	p, err := a.h.Adopt(id, notify)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (a hostAdapter) adoptHeld(id proc.Identity, fd int, known *proc.Exit, notify func(proc.Notice)) (live, error) {
	p, err := a.h.AdoptFD(id, fd, known, notify)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (a hostAdapter) told(id proc.Identity, exit proc.Exit) { a.h.Told(id, exit) }

func (a hostAdapter) relayed(on bool) { a.h.Relayed(on) }

func (a hostAdapter) find(marker string) []proc.Identity { return a.h.Find(marker) }

func (a hostAdapter) variable(id proc.Identity, key string) string { return a.h.Variable(id, key) }

func (a hostAdapter) run(ctx context.Context, spec proc.Spec, maxOutput int) (proc.Exit, []byte, error) {
	return a.h.Run(ctx, spec, maxOutput)
}

func (a hostAdapter) owns(id *proc.Identity, marker string, pid int) bool {
	return a.h.Owns(id, marker, pid)
}

func (a hostAdapter) tree(id *proc.Identity) []int { return a.h.Tree(id) }

func (a hostAdapter) sample(id proc.Identity, files bool) (proc.Sample, int, error) {
	return a.h.Sample(id, files)
}

func (a hostAdapter) release(name string) error { return a.h.Release(name) }

func (a hostAdapter) dead(cgroup string) []proc.Identity { return a.h.Dead(cgroup) }

func (a hostAdapter) cgroupOf(name string) string { return a.h.CgroupOf(name) }

func (a hostAdapter) pause() { a.h.Pause() }

// captureAdapter makes outputs of a *logstore.Capture.
type captureAdapter struct{ c *logstore.Capture }

func (a captureAdapter) open(name string, r logstore.Retention, held ...int) (sink, error) {
	s, err := a.c.Open(name, r, held...)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (a captureAdapter) remove(name string) error { return a.c.Remove(name) }

// shutdownDefault bounds a shutdown that nobody gave a timeout for.
const shutdownDefault = 30 * time.Second
