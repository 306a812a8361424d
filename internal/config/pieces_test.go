package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/api"
)

func TestCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		want api.Command // nil: an error
	}{
		{`./server --port 80`, api.Command{"./server", "--port", "80"}},
		{`a "b c" 'd $e' f\ g ""`, api.Command{"a", "b c", "d $e", "f g", ""}},
		{`a "b \"c\" \d"x`, api.Command{"a", `b "c" \dx`}},
		{`curl -d a=b`, api.Command{"curl", "-d", "a=b"}},
		{`a#b c~d`, api.Command{"a#b", "c~d"}},
		{`./x $HOME`, api.Command{"sh", "-c", "exec ./x $HOME"}},
		{`./x "$HOME"`, api.Command{"sh", "-c", `exec ./x "$HOME"`}},
		{`./x > log 2>&1`, api.Command{"sh", "-c", "exec ./x > log 2>&1"}},
		{`ls *.go`, api.Command{"sh", "-c", "exec ls *.go"}},
		{`a && b`, api.Command{"sh", "-c", "a && b"}},
		{`a; b`, api.Command{"sh", "-c", "a; b"}},
		{`a | b`, api.Command{"sh", "-c", "a | b"}},
		{"a\nb", api.Command{"sh", "-c", "a\nb"}},
		{`exec ./x $A`, api.Command{"sh", "-c", "exec ./x $A"}},
		{`A=1 B=2 ./x y`, api.Command{"sh", "-c", "A=1 B=2 exec ./x y"}},
		{`A="x y" ./x`, api.Command{"sh", "-c", `A="x y" ./x`}},
		{`cd $DIR`, api.Command{"sh", "-c", "cd $DIR"}},
		{`a "b`, nil}, {`a 'b`, nil}, {`a \`, nil}, {`  `, nil}, {"a\x00", nil},
	} {
		have, err := command(c.line)
		if (err == nil) != (c.want != nil) {
			t.Errorf("%q: error %v", c.line, err)
		}
		if diff := cmp.Diff(c.want, have); diff != "" {
			t.Errorf("%q (-want +have):\n%s", c.line, diff)
		}
	}
}

// TestCommandKeepsQuotedWords holds that words in single quotes come back as
// they were, whatever they hold.
func TestCommandKeepsQuotedWords(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[^'\x00]*`), 1, 5).Draw(t, "words")
		line := "x '" + strings.Join(words, "' '") + "'"
		have, err := command(line)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append(api.Command{"x"}, words...), have); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestExpand(t *testing.T) {
	t.Parallel()
	find := environment([]string{"A=1", "EMPTY=", "NAME=x y"})
	for _, c := range []struct{ in, want string }{
		{"${A}", "1"}, {"a${A}b${A}", "a1b1"}, {"$A $1 $", "$A $1 $"}, {"$$", "$"}, {"$${A}", "${A}"}, {"$$$$", "$$"},
		{"${NO:-d}", "d"}, {"${EMPTY:-d}", "d"}, {"${EMPTY-d}", ""}, {"${NO-d}", "d"}, {"${EMPTY}", ""},
		{"${NO:-${A}${NO:-z}}", "1z"}, {"${A:?m}", "1"}, {"${EMPTY?m}", ""}, {"${NAME}", "x y"}, {"${NO:-}", ""},
	} {
		if have, err := expand(c.in, find); err != nil || have != c.want {
			t.Errorf("%q: %q %v, want %q", c.in, have, err, c.want)
		}
	}
	for _, in := range []string{"${NO}", "${NO:?say it}", "${EMPTY:?}", "${A", "${}", "${A:+b}", "${1}", "${A%x}",
		strings.Repeat("${NO:-", 20) + strings.Repeat("}", 20)} {
		if have, err := expand(in, find); err == nil {
			t.Errorf("%q: %q, want an error", in, have)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]api.Size{"0": 0, "12": 12, "1K": 1024, "512k": 512 << 10, "10MiB": 10 << 20, "1.5GiB": 3 << 29,
		"1GB": 1e9, "2 kB": 2000, "7B": 7, "1T": 1 << 40} {
		if have, err := ParseSize(in); err != nil || have != want {
			t.Errorf("%q: %d %v, want %d", in, have, err, want)
		}
	}
	for _, in := range []string{"", "x", "-1", "1.5", "1e3", "10 MiB x", "99999999T", "0x10", "K", "inf"} {
		if have, err := ParseSize(in); err == nil {
			t.Errorf("%q: %d, want an error", in, have)
		}
	}
}

// dir writes files into a new directory.
func dir(t *testing.T, files map[string]string) string {
	t.Helper()
	d := t.TempDir()
	for name, text := range files {
		path := filepath.Join(d, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func load(t *testing.T, o LoadOptions, paths ...string) *Config {
	t.Helper()
	c, list, err := Load(paths, o)
	if err != nil || c == nil {
		t.Fatal(err, lines(list))
	}
	return c
}

func TestProcfile(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{"Procfile": "# all\n\nweb: ./web -p $PORT\nworker: rake jobs ${QUEUE}\n", ".env": "A=1\nPORT=7000\n"})
	c := load(t, LoadOptions{Dir: d})
	want := map[string]api.Definition{
		"web": {Name: "web", Command: api.Command{"sh", "-c", "exec ./web -p $PORT"}, Dir: d,
			Env: map[string]string{"A": "1", "PORT": "7000"}, EnvFile: api.Strings{"?" + d + "/.env"}},
		"worker": {Name: "worker", Command: api.Command{"sh", "-c", "exec rake jobs ${QUEUE}"}, Dir: d,
			Env: map[string]string{"A": "1", "PORT": "7100"}, EnvFile: api.Strings{"?" + d + "/.env"}},
	}
	if diff := cmp.Diff(want, c.Definitions); diff != "" {
		t.Error(diff)
	}
	if c := load(t, LoadOptions{Dir: d, Port: 3000}); c.Definitions["worker"].Env["PORT"] != "3100" {
		t.Error("the option Port is not heard")
	}

	bad := dir(t, map[string]string{"Procfile": "web: a\nno colon here\nweb: b\nempty:\na b: c\nx.y: z\nq: 'open\n"})
	_, list, err := Load([]string{"Procfile"}, LoadOptions{Dir: bad})
	if err != nil {
		t.Fatal(err)
	}
	var at []int
	for _, f := range list {
		at = append(at, f.Line)
	}
	if diff := cmp.Diff([]int{2, 3, 4, 5, 6, 7}, at); diff != "" {
		t.Errorf("lines of findings: %s\n%s", diff, lines(list))
	}
}

func TestMergeOfFiles(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{
		"a.yaml":     "processes:\n  web:\n    command: [a, b]\n    env: {A: 1, B: 2}\n    backoff: {initial: 2s}\n    description: x\n",
		"sub/b.yaml": "processes:\n  web:\n    command: [c]\n    env: {B: 3}\n    backoff: {max: 60s}\n    description:\n    env_file: '?x.env'\n  db: {command: [d]}\n",
		"bad.yaml":   "processes:\n  web:\n    restart: sometimes\n",
	})
	c := load(t, LoadOptions{Dir: d}, "a.yaml", "sub/b.yaml")
	initial := api.Duration(2e9)
	want := map[string]api.Definition{
		"web": {Name: "web", Command: api.Command{"c"}, Dir: d, Env: map[string]string{"A": "1", "B": "3"},
			EnvFile: api.Strings{"?" + d + "/sub/x.env"}, Backoff: api.Backoff{Initial: &initial, Max: api.Duration(60e9)}},
		"db": {Name: "db", Command: api.Command{"d"}, Dir: d + "/sub"},
	}
	if diff := cmp.Diff(want, c.Definitions); diff != "" {
		t.Error(diff)
	}
	_, list, err := Load([]string{"a.yaml", "bad.yaml"}, LoadOptions{Dir: d})
	if err != nil || len(list) != 1 || filepath.Base(list[0].File) != "bad.yaml" || list[0].Line != 3 {
		t.Errorf("want one finding in bad.yaml:3, have %v %s", err, lines(list))
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{"perdure.yml": "x", "Procfile": "y", "a/b/c.txt": "", "p/Procfile": "z"})
	for from, want := range map[string]string{"a/b": "perdure.yml", "": "perdure.yml", "p": "p/Procfile"} {
		if have, err := Find(filepath.Join(d, from)); err != nil || have != filepath.Join(d, want) {
			t.Errorf("from %q: %s %v", from, have, err)
		}
	}
	if _, err := Find(filepath.VolumeName(d) + string(filepath.Separator)); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("at the root: %v, want not_found", err)
	}
	if _, _, err := Load([]string{"no.yaml"}, LoadOptions{Dir: d}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("a missing file: %v, want not_found", err)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{
		"a.yaml": "processes:\n  same: {command: [x]}\n  gone: {command: [x]}\n  web: {command: [x], env: {A: 1, S: secret1}}\n  soft: {command: [x]}\n",
		"b.yaml": "settings: {shutdown_timeout: 1m}\nprocesses:\n  same: {command: [x], restart: always, backoff: {max: 30s}}\n  new: {command: [x]}\n" +
			"  web: {command: [y], env: {B: 1, S: secret2}}\n  soft: {command: [x], description: d, health: {exec: {command: [\"true\"]}}}\n",
	})
	a, b := load(t, LoadOptions{Dir: d}, "a.yaml"), load(t, LoadOptions{Dir: d}, "b.yaml")
	want := Changes{Added: []string{"new"}, Removed: []string{"gone"}, Unchanged: []string{"same"},
		Changed: []Change{{Name: "soft", Keys: []string{"description", "health"}},
			{Name: "web", Keys: []string{"command", "env.A", "env.B", "env.S"}, Restart: true}},
		Settings: []string{"settings.shutdown_timeout"}}
	if diff := cmp.Diff(want, Diff(a, b)); diff != "" {
		t.Error(diff)
	}
	if c := Diff(a, a); !c.Empty() {
		t.Errorf("a and a differ: %+v", c)
	}
	if c := Diff(nil, a); len(c.Added) != 4 {
		t.Errorf("nothing and a: %+v", c)
	}
}

func TestResolveReadsAgain(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{"perdure.yaml": "env_file: all.env\nenv: {C: env}\nprocesses: {web: {command: [x], env_file: [web.env], env: {D: own}}}\n",
		"all.env": "A=all\nB=all\nC=all\nD=all\n", "web.env": "B=web\nC=web\nD=web\n"})
	c := load(t, LoadOptions{Dir: d})
	want := map[string]string{"A": "all", "B": "web", "C": "env", "D": "own"}
	if diff := cmp.Diff(want, c.Definitions["web"].Env); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(d, "web.env"), []byte("B=\"new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, list := c.Resolve(); len(list) != 1 || list[0].Line != 1 || strings.Contains(lines(list), "new") {
		t.Errorf("want one finding in line 1 that does not show the text, have %s", lines(list))
	}
	if err := os.WriteFile(filepath.Join(d, "web.env"), []byte("B=new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if defs, list := c.Resolve(); len(list) != 0 || defs["web"].Env["B"] != "new" || c.Definitions["web"].Env["B"] != "web" {
		t.Errorf("resolved %v, and c must not change", defs["web"].Env)
	}
}

func TestHugeFileIsRefused(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{"perdure.yaml": "x-a: " + strings.Repeat("a", MaxFileSize+1000)})
	if c, list, err := Load(nil, LoadOptions{Dir: d}); err != nil || c != nil || len(list) == 0 {
		t.Error("a file over the limit was taken", err)
	}
}

