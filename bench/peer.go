//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// program is one thing to be kept running.
type program struct {
	name string
	argv []string
}

// setup is what a peer shall run, and with which of its abilities.
type setup struct {
	programs []program
	// logs asks for captured output in a file, without rotation by size.
	logs bool
	// check, if set, is asked of each program by HTTP, each interval.
	check    string
	interval time.Duration
	// exits asks for a record of how the programs end, if it takes a setting.
	exits bool
}

// errCannot says that a peer has no such ability; the row leaves it out.
var errCannot = errors.New("cannot do that")

// peer is a supervisor under measurement. The same value is used for many
// incarnations; each has a folder and a mark of its own.
type peer interface {
	// name is what the tables call it.
	name() string
	// find returns its version, or an error when it is not installed.
	find(ctx context.Context) (version string, err error)
	// configure writes the configuration into in.dir.
	configure(in *incarnation) error
	// start begins as a user would; the programs may run later. It is called
	// again on the same folder after a crash.
	start(ctx context.Context, in *incarnation) error
	// stop ends the programs and the supervisor. It may return earlier.
	stop(ctx context.Context, in *incarnation) error
	// logFiles lists the files that hold the output of a program.
	logFiles(in *incarnation, program string) []string
	// kills says what of it can be killed.
	kills() []kill
	// told says whether the peer can tell that a program ended with a code: by a
	// command, by its own log, or by what it lets a user keep.
	told(ctx context.Context, in *incarnation, program string, code int) bool
}

// kill is a part of a peer whose death is measured.
type kill struct {
	// what is the name of the part, "" for the whole.
	what string
	// of picks the processes by their command.
	of func(argv []string) bool
}

// everything is all processes of a peer, without the programs.
func everything([]string) bool { return true }

// called picks the processes of one command.
func called(name string) func([]string) bool {
	return func(argv []string) bool { return filepath.Base(argv[0]) == name }
}

// incarnation is one run of one peer.
type incarnation struct {
	peer  peer
	b     *bench
	dir   string
	mark  string
	setup setup
	// main is the process that start has left running, if it has.
	main *mainProcess
}

// mainProcess is waited for by a goroutine of its own.
type mainProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func allPeers(b *bench) []peer {
	return []peer{
		&floorPeer{"floor-c", b.tools.floorC}, &floorPeer{"floor-go", b.tools.floorGo},
		&perdurePeer{b.perdure}, pebblePeer{}, runitPeer{}, s6Peer{}, pm2Peer{}, supervisordPeer{}, processComposePeer{},
	}
}

// incarnate prepares n programs of a peer under a name of their own; mode holds
// further arguments of the child.
func (b *bench) incarnate(p peer, n int, mode ...string) (*incarnation, error) {
	b.serial++
	mark := fmt.Sprintf("%s-%d-%d", p.name(), os.Getpid(), b.serial)
	in := &incarnation{peer: p, b: b, mark: mark, dir: filepath.Join(b.dir, mark)}
	for i := range n {
		name := fmt.Sprintf("p%04d", i)
		argv := append([]string{b.tools.child, b.world.path, in.prefix() + name}, mode...)
		in.setup.programs = append(in.setup.programs, program{name, argv})
	}
	return in, os.MkdirAll(in.dir, 0o755)
}

// prefix is how the programs of this incarnation begin their names.
func (in *incarnation) prefix() string { return in.mark + "/" }

// names are the names that the programs say.
func (in *incarnation) names(suffixes ...string) []string {
	if len(suffixes) == 0 {
		suffixes = []string{""}
	}
	var out []string
	for _, p := range in.setup.programs {
		for _, s := range suffixes {
			out = append(out, in.prefix()+p.name+s)
		}
	}
	return out
}

// pids are the peer's own processes, without the programs.
func (in *incarnation) pids() []int { return marked(in.mark, in.b.tools.child) }

// begin configures the peer and starts it.
func (in *incarnation) begin(ctx context.Context) error {
	if err := in.peer.configure(in); err != nil {
		return err
	}
	return in.peer.start(ctx, in)
}

// launch starts the peer's main process and leaves it running; its output goes
// to a file in the folder.
func (in *incarnation) launch(env []string, argv ...string) error {
	out, err := os.OpenFile(filepath.Join(in.dir, "peer.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = in.environment(env)
	cmd.Dir = in.dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	m := &mainProcess{cmd, make(chan struct{})}
	go func() {
		defer close(m.done)
		_ = cmd.Wait() // how it ended says nothing here
	}()
	in.main = m
	return nil
}

// left waits for the end of the main process, and says whether it came in time.
func (in *incarnation) left(limit time.Duration) bool {
	if in.main == nil {
		return true
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-in.main.done:
		in.main = nil
		return true
	case <-timer.C:
		return false
	}
}

// command runs one command of the peer to its end.
func (in *incarnation) command(ctx context.Context, env []string, argv ...string) error {
	_, err := in.ask(ctx, env, argv...)
	return err
}

// ask runs one command of the peer and returns what it says.
func (in *incarnation) ask(ctx context.Context, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = in.environment(env)
	cmd.Dir = in.dir
	// A daemon that the command leaves behind must not hold a pipe of ours.
	out, err := os.Create(filepath.Join(in.dir, "command.out"))
	if err != nil {
		return "", err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, readErr := os.ReadFile(out.Name())
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, tail(text, 600))
	}
	return string(text), readErr
}

// says looks for a pattern in a file of the folder.
func says(in *incarnation, name, pattern string) bool {
	text, err := os.ReadFile(filepath.Join(in.dir, name))
	return err == nil && regexp.MustCompile(pattern).Match(text)
}

func (in *incarnation) environment(env []string) []string {
	return append(append(os.Environ(), markVariable+"="+in.mark), env...)
}

// terminate sends a signal to the main process.
func (in *incarnation) terminate(s syscall.Signal) error {
	if in.main == nil {
		return errors.New("nothing was started")
	}
	return in.main.cmd.Process.Signal(s)
}

// end stops the peer and removes everything of it.
func (in *incarnation) end(ctx context.Context) {
	if err := in.peer.stop(ctx, in); err != nil {
		fmt.Fprintf(os.Stderr, "%s: cannot stop: %v\n", in.peer.name(), err)
	}
	in.b.world.allEnded(in.prefix(), 3*time.Second)
	in.clean()
}

// clean kills what is left.
func (in *incarnation) clean() {
	killMarked(in.mark, in.b.tools.child)
	in.b.world.sweep(in.prefix())
	// A peer that was killed in the middle of a fork leaves a program that has
	// not spoken yet.
	for range 10 {
		if killMarked(in.mark, "") == 0 {
			break
		}
	}
	if in.main != nil {
		<-in.main.done // it has been killed
		in.main = nil
	}
	_ = os.RemoveAll(in.dir) // the whole working folder goes at the end
}

func tail(text []byte, n int) string {
	return string(text[max(0, len(text)-n):])
}

// write puts one file of configuration into the folder.
func (in *incarnation) write(name, text string, mode os.FileMode) error {
	path := filepath.Join(in.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}

// versionOf runs a command and returns the first word with a digit in it.
func versionOf(ctx context.Context, argv ...string) (string, error) {
	if _, err := exec.LookPath(argv[0]); err != nil {
		return "", errors.New("is not installed")
	}
	text, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	for _, word := range strings.Fields(string(text)) {
		if strings.ContainsAny(word, "0123456789") {
			return strings.Trim(word, ",;()"), nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("cannot tell its version: %w", err)
	}
	return "", nil
}
