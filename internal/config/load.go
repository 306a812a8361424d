package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
)

// Config is what the files say. It does not change after Load.
type Config struct {
	// Name is the key name, else the name of the first file's directory.
	Name string
	// Files are the configuration files, absolute, in the order of merging.
	Files []string
	// Definitions are the processes by name, as they were written: defaults are
	// not filled in. Dir is absolute. Env holds all variables of env files,
	// merged by precedence.
	Definitions map[string]api.Definition
	// Settings are as they were written.
	Settings api.Settings

	written map[string]api.Definition
	env     map[string]string
	envFile api.Strings
	at      map[string]place
}

// LoadOptions say what Load sees beside the files.
type LoadOptions struct {
	// Dir is where a search begins when no paths are given, and what relative
	// paths are relative to. Default: the working directory.
	Dir string
	// Env is the environment for ${VAR}, "KEY=value". Nil means os.Environ().
	Env []string
	// Port is the PORT of the first line of a Procfile. Default: PORT of the
	// .env beside it, else 5000.
	Port int
}

// document is the shape of perdure.yaml at the top.
type document struct {
	// Version is the version of the format.
	Version int `yaml:"version"`
	// Name is the name of the whole.
	Name string `yaml:"name"`
	// Processes are the definitions by name.
	Processes map[string]api.Definition `yaml:"processes"`
	// Settings concern Perdure itself.
	Settings api.Settings `yaml:"settings"`
	// Env holds variables for all processes.
	Env map[string]string `yaml:"env"`
	// EnvFile names .env files for all processes.
	EnvFile api.Strings `yaml:"env_file"`
}

// Load reads and merges files; without paths it searches as Find does. Maps
// merge deep, lists and single values are replaced by the later file.
//
// All mistakes are found at once. With an error among the findings the Config
// is nil; findings of other levels refuse nothing. The error is for files that
// cannot be read at all.
func Load(paths []string, o LoadOptions) (*Config, []api.Finding, error) {
	if len(paths) == 0 {
		found, err := Find(o.Dir)
		if err != nil {
			return nil, nil, err
		}
		paths = []string{found}
	}
	out := &findings{}
	vars := environment(o.Env)
	var root *node
	c := &Config{}
	for _, p := range paths {
		file, err := filepath.Abs(inDir(o.Dir, p))
		if err != nil {
			return nil, nil, fmt.Errorf("cannot find the place of %s: %w", p, err)
		}
		src, err := readFile(file)
		if err != nil {
			return nil, nil, err
		}
		c.Files = append(c.Files, file)
		if n := parseFile(file, src, o, out); n != nil {
			root = root.overlay(n)
		}
	}
	c.decode(root, vars, out)
	if out.failed() {
		return nil, c.sorted(out.list), nil
	}
	return c, c.sorted(out.list), nil
}

func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// readFile reads at most one byte more than is allowed, so that nobody eats a
// huge file to refuse it.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.CodeNotFound, "cannot find %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("cannot read %s: it is a directory; name the file in it", path)
	}
	src, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return src, nil
}

func parseFile(file string, src []byte, o LoadOptions, out *findings) *node {
	if isProcfile(file) {
		return parseProcfile(file, src, o.Port, out)
	}
	n := parseYAML(file, src, out)
	if n != nil && n.kind != kindMap && n.kind != kindNull {
		out.fail(n.at, "", "write processes: and below it a name and its command", "cannot use "+n.kind.String()+" as a configuration")
		return nil
	}
	return n
}

