package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/api"
)

var update = flag.Bool("update", false, "rewrite the generated pages") //ok: a flag of the tests

func page(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("..", "..", "docs", "reference", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/reference/%s is out of date; run `go test ./internal/cli -update` (-page +tree):\n%s", name, diff)
	}
}

func TestExitCodesPage(t *testing.T) { t.Parallel(); page(t, "exit-codes.md", ExitCodesMarkdown()) }

func TestCommandsPage(t *testing.T) {
	t.Parallel()
	page(t, "cli.md", (&app{seams: newBench().seams, out: &bytes.Buffer{}, errOut: &bytes.Buffer{}}).markdown())
}

// Every command teaches: a sentence, a text, and examples that name a command
// and flags that exist.
func TestEveryCommandTeaches(t *testing.T) {
	t.Parallel()
	a := &app{seams: newBench().seams, out: &bytes.Buffer{}, errOut: &bytes.Buffer{}}
	visit(a.root(), func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Parent() == nil || cmd.Name() == "completion" || cmd.Parent().Name() == "completion" {
			return
		}
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s has no text or no example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "|")
			for part := range strings.SplitSeq(line, "&&") {
				words := strings.Fields(part)
				if len(words) < 2 || words[0] != "perdure" {
					continue
				}
				found, _, err := a.root().Find(words[1:])
				if err != nil || found.Parent() == nil {
					t.Errorf("%s: the example %q names no command", cmd.CommandPath(), line)
					continue
				}
				for _, word := range words[1:] {
					if word == "--" {
						break
					}
					name, isFlag := strings.CutPrefix(word, "--")
					name, _, _ = strings.Cut(name, "=")
					if isFlag && found.Flag(name) == nil && found.InheritedFlags().Lookup(name) == nil {
						t.Errorf("%s: the example %q has a flag that does not exist: --%s", cmd.CommandPath(), line, name)
					}
				}
			}
		}
	})
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	coded := func(c api.Code) error { return fmt.Errorf("x: %w", api.Errorf(c, "cannot")) }
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {usagef("x"), 2}, {coded(api.CodeInvalid), 2}, {coded(api.CodeUnavailable), 3},
		{coded(api.CodeNotFound), 4}, {coded(api.CodeTimeout), 5}, {coded(api.CodeConflict), 6}, {coded(api.CodeFailed), 1},
		{coded(api.CodeDenied), 1}, {coded(api.CodeInternal), 1}, {coded("new"), 1}, {context.Canceled, 130}, {context.DeadlineExceeded, 5},
		{&codeError{code: 137}, 137}, {errors.Join(coded(api.CodeNotFound), coded(api.CodeNotFound)), 4},
		{errors.Join(coded(api.CodeNotFound), coded(api.CodeTimeout)), 1}, {errors.Join(nil, &codeError{code: 7}), 7},
	} {
		if got := exitCodeOf(tc.err); got != tc.want {
			t.Errorf("exitCodeOf(%v) = %d, want %d", tc.err, got, tc.want)
		}
	}
}

