package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/cli/host"
)

// ExitCode is what a command ends with.
type ExitCode struct {
	Code    int
	Name    string
	Meaning string
	// Errors are the codes of the API that lead to it.
	Errors []api.Code
}

// ExitCodes returns the table of exit codes, from which
// docs/reference/exit-codes.md is generated. Which error of the API leads to
// which is in api.Codes.
func ExitCodes() []ExitCode {
	return []ExitCode{
		{exitOK, "ok", "The command did what was asked.", nil},
		{exitFailure, "failure", "It was tried and failed; the text on standard error says why. Also: a process that `up -d` started has failed.", errorsOf(exitFailure)},
		{exitUsage, "usage", "The command line or the configuration is wrong. Nothing was changed.", errorsOf(exitUsage)},
		{exitUnavailable, "unavailable", "Perdure does not run here, or a part that is needed cannot be reached. Also: `--require` outside supervision.", errorsOf(exitUnavailable)},
		{exitNotFound, "not found", "There is no process, or no key of the metadata, of that name.", errorsOf(exitNotFound)},
		{exitTimeout, "timeout", "It did not come true in time.", errorsOf(exitTimeout)},
		{exitConflict, "conflict", "The state of the process forbids it, a later command won, or Perdure runs here already.", errorsOf(exitConflict)},
		{exitInterrupted, "interrupted", "Ctrl-C ended a command that was still waiting.", nil},
	}
}

// errorsOf lists the codes of the API that lead to an exit code.
func errorsOf(exit int) []api.Code {
	var out []api.Code
	for _, i := range api.Codes() {
		if i.ExitCode == exit {
			out = append(out, i.Code)
		}
	}
	return out
}

// The exit codes by name, for use within the table and the commands.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitUnavailable = 3
	exitNotFound    = 4
	exitTimeout     = 5
	exitConflict    = 6
	exitInterrupted = 130 // 128 + SIGINT, as in shells
)

// usageError is an error of the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// codeError ends the program with a code of its own. Its err may be nil: then
// all has been said.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *codeError) Unwrap() error { return e.err }

// exitCodeOf maps an error to the exit code of the table. Of several joined
// errors it is their common code, or 1.
func exitCodeOf(err error) int {
	if err == nil {
		return exitOK
	}
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		return commonCode(many.Unwrap())
	}
	var code *codeError
	if errors.As(err, &code) {
		return code.code
	}
	var server *host.ServerError
	if errors.As(err, &server) && server.ExitCode > 0 {
		return server.ExitCode
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	var coded *api.Error
	if !errors.As(err, &coded) {
		switch {
		case errors.Is(err, context.Canceled):
			return exitInterrupted
		case errors.Is(err, context.DeadlineExceeded):
			return exitTimeout
		}
		return exitFailure
	}
	return coded.Code.Info().ExitCode
}

func commonCode(errs []error) int {
	common := exitOK
	for _, err := range errs {
		code := exitCodeOf(err)
		if common != exitOK && code != common {
			return exitFailure
		}
		common = code
	}
	return common
}

// ExitCodesMarkdown returns docs/reference/exit-codes.md.
func ExitCodesMarkdown() string {
	var b strings.Builder
	b.WriteString("# Exit codes\n\n<!-- Generated from internal/cli/exit.go; `go test ./internal/cli -update` rewrites it. -->\n\n" +
		"Every command ends with one of these. An error stands on standard error, one line, and begins with `perdure:`.\n\n" +
		"| code | name | meaning | errors of the API |\n|--:|---|---|---|\n")
	for _, row := range ExitCodes() {
		codes := make([]string, len(row.Errors))
		for i, c := range row.Errors {
			codes[i] = "`" + string(c) + "`"
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", row.Code, row.Name, row.Meaning, strings.Join(codes, ", "))
	}
	b.WriteString("\nA command that is given several names tells each error. If they have one code in common it ends with that, else with 1.\n\n" +
		"## Codes that are passed through\n\n" +
		"- `perdure up` in the foreground ends with 0 after Ctrl-C and a clean stop. When a process asks that Perdure end\n" +
		"  (`on_no_restart: exit`, or `breaker.on_open: exit`) it ends with that process's exit code, or `breaker.exit_code`;\n" +
		"  128 + n after signal n.\n" +
		"- `perdure run -- CMD` ends with the exit code of CMD, 128 + n after signal n.\n" +
		"- `perdure worker -- CMD` does as well; with 127 when there is no CMD and 126 when it cannot be run, as shells do.\n\n" +
		"A code of a process may be equal to one of the table. `--json` and `perdure events` tell them apart.\n")
	return b.String()
}