func environment(env []string) lookup {
	if env == nil {
		env = os.Environ()
	}
	vars := make(map[string]string, len(env))
	for _, kv := range env {
		if key, value, ok := strings.Cut(kv, "="); ok {
			vars[key] = value
		}
	}
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

// decode fills c from the merged tree: first what variables need (env_file of
// all), then the rest, then what definition and the env files say to it.
func (c *Config) decode(root *node, vars lookup, out *findings) {
	d := newDecoder(out, vars)
	c.at = d.at
	files := newEnvFiles()
	if root == nil || root.kind != kindMap {
		if !out.failed() {
			out.fail(place{file: c.Files[0], line: 1, col: 1}, "", "write processes: and below it a name and its command", "the file is empty")
		}
		return
	}
	if n := root.get("env_file"); n != nil {
		d.value(n, reflect.ValueOf(&c.envFile).Elem(), "env_file", "document.EnvFile")
	}
	global := c.readEnvFiles(files, c.envFile, "env_file", out)
	d.find = func(name string) (string, bool) {
		if value, ok := vars(name); ok {
			return value, true
		}
		value, ok := global[name]
		return value, ok
	}
	c.top(d, root)
	c.schemas(d)
	c.Definitions = c.resolve(files, global, out)
	c.check(d, out)
}

func (c *Config) top(d *decoder, root *node) {
	var doc document
	v := reflect.ValueOf(&doc).Elem()
	fields := d.fieldsOf(v.Type())
	for _, e := range root.entries {
		switch {
		case e.key == "processes":
			c.processes(d, e.value)
		case e.key == "env_file" || strings.HasPrefix(e.key, "x-"):
		default:
			if f := find(fields, e.key); f != nil {
				d.value(e.value, v.Field(f.index), e.key, f.name)
			} else {
				d.unknown(e, e.key, fields)
			}
		}
	}
	if n := root.get("version"); n != nil && n.kind != kindNull && doc.Version != 1 && !d.bad["version"] {
		d.fail(n.at, "version", "write version: 1, or leave it out", "cannot read version %d of the format", doc.Version)
	}
	if root.get("processes") == nil {
		d.fail(root.at, "processes", "write processes: and below it a name and its command", "there are no processes")
	}
	c.Settings, c.env = doc.Settings, doc.Env
	if c.Name = doc.Name; c.Name == "" {
		c.Name = filepath.Base(filepath.Dir(c.Files[0]))
	}
}

func (c *Config) processes(d *decoder, n *node) {
	c.written = map[string]api.Definition{}
	d.at["processes"] = n.at
	if n.kind == kindNull {
		return
	}
	if n.kind != kindMap {
		d.fail(n.at, "processes", "write a name, and below it command and the rest", "cannot use %s here", n.kind)
		return
	}
	for _, e := range n.entries {
		path := "processes." + e.key
		d.at[path], d.at[path+".name"] = e.at, e.at
		if e.value.kind != kindMap {
			d.fail(e.value.at, path, "write "+clip(e.key)+": and below it command: and the program", "cannot use %s as a process", e.value.kind)
			continue
		}
		def := api.Definition{Name: e.key}
		d.structure(e.value, reflect.ValueOf(&def).Elem(), path)
		if def.Dir == "" {
			def.Dir = filepath.Dir(e.at.file)
		}
		c.written[e.key] = def
	}
}

// check asks definition, and says where its findings stand. What is wrong by
// its form has been told already.
func (c *Config) check(d *decoder, out *findings) {
	for _, f := range definition.ValidateAll(c.Definitions, c.Settings) {
		if told(d.bad, f.Field) {
			continue
		}
		at := c.place(f.Field)
		f.File, f.Line, f.Column = at.file, at.line, at.col
		out.list = append(out.list, f)
	}
}

// told says whether a field, something above it or something in it was refused.
func told(bad map[string]bool, field string) bool {
	for p := field; p != ""; p = parent(p) {
		if bad[p] {
			return true
		}
	}
	for p := range bad {
		if strings.HasPrefix(p, field+".") || strings.HasPrefix(p, field+"[") {
			return true
		}
	}
	return false
}

// place returns where a field stands, or the nearest thing above it.
func (c *Config) place(field string) place {
	for p := field; p != ""; p = parent(p) {
		if at, ok := c.at[p]; ok {
			return at
		}
	}
	return place{file: c.Files[0], line: 1, col: 1}
}

func parent(path string) string {
	at := strings.LastIndexAny(path, ".[")
	if at < 0 {
		return ""
	}
	return path[:at]
}

// sorted puts findings in the order of reading.
func (c *Config) sorted(list []api.Finding) []api.Finding {
	rank := func(file string) int {
		if i := slices.Index(c.Files, file); i >= 0 {
			return i
		}
		return len(c.Files)
	}
	slices.SortStableFunc(list, func(a, b api.Finding) int {
		return cmp.Or(cmp.Compare(rank(a.File), rank(b.File)), strings.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return list
}

// Text writes a finding as one line, such as
// "perdure.yaml:4:3: error: processes.web.restrt: unknown key …".
func Text(f api.Finding) string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":" + strconv.Itoa(f.Line) + ":" + strconv.Itoa(f.Column) + ": ")
	}
	b.WriteString(f.Level + ": ")
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		b.WriteString(" (" + f.Hint + ")")
	}
	return b.String()
}