// The whole way: command line, exit code, and what is said where.
func TestCommandLines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args           string
		code           int
		stdout, stderr string // must be contained
	}{
		{"", 0, "perdure up", ""},
		{"--help", 0, "Act on processes:", ""},
		{"pss", 2, "", `cannot find a command "pss" (did you mean "ps"?)`},
		{"restrat web", 2, "", `did you mean "restart"`},
		{"ps --nonsense", 2, "", "unknown flag: --nonsense"},
		{"ps", 0, "worker-1  failed", ""},
		{"ps nope", 4, "", "cannot find a process \"nope\"; there are: db, web, worker-1"},
		{"ps wbe", 4, "", `(did you mean "web"?)`},
		{"ps zz*", 0, "no processes", ""},
		{"ps -q zz*", 0, "", ""},
		{"start", 2, "", "requires at least 1 arg"},
		{"start web", 0, "web running, pid 11", ""},
		{"start web --no-wait --json", 0, `"ok": true`, ""},
		{"stop we", 4, "", `(did you mean "web"?)`},
		{"restart zz*", 4, "", `cannot find a process that matches "zz*"`},
		{"signal HUP web db", 0, "web got HUP\ndb got HUP\n", ""},
		{"signal HUP", 2, "", "requires at least 2 arg"},
		{"logs --stream both", 2, "", "it is stdout or stderr"},
		{"logs --since yesterday", 2, "", "cannot read \"yesterday\" as a time"},
		{"logs nope", 4, "", "cannot find a process"},
		{"events -n 0", 2, "", "a number from 1"},
		{"wait web --timeout 0s", 2, "", "a time above 0"},
		{"wait web --for ready", 0, "web is ready", ""},
		{"down --timeout -1s", 2, "", "negative"},
		{"down", 0, "stopped 3 processes", ""},
		{"reload", 0, "nothing has changed", ""},
		{"validate", 0, "valid: 0 processes", ""},
		{"config presets", 0, "default\npidnap\n", ""},
		{"config presets pidnap", 0, "restart: always", ""},
		{"config presets pidnup", 4, "", `did you mean "pidnap"`},
		{"config schema", 0, "{}\n", ""},
		{"version", 0, "perdure v1.2.3", ""},
		{"doctor", 0, "", ""},
		{"supervisor a b c", 3, "", ""},
		{"status web", 0, "web  running", ""},
		{"completion bash", 0, "bash completion V2 for perdure", ""},
		{"run", 2, "", "requires at least 1 arg"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := newBench().run(t, strings.Fields(tc.args)...)
			if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("exit code %d, want %d\nstdout %q, want %q in it\nstderr %q, want %q in it", code, tc.code, stdout, tc.stdout, stderr, tc.stderr)
			}
			if code != 0 && code != 3 && !strings.HasPrefix(stderr, "perdure: ") {
				t.Errorf("an error does not begin with the program's name: %q", stderr)
			}
			if strings.Contains(stdout+stderr, "\x1b[") {
				t.Errorf("colours where there is no terminal: %q", stdout+stderr)
			}
		})
	}
}

// ps and status tell in one line above all else what cannot be written; where all
// is well, and in JSON, there is no such line.
func TestTroublesAreTold(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"ps"}, {"status", "web"}} {
		b := newBench()
		if _, out, _ := b.run(t, args...); strings.Contains(out, "!") {
			t.Errorf("%q without trouble:\n%s", args, out)
		}
		b.troubles = []api.Trouble{
			{Kind: api.TroubleJournal, Since: time.Date(2026, 3, 1, 11, 57, 0, 0, time.UTC), Cause: "full", Error: "no space left on device", Effect: "starts wait"},
			{Kind: api.TroubleOutput, Name: "web"}}
		_, out, _ := b.run(t, args...)
		first, _, _ := strings.Cut(out, "\n")
		want := "! the journal cannot be written (no space left on device): starts wait, for 3m"
		if !strings.HasPrefix(first, want) || !strings.HasSuffix(first, " (and 1 more); see `perdure doctor`") {
			t.Errorf("%q begins with %q, want %q …", args, first, want)
		}
		if _, out, _ := b.run(t, append(args, "--json")...); strings.Contains(out, "no space left") {
			t.Errorf("%q in JSON:\n%s", args, out)
		}
	}
}

