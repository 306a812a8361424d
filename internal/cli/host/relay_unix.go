//go:build unix

package host

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
)

// Relayed passes signals of this process on to one that it runs.
type Relayed struct {
	cmd     *exec.Cmd
	signals chan os.Signal
	taken   chan os.Signal
	done    chan struct{}
	begun   sync.Once
}

// Relay prepares cmd for it, before cmd is started. The program gets a group of
// its own, so that a signal to our group reaches it once, through us. On a
// terminal it stays in ours, or it could not read; what the terminal sends to
// the whole group is not passed on then.
func Relay(cmd *exec.Cmd, terminal bool) *Relayed {
	r := &Relayed{cmd: cmd, signals: make(chan os.Signal, 16), taken: make(chan os.Signal, 1), done: make(chan struct{})}
	list := []os.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}
	if terminal {
		// Taken and not passed on. Ignored they would be for the program too.
		signal.Notify(r.taken, syscall.SIGINT, syscall.SIGQUIT)
	} else {
		list = append(list, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGWINCH, syscall.SIGCONT)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	signal.Notify(r.signals, list...)
	return r
}

// Started begins to pass signals on, those that came before first.
func (r *Relayed) Started() {
	r.begun.Do(func() {
		go func() {
			defer close(r.done)
			for s := range r.signals {
				_ = r.cmd.Process.Signal(s) // it has ended: nobody is left to be told
			}
		}()
	})
}

// Stop ends it.
func (r *Relayed) Stop() {
	signal.Stop(r.signals)
	signal.Stop(r.taken)
	r.begun.Do(func() { close(r.done) })
	close(r.signals)
	<-r.done
}

// ExitCode is how a program ended, 128 + n after signal n.
func ExitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}
