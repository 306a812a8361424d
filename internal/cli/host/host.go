// Package host is what the commands need of the operating system: the width of
// the terminal, and a server that is started apart from it.
package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// IsTerminal says whether f is a terminal.
func IsTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// Columns returns the width of the terminal f, or 0 if it has none.
func Columns(f *os.File) int {
	if f == nil {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// Rows returns the height of the terminal f, or 0 if it has none.
func Rows(f *os.File) int {
	if f == nil {
		return 0
	}
	_, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return rows
}

// ErrDetach says that this system cannot start a server apart from its terminal.
var ErrDetach = errors.New("cannot start in the background on this system; run `perdure up` in a terminal of its own")

// ServerError says why a detached server ended before it answered.
type ServerError struct {
	// ExitCode is the server's, -1 when it died by a signal.
	ExitCode int
	// Text is what it reported.
	Text string
}

// Error returns the text.
func (e *ServerError) Error() string { return e.Text }

// Invocation is how a program is run.
type Invocation struct {
	Argv []string
	Dir  string   // empty: our own
	Env  []string // nil: our own
}

// ReadyFD is the file descriptor on which a detached server reports.
const ReadyFD = 3

// readyPrefix begins the line of a server that answers; any other text is why
// it does not.
const readyPrefix = "ready "

// Report is what a detached server tells once: that it answers at a socket, or
// why it does not. A nil *Report tells nobody.
type Report struct{ f *os.File }

// NewReport takes over the file descriptor that Detach has handed down. It must
// be called before anything is started, so that no child inherits it.
func NewReport() *Report {
	closeOnExec(ReadyFD)
	return &Report{f: os.NewFile(ReadyFD, "ready")}
}

// Ready tells that the server answers at socket.
func (r *Report) Ready(socket string) error { return r.send(readyPrefix + socket) }

// Fail tells why the server does not answer.
func (r *Report) Fail(cause error) error { return r.send(cause.Error()) }

func (r *Report) send(text string) error {
	if r == nil || r.f == nil {
		return nil
	}
	_, err := io.WriteString(r.f, text+"\n")
	err = errors.Join(err, r.f.Close())
	r.f = nil
	if err != nil {
		return fmt.Errorf("cannot report to the command that started the server: %w", err)
	}
	return nil
}

// readReport reads what a server reports. The end of the pipe without a report
// means that it died first.
func readReport(r io.Reader) (socket string, err error) {
	text, err := io.ReadAll(io.LimitReader(bufio.NewReader(r), 64<<10))
	if err != nil {
		return "", fmt.Errorf("cannot hear from the server: %w", err)
	}
	line := strings.TrimSpace(string(text))
	if socket, ok := strings.CutPrefix(line, readyPrefix); ok {
		return socket, nil
	}
	if line == "" {
		return "", errors.New("the server ended before it answered")
	}
	return "", errors.New(line)
}