func TestVerbsSendWhatTheySay(t *testing.T) {
	t.Parallel()
	for args, want := range map[string][]string{
		"start web":                      {"start web  wait 1m0s"},
		"stop web --timeout 5s":          {"stop web  wait 5s"},
		"restart web --wait=false":       {"restart web "},
		"kill web --no-wait":             {"kill web "},
		"reset worker-1":                 {"reset worker-1 "},
		"signal USR1 web":                {"signal web USR1"},
		"restart worker-* web w*":        {"restart web  wait 1m0s", "restart worker-1  wait 1m0s"},
		"start db --no-wait --state-dir": nil,
	} {
		b := newBench()
		_, _, _ = b.run(t, strings.Fields(args)...)
		slices.Sort(b.commands)
		if diff := cmp.Diff(want, b.commands); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
}

// Each error of several is told, with its name, and the others are still done.
func TestSeveralErrorsAreAllTold(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.refuse = map[string]error{"db": api.Errorf(api.CodeConflict, "cannot start: breaker"), "web": api.Errorf(api.CodeTimeout, "not in time")}
	code, stdout, stderr := b.run(t, "start", "db", "web", "worker-1")
	if code != 1 || !strings.Contains(stdout, "worker-1 failed") {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	if stderr != "perdure: db: cannot start: breaker\nperdure: web: not in time\n" {
		t.Errorf("stderr %q", stderr)
	}
	delete(b.refuse, "db")
	if code, _, _ := b.run(t, "start", "db", "web", "worker-1"); code != 5 {
		t.Errorf("one error in common: exit code %d, want 5", code)
	}
}

func TestInterruptedCommandEndsWith130(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.block = make(chan struct{})
	b.signals <- os.Interrupt
	if code, _, stderr := b.run(t, "stop", "web"); code != 130 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestAwayServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := newBench()
	b.away = api.Errorf(api.CodeUnavailable, "cannot reach Perdure at x: connection refused")
	if code, _, stderr := b.run(t, "ps", "--state-dir", dir); code != 3 || !strings.Contains(stderr, "neither server nor supervisor runs; start it with `perdure up`") {
		t.Errorf("nothing runs: exit code %d, %q", code, stderr)
	}
	if code, _, stderr := b.run(t, "ps", "--state-dir", dir+"/none"); code != 3 || !strings.Contains(stderr, "it has never run here") {
		t.Errorf("never ran: exit code %d, %q", code, stderr)
	}
	b.seams.Running = func(string) (int, int) { return 0, 42 }
	if code, _, stderr := b.run(t, "ps", "--state-dir", dir); code != 3 || !strings.Contains(stderr, "supervisor (pid 42) goes on and keeps the processes alive") {
		t.Errorf("only the supervisor runs: exit code %d, %q", code, stderr)
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	b := newBench()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b.lines = []api.LogLine{{Name: "web", Time: at, Stream: "stdout", Text: "a"}, {Name: "db", Time: at, Stream: "stderr", Text: "b"}}
	for seq := range uint64(5) {
		b.events = append(b.events, api.Event{Seq: seq + 1, Time: at, Type: "process.ready", Name: "web"})
	}
	for args, want := range map[string]string{
		"logs":           "web      │ a\ndb       ! b\n",
		"logs web":       "a\nb\n",
		"logs -t *":      "12:00:00.000 web      │ a\n12:00:00.000 db       ! b\n",
		"logs db --json": `{"name":"web","time":"2026-03-01T12:00:00Z","stream":"stdout","text":"a"}` + "\n" + `{"name":"db","time":"2026-03-01T12:00:00Z","stream":"stderr","text":"b"}` + "\n",
	} {
		if _, got, _ := b.run(t, strings.Fields(args)...); got != want {
			t.Errorf("%s\n got %q\nwant %q", args, got, want)
		}
	}
	if _, got, _ := b.run(t, "events", "--since", "1h"); strings.Count(got, "\n") != 5 {
		t.Errorf("several pages of events: %q", got)
	}
	if _, got, _ := b.run(t, "events", "--since", "1h", "-n", "3", "--json"); strings.Count(got, "\n") != 3 || !json.Valid([]byte(strings.Split(got, "\n")[0])) {
		t.Errorf("three events as JSON lines: %q", got)
	}
}

func TestFollowEndsQuietlyWithCtrlC(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"logs -f", "events -f", "ps --watch"} {
		b := newBench()
		b.follow, b.moreLines = make(chan api.Event), make(chan api.LogLine)
		b.signals <- os.Interrupt
		if code, _, stderr := b.run(t, strings.Fields(args)...); code != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q", args, code, stderr)
		}
	}
}

func TestParseSince(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"10m": "2026-03-01T11:50:00Z", "-1h": "2026-03-01T11:00:00Z", "11:30": "2026-03-01T11:30:00Z", "23:59:30": "2026-02-28T23:59:30Z",
		"2026-02-01": "2026-02-01T00:00:00Z", "2026-02-01 10:00": "2026-02-01T10:00:00Z", "2026-02-01T10:00:00+01:00": "2026-02-01T10:00:00+01:00",
	} {
		got, err := parseSince(now, text)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("parseSince(%q) = %v, %v; want %s", text, got, err, want)
		}
	}
}

