package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/joho/godotenv"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/definition"
)

// envFiles reads each .env file once.
type envFiles struct {
	seen map[string]envFile
}

type envFile struct {
	vars map[string]string
	// missing says that there is no such file; err that it cannot be read, at
	// line when that is known.
	missing bool
	err     error
	line    int
}

func newEnvFiles() *envFiles { return &envFiles{seen: map[string]envFile{}} }

func (e *envFiles) read(path string) envFile {
	if f, ok := e.seen[path]; ok {
		return f
	}
	f := readEnvFile(path)
	e.seen[path] = f
	return f
}

func readEnvFile(path string) envFile {
	// A named pipe or a device would hold us up for ever.
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return envFile{err: errors.New("it is not a regular file")}
	}
	src, err := readFile(path)
	if api.CodeOf(err) == api.CodeNotFound || errors.Is(err, fs.ErrNotExist) {
		return envFile{missing: true}
	}
	if err != nil {
		return envFile{err: err}
	}
	if len(src) > MaxFileSize {
		return envFile{err: fmt.Errorf("it is larger than %d bytes", MaxFileSize)}
	}
	vars, line, err := parseEnv(src)
	return envFile{vars: vars, line: line, err: err}
}

// parseEnv reads the text of a .env file. The error never repeats the text,
// which is full of secrets.
func parseEnv(src []byte) (vars map[string]string, line int, err error) {
	defer func() {
		if r := recover(); r != nil {
			vars, line, err = nil, 1, errors.New("the parser gave up")
		}
	}()
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	vars, err = godotenv.UnmarshalBytes(src)
	if err == nil {
		for key, value := range vars {
			if strings.ContainsRune(key+value, 0) {
				return nil, 1, errors.New("it holds a zero byte")
			}
		}
		return vars, 0, nil
	}
	message := err.Error()
	if rest, ok := strings.CutPrefix(message, "unterminated quoted value "); ok {
		line = 1
		if at := bytes.LastIndex(src, []byte(rest)); at >= 0 {
			line += bytes.Count(src[:at], []byte("\n"))
		}
		return nil, line, errors.New("a quote is not closed")
	}
	line = bytes.Count(src, []byte("\n")) + 1
	if _, near, ok := strings.Cut(message, " near "); ok {
		if text, e := strconv.Unquote(near); e == nil {
			line -= strings.Count(text, "\n")
		}
	}
	return nil, line, errors.New("cannot read this line as KEY=value")
}

// readEnvFiles merges files, the later over the earlier. field is where they
// are named.
func (c *Config) readEnvFiles(files *envFiles, names api.Strings, field string, out *findings) map[string]string {
	vars := map[string]string{}
	for i, name := range names {
		path, optional := strings.CutPrefix(name, "?")
		f := files.read(path)
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case f.missing && optional:
		case f.missing:
			out.fail(c.place(at), at, "write \"?\" before the name if it may be missing", "cannot find the env file "+path)
		case f.err != nil && f.line > 0:
			out.fail(place{file: path, line: f.line, col: 1}, at, "write KEY=value, with quotes around text that has spaces", f.err.Error())
		case f.err != nil:
			out.fail(c.place(at), at, "", "cannot read the env file "+path+": "+f.err.Error())
		}
		maps.Copy(vars, f.vars)
	}
	return vars
}

// Resolve reads the env files anew and returns the definitions with the
// variables that are in force now. An env file that is missing or wrong is a
// finding with its place; its variables are then missing from the result.
//
// From low to high: env_file of all, env_file of the process, env of all, env
// of the process.
func (c *Config) Resolve() (map[string]api.Definition, []api.Finding) {
	out, files := &findings{}, newEnvFiles()
	global := c.readEnvFiles(files, c.envFile, "env_file", out)
	return c.resolve(files, global, out), c.sorted(out.list)
}

func (c *Config) resolve(files *envFiles, global map[string]string, out *findings) map[string]api.Definition {
	defs := make(map[string]api.Definition, len(c.written))
	for name, d := range c.written {
		own := c.readEnvFiles(files, d.EnvFile, "processes."+name+".env_file", out)
		defs[name] = c.layered(d, global, own)
	}
	return defs
}

// resolveOne is Resolve for one process.
func (c *Config) resolveOne(files *envFiles, name string) (api.Definition, []api.Finding) {
	out, d := &findings{}, c.written[name]
	global := c.readEnvFiles(files, c.envFile, "env_file", out)
	own := c.readEnvFiles(files, d.EnvFile, "processes."+name+".env_file", out)
	return c.layered(d, global, own), out.list
}

func (c *Config) layered(d api.Definition, global, own map[string]string) api.Definition {
	env := make(map[string]string, len(global)+len(own)+len(c.env)+len(d.Env))
	for _, layer := range []map[string]string{global, own, c.env, d.Env} {
		maps.Copy(env, layer)
	}
	d.Env = nil
	if len(env) > 0 {
		d.Env = env
	}
	return definition.FillWatchdog(d, c.Settings.Watchdog)
}