// What a program writes is JSON in one line, with as many keys as it likes.
func TestJSONInOneLine(t *testing.T) {
	t.Parallel()
	defs := map[string]map[string]string{}
	for i := range 2000 {
		defs[fmt.Sprintf("p%d", i)] = map[string]string{"command": "sleep 1", "restart": "never"}
	}
	text, err := json.Marshal(map[string]any{"version": 1, "processes": defs})
	if err != nil {
		t.Fatal(err)
	}
	d := dir(t, map[string]string{"perdure.yaml": string(text)})
	c, list, err := Load(nil, LoadOptions{Dir: d})
	if err != nil || c == nil || len(c.Definitions) != len(defs) {
		t.Errorf("%v, %v", err, list)
	}
}

func many(n int) string {
	var b strings.Builder
	b.WriteString("processes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  p%d:\n    command: ./server --port %d\n    restart: on-failure\n    env: {A: b, N: %d}\n    backoff: {initial: 1s, max: 10s}\n    stop: {grace: 5s}\n    env_file: '?.env'\n", i, i, i)
		if i > 0 {
			fmt.Fprintf(&b, "    depends_on: [p%d]\n", i-1)
		}
	}
	return b.String()
}

func BenchmarkLoad1000(b *testing.B) {
	file := filepath.Join(b.TempDir(), "perdure.yaml")
	if err := os.WriteFile(file, []byte(many(1000)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if c, list, err := Load([]string{file}, LoadOptions{}); err != nil || c == nil || len(c.Definitions) != 1000 {
			b.Fatal(err, len(list))
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml"} {
		list, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range list {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) { fuzz(t, "perdure.yaml", src) })
}

func FuzzProcfile(f *testing.F) {
	f.Add([]byte("web: ./x $PORT\n# c\nworker: a && b\n"))
	f.Add([]byte("x\nweb: 'a\n\nweb: b\n:\n : \na:\r\n"))
	f.Fuzz(func(t *testing.T, src []byte) { fuzz(t, "Procfile", src) })
}

// fuzz holds what is true for any file: a configuration or an error, never
// both, each finding with a place, and a set that is unchanged against itself.
func fuzz(t *testing.T, name string, src []byte) {
	out := &findings{}
	c := &Config{Files: []string{"/nowhere/" + name}}
	root := parseFile(c.Files[0], src, LoadOptions{}, out)
	c.decode(root, environment([]string{"A=1"}), out)
	for _, f := range out.list {
		if f.Line < 1 || f.Column < 1 || f.Message == "" || f.Level == "" {
			t.Fatalf("a finding without a place: %+v", f)
		}
	}
	if !out.failed() {
		if len(c.written) != len(c.Definitions) || !Diff(c, c).Empty() {
			t.Fatal("a configuration differs from itself")
		}
	}
}

// TestWatchdogSettings holds that the settings of another system's watchdog
// become ours where they mean something, and are explained where they do not.
func TestWatchdogSettings(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{"perdure.yaml": `
processes:
  a: {command: a, limits: {pids: 3}}
  b: {command: b, limits: {pids: 3, interval: 9s}, stop: {grace: 1s}}
settings:
  watchdog: {enabled: true, interval: 2s, services: [processes], kill_grace: 7s}
`})
	c, list, err := Load([]string{filepath.Join(d, "perdure.yaml")}, LoadOptions{})
	if err != nil || c == nil {
		t.Fatal(err, lines(list))
	}
	a, b := c.Definitions["a"], c.Definitions["b"]
	if a.Limits.Interval != api.Duration(2*time.Second) || a.Stop.Grace == nil || *a.Stop.Grace != api.Duration(7*time.Second) {
		t.Errorf("the settings have not become defaults: %+v %+v", a.Limits, a.Stop)
	}
	if b.Limits.Interval != api.Duration(9*time.Second) || *b.Stop.Grace != api.Duration(time.Second) {
		t.Errorf("the settings win over what is written: %+v %+v", b.Limits, b.Stop)
	}
	for _, key := range []string{"enabled", "interval", "services", "kill_grace"} {
		if !strings.Contains(lines(list), "settings.watchdog."+key) {
			t.Errorf("nothing explains %s:\n%s", key, lines(list))
		}
	}
}

// TestSchemaOfAFile holds that the schema in a file stands in the definition, and
// that "${" in a schema is nothing special.
func TestSchemaOfAFile(t *testing.T) {
	t.Parallel()
	d := dir(t, map[string]string{"perdure.yaml": `
processes:
  a: {command: a, events: {done: s/done.yaml, named: {pattern: "^${x}$"}}}
`, "s/done.yaml": "type: object\nrequired: [ok]\n"})
	c := load(t, LoadOptions{}, filepath.Join(d, "perdure.yaml"))
	want := map[string]any{"done": map[string]any{"type": "object", "required": []any{"ok"}}, "named": map[string]any{"pattern": "^${x}$"}}
	if diff := cmp.Diff(want, c.Definitions["a"].Events); diff != "" {
		t.Error(diff)
	}
}
