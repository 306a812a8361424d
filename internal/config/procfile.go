package config

import (
	"bufio"
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// isProcfile tells by the name: Procfile, Procfile.dev, dev.Procfile.
func isProcfile(path string) bool {
	base := filepath.Base(path)
	return base == "Procfile" || strings.HasPrefix(base, "Procfile.") || strings.HasSuffix(base, ".Procfile")
}

// The ports that foreman gives: the first line 5000, each further one 100 more.
const (
	procfilePort = 5000
	procfileStep = 100
)

// parseProcfile reads lines of the form "name: command". A line that begins
// with # is a comment. Each process gets PORT, and the .env beside the file
// when there is one. "$" is left to the shell.
func parseProcfile(file string, src []byte, port int, out *findings) *node {
	if len(src) > MaxFileSize {
		out.fail(place{file: file, line: 1, col: 1}, "", "", fmt.Sprintf("cannot read a file of more than %d bytes", MaxFileSize))
		return nil
	}
	dotenv := filepath.Join(filepath.Dir(file), ".env")
	base := procfileBase(port, dotenv)
	procs := &node{kind: kindMap, at: place{file: file, line: 1, col: 1}}
	first := map[string]int{}
	scan := bufio.NewScanner(bytes.NewReader(src))
	scan.Buffer(nil, MaxFileSize+1)
	for line := 1; scan.Scan(); line++ {
		text := strings.TrimSpace(scan.Text())
		at := place{file: file, line: line, col: 1}
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, cmd, ok := strings.Cut(text, ":")
		cmd = strings.TrimSpace(cmd)
		switch {
		case !ok || strings.ContainsAny(name, " \t"):
			out.fail(at, "", "write name: command", "cannot read this line of the Procfile")
			continue
		case cmd == "":
			out.fail(at, "processes."+name+".command", "write the command after the colon", "cannot run a process without a command")
			continue
		case first[name] > 0:
			out.fail(at, "processes."+name, "remove one of them", fmt.Sprintf("the process %q stands here for the second time; it is already in line %d", clip(name), first[name]))
			continue
		}
		first[name] = line
		here := place{file: file, line: line, col: 1 + strings.Index(scan.Text(), cmd)}
		procs.entries = append(procs.entries, entry{key: name, at: at, value: &node{kind: kindMap, at: at, entries: []entry{
			{key: "command", at: here, value: rawText(cmd, here)},
			{key: "env", at: at, value: &node{kind: kindMap, at: at, entries: []entry{
				{key: "PORT", at: at, value: rawText(strconv.Itoa(base+procfileStep*len(procs.entries)), at)}}}},
			{key: "env_file", at: at, value: rawText("?"+dotenv, at)},
		}}})
	}
	if err := scan.Err(); err != nil {
		out.fail(place{file: file, line: 1, col: 1}, "", "", "cannot read the Procfile: "+err.Error())
	}
	return &node{kind: kindMap, at: procs.at, entries: []entry{{key: "processes", at: procs.at, value: procs}}}
}

func rawText(s string, at place) *node {
	return &node{kind: kindText, at: at, text: s, quoted: true, raw: true}
}

func procfileBase(port int, dotenv string) int {
	if port > 0 {
		return port
	}
	// A .env that cannot be read is told where it is merged.
	if n, err := strconv.Atoi(readEnvFile(dotenv).vars["PORT"]); err == nil && n > 0 && n < 65536 {
		return n
	}
	return procfilePort
}