func TestConfigDiff(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.config = api.Config{Definitions: map[string]api.Definition{
		"web": {Name: "web", Command: api.Command{"a"}}, "same": {Name: "same"}, "note": {Name: "note", Description: "old"}, "gone": {Name: "gone"}}}
	b.seams.LoadConfig = func([]string) (api.Config, []api.Finding, error) {
		return api.Config{Definitions: map[string]api.Definition{
			"web": {Name: "web", Command: api.Command{"a", "b"}}, "same": {Name: "same"}, "note": {Name: "note", Description: "new"}, "fresh": {Name: "fresh"}}}, nil, nil
	}
	_, got, _ := b.run(t, "config", "diff")
	want := "+ fresh\n- gone\n~ note  goes on running\n    description: \"old\" → \"new\"\n~ web  is restarted if it runs\n    command: [\"a\"] → [\"a\",\"b\"]\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBrokenFile(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.findings = []api.Finding{{Level: "error", File: "f", Line: 3, Column: 1, Message: "unknown key"}, {Level: "warning", Message: "hm"}}
	for _, args := range []string{"validate", "up", "up -d", "config show -f f"} {
		code, stdout, stderr := b.run(t, strings.Fields(args)...)
		if code != 2 || !strings.Contains(stdout+stderr, "f:3:1: unknown key") || !strings.Contains(stderr, "1 error") {
			t.Errorf("%s: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	names := []string{"web", "worker", "database", "cache"}
	for typed, want := range map[string]string{"wbe": "web", "workr": "worker", "data": "database", "databse": "database", "x": "", "zzzz": "", "cahce": "cache"} {
		if got := didYouMean(typed, names); (want == "" && got != "") || !strings.Contains(got, want) {
			t.Errorf("didYouMean(%q) = %q, want %q", typed, got, want)
		}
	}
}

func TestNameFor(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]string{"./server": "server", "/usr/bin/my prog.sh": "my-prog", "---": "run", strings.Repeat("x", 80): strings.Repeat("x", 63)} {
		if got := nameFor(program); got != want {
			t.Errorf("nameFor(%q) = %q, want %q", program, got, want)
		}
	}
}

func TestCompletionNamesProcesses(t *testing.T) {
	t.Parallel()
	_, got, _ := newBench().run(t, cobra.ShellCompRequestCmd, "restart", "w")
	if !strings.Contains(got, "web\trunning\n") || !strings.Contains(got, "worker-1\tfailed\n") || strings.Contains(got, "db\t") {
		t.Errorf("completions: %q", got)
	}
	b := newBench()
	b.away = api.Errorf(api.CodeUnavailable, "away")
	if code, got, _ := b.run(t, cobra.ShellCompRequestCmd, "restart", "w"); code != 0 || strings.Contains(got, "web") {
		t.Errorf("without a server: exit code %d, %q", code, got)
	}
}

func TestUpListsOfManyOnlyWhatNeedsALook(t *testing.T) {
	t.Parallel()
	list := make([]api.Process, 40, 50)
	if got := notable(list); len(got) != 40 {
		t.Errorf("of 40, %d are listed", len(got))
	}
	for i := range list {
		list[i].State = api.StateRunning
	}
	list = append(list, api.Process{Name: "once", State: api.StateExited}, api.Process{Name: "bad", State: api.StateFailed})
	if got := notable(list); len(got) != 1 || got[0].Name != "bad" {
		t.Errorf("listed are %+v", got)
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	b := newBench()
	for _, c := range []struct {
		args   []string
		code   int
		out    string
		errOut string
	}{
		{[]string{"send", "web", "pause"}, 0, "", ""},
		{[]string{"send", "web", "resize", `{"width":1}`}, 0, `{"width":1}` + "\n", ""},
		{[]string{"send", "web", "resize", `{"width":`}, 2, "", "it is not JSON"},
		{[]string{"send", "web", "pause", "--timeout", "0s"}, 2, "", "--timeout takes a time above 0"},
		{[]string{"send", "wbe", "pause"}, 4, "", `cannot find a process "wbe"`},
	} {
		code, out, errOut := b.run(t, c.args...)
		if code != c.code || out != c.out || !strings.Contains(errOut, c.errOut) {
			t.Errorf("%q: %d %q %q", c.args, code, out, errOut)
		}
	}
}

// The death of the server before the one that is upgraded is no sign of failure,
// however late it is told.
func TestUpgradeHearsOfItsOwnServerAlone(t *testing.T) {
	t.Parallel()
	for dead, want := range map[int]int{7: 0, 1: 1} {
		b := newBench()
		b.fake.events = []api.Event{
			{Seq: 1, Type: "server.lost", Data: fmt.Appendf(nil, `{"pid":%d,"restarted":true}`, dead)},
			{Seq: 2, Type: "server.upgraded"},
		}
		if code, _, errOut := b.run(t, "upgrade", "--binary", "/x/perdure"); code != want {
			t.Errorf("%d has died: %d %q", dead, code, errOut)
		}
	}
}
