package supervisor

import (
	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/control"
	"github.com/perdure/perdure/internal/fault"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/supervise"
)

// bootKey is the key of the entries that begin and end a boot of Perdure.
const bootKey = "boot"

// sourceAPI is the source of processes that came over the API.
const sourceAPI = "api"

// origin is where a supervisor began, and what the journal says that is about no
// process.
type origin struct {
	journal  string           // the journal's name
	seq      uint64           // its last entry then
	boot     control.Boot     // the newest boot of Perdure; guarded by Supervisor.mu
	settings control.Settings // in force; belongs to who holds end.applying
	damage   []string         // what it had lost when it was opened
}

// settingsKey is the key of the entries that change settings.
const settingsKey = "settings"

// defaultSettings are those of a journal that has none.
func defaultSettings() control.Settings {
	return control.Settings{Sync: api.Duration(journal.DefaultSyncEvery)}
}

// adjust takes settings over and writes them down, if they are others than those
// in force. It has nothing to do with boots or processes.
func (s *Supervisor) adjust(to *control.Settings) error {
	if to == nil || *to == s.origin.settings {
		return nil
	}
	entry := control.Entry{Settings: to}
	payload, err := entry.Payload()
	if err != nil {
		return err
	}
	if _, err := s.log.Write(settingsKey, payload); err != nil {
		return api.Errorf(api.CodeUnavailable, "cannot write the settings to the journal: %v", err)
	}
	s.origin.settings = *to
	s.log.SetSyncEvery(to.Sync.D())
	if to.Sync < 0 {
		s.troubles.synced(journal.SyncHealth{}) // nobody will flush any more
	}
	return nil
}

// readSettings takes over those that the supervisor before has written down. It
// is called before anything else is written.
func (s *Supervisor) readSettings(f journal.Frame) {
	e, err := decode(f)
	if err != nil || e.Settings == nil {
		s.o.Logger.Error("Cannot read the settings in the journal; the defaults hold", "error", err)
		return
	}
	s.origin.settings = *e.Settings
	s.log.SetSyncEvery(e.Settings.Sync.D())
}

// boot returns the newest boot of Perdure.
func (s *Supervisor) boot() control.Boot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.origin.boot
}

// setBoot writes down that a boot begins or ends. If the journal cannot be
// written it holds all the same: what this boot begins carries its number, and
// what a shutdown stops says so.
func (s *Supervisor) setBoot(b control.Boot, events ...control.Event) {
	fault.Here("supervisor.boot.before")
	s.troubles.write(bootKey, control.Entry{Boot: &b, Events: events})
	fault.Here("supervisor.boot.after")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.origin.boot = b
}

// beginBoot begins a boot if none is under way. It is called when everything
// that the boot is to begin has been defined, and before any of it is begun: from
// then on no server is needed to carry it out.
func (s *Supervisor) beginBoot() {
	if b := s.boot(); b.Over {
		s.setBoot(control.Boot{Number: b.Number + 1, BootID: s.bootID})
	}
}

// sayOver tells that nothing lives any more. The boot is over, and with it what
// a process has asked for in it.
func (s *Supervisor) sayOver() {
	b := s.boot()
	b.Over = true
	s.setBoot(b, control.Event{Type: "supervisor.stopped"})
}

// goOn takes up the boot of the journal, before any actor runs. If it is under
// way it returns what is defined and not begun yet: that was cut off. A boot of
// Perdure ends with the boot of the machine.
func (s *Supervisor) goOn(b *control.Boot) (due []*actor) {
	if b == nil {
		b = s.unnumbered()
	}
	s.origin.boot = *b
	if b.BootID != s.bootID {
		s.origin.boot.Over = true
	}
	over := s.origin.boot.Over
	for _, a := range s.actors {
		a.past.over = over || a.past.boot != b.Number
		if !over && a.past.boot != b.Number {
			due = append(due, a)
		}
	}
	return due
}

// unnumbered is the boot of a journal that was begun before boots had numbers. If
// anything is under way in it, that goes on.
func (s *Supervisor) unnumbered() *control.Boot {
	b := control.Boot{BootID: s.bootID, Over: true}
	for _, a := range s.actors {
		if !atRest(a.state.State) && !a.past.otherBoot {
			b.Number, b.Over = 1, false
		}
	}
	if b.Over {
		return &b
	}
	for _, a := range s.actors {
		if a.state.State != api.StateIdle {
			a.past.boot = b.Number
		}
	}
	s.setBoot(b)
	return &b
}

// begin begins the process, unless this boot has done that already. In a boot
// once begun it means nothing that a supervisor or a server dies: the process goes
// on as it is, be it alive, waiting for its next start, or at rest for good.
func (a *actor) begin() error {
	boot, before := a.sup.boot().Number, a.past.boot
	if before == boot && !a.cutDown() {
		return nil
	}
	a.past.boot = boot // it goes with the next entry
	wish := a.def.Autostart == nil || *a.def.Autostart
	if before != 0 && a.who.source == sourceAPI {
		wish = a.state.Desired == api.DesiredRunning
	}
	// One that was stopped by hand stays stopped if it is "unless-stopped".
	byHand := a.state.Desired == api.DesiredStopped && a.state.State == api.StateStopped
	if !wish || byHand && a.def.Restart == api.RestartUnlessStopped {
		return nil
	}
	return a.start(supervise.Input{Kind: supervise.Start, Force: true})
}

// cutDown says that a shutdown has stopped the process that has itself been cut
// off: whoever applies definitions afterwards wants it back.
func (a *actor) cutDown() bool {
	switch a.state.State {
	case api.StateStopped:
		return a.state.Reason == api.ReasonShutdown
	case api.StateStopping:
		return a.state.StopCause == api.ReasonShutdown
	}
	return false
}
