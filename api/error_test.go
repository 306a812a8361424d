package api_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/api"
)

var update = flag.Bool("update", false, "write docs/reference/errors.md") //ok: a flag of the tests

func errorsPage() []byte {
	var b bytes.Buffer
	b.WriteString("# Errors\n\n<!-- Generated from api/error.go; `go test ./api -update` rewrites it. -->\n\n" +
		"Every error has one of these codes: over HTTP in the body, in Go as `api.CodeOf(err)`, on the command line as the exit code.\n" +
		"The list is closed. The message says what cannot be done, to what, and what helps; it is for people and may change.\n\n" +
		"```json\n{\"code\": \"invalid\", \"message\": \"cannot be less than initial (1s)\", \"field\": \"processes.web.backoff.max\"}\n```\n\n" +
		"| code | HTTP status | exit code | meaning | what to do |\n|---|--:|--:|---|---|\n")
	for _, i := range api.Codes() {
		status := fmt.Sprint(i.HTTPStatus)
		switch i.Code {
		case api.CodeInvalid:
			status += " (405 for a wrong method, 413 for a body too large)"
		case api.CodeDenied:
			status = "401 without a good token, else " + status
		}
		fmt.Fprintf(&b, "| `%s` | %s | %d | %s | %s |\n", i.Code, status, i.ExitCode, i.Meaning, i.Advice)
	}
	b.WriteString("\nThe other exit codes are in [exit-codes.md](exit-codes.md); how errors travel in streams is in [http.md](http.md).\n")
	return b.Bytes()
}

func TestErrorsPage(t *testing.T) {
	t.Parallel()
	const path = "../docs/reference/errors.md"
	if *update {
		if err := os.WriteFile(path, errorsPage(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), string(errorsPage())); diff != "" {
		t.Errorf("docs/reference/errors.md is not up to date: go test ./api -update (-file +table)\n%s", diff)
	}
}

func TestCodesTable(t *testing.T) {
	t.Parallel()
	seen := map[api.Code]bool{}
	statuses := map[int]bool{}
	for _, i := range api.Codes() {
		if seen[i.Code] || statuses[i.HTTPStatus] {
			t.Errorf("%s: its code or its status %d stands twice", i.Code, i.HTTPStatus)
		}
		seen[i.Code], statuses[i.HTTPStatus] = true, true
		if i.HTTPStatus < 400 || i.HTTPStatus > 599 || i.ExitCode < 1 || i.ExitCode > 125 {
			t.Errorf("%s: status %d or exit code %d says that all is well, or belongs to shells", i.Code, i.HTTPStatus, i.ExitCode)
		}
		if !strings.HasSuffix(i.Meaning, ".") || !strings.HasSuffix(i.Advice, ".") {
			t.Errorf("%s: meaning and advice are sentences", i.Code)
		}
		if got := i.Code.Info(); got != i {
			t.Errorf("%s: Info is %+v, want its row", i.Code, got)
		}
	}
	if got := api.Code("of a later version").Info().Code; got != api.CodeInternal {
		t.Errorf("a code that is not in the table is taken as %q, want internal", got)
	}
}
