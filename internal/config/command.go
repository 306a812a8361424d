package config

import (
	"errors"
	"regexp"
	"strings"

	"github.com/perdure/perdure/api"
)

// command makes an argument list of a command that is written as one string.
//
// Without anything that only a shell understands it is split into words;
// quotes and backslashes work as in a shell. Otherwise it runs under "sh -c".
// A single command is then started with exec, so that the process is the
// program itself and not a shell around it; a line that a shell must stay for
// (";", "&&", "|", several lines) runs as it is.
func command(line string) (api.Command, error) {
	line = strings.TrimSpace(line)
	if line == "" {
		return nil, errors.New("cannot run an empty command")
	}
	if strings.ContainsRune(line, 0) {
		return nil, errors.New("cannot pass a zero byte to a program")
	}
	words, shell, compound, err := split(line)
	if err != nil {
		return nil, err
	}
	if !shell {
		return words, nil
	}
	return shellCommand(line, compound), nil
}

func shellCommand(line string, compound bool) api.Command {
	first, _, _ := strings.Cut(line, " ")
	if compound || first == "exec" || shellWord(first) {
		return api.Command{"sh", "-c", line}
	}
	if vars := assignments.FindString(line); vars != "" {
		if rest := line[len(vars):]; !strings.Contains(firstWord(rest), "=") {
			return api.Command{"sh", "-c", vars + "exec " + rest}
		}
		return api.Command{"sh", "-c", line}
	}
	if strings.Contains(first, "=") {
		return api.Command{"sh", "-c", line}
	}
	return api.Command{"sh", "-c", "exec " + line}
}

// assignments are the plain ones before a command, "A=1 B=2 ". POSIX lets exec
// pass them on to the program.
var assignments = regexp.MustCompile(`^(?:[A-Za-z_][A-Za-z0-9_]*=[^\s'"\\$` + "`" + `]*\s+)+`)

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

// shellWord says whether exec cannot stand before a word, because the shell
// itself is what runs it.
func shellWord(w string) bool {
	switch w {
	case "if", "while", "until", "for", "case", "{", "!", "(", "cd", ".", "source", "export", "set", "exit", "trap",
		"ulimit", "umask", "eval", "unset", "return", "wait", "read", "alias", "shift", "local", ":":
		return true
	}
	return strings.HasPrefix(w, "(")
}

// split splits a line into words. shell says that only a shell can run it,
// compound that it is more than one command.
func split(line string) (words api.Command, shell, compound bool, err error) {
	var word strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		b := line[i]
		switch {
		case b == '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, false, false, errors.New("cannot read the command: a ' is not closed")
			}
			word.WriteString(line[i+1 : i+1+end])
			inWord = true
			i += end + 1
		case b == '"':
			n, dollar := quoted(line[i+1:], &word)
			if n < 0 {
				return nil, false, false, errors.New("cannot read the command: a \" is not closed")
			}
			inWord, shell = true, shell || dollar
			i += n
		case b == '\\':
			if i+1 >= len(line) {
				return nil, false, false, errors.New("cannot read the command: it ends with a backslash")
			}
			if i++; line[i] != '\n' {
				word.WriteByte(line[i])
				inWord = true
			}
		case b == ' ' || b == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			s, c := meta(line, i, inWord, len(words) == 0)
			shell, compound = shell || s, compound || c
			word.WriteByte(b)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, shell, compound, nil
}

// quoted reads what stands in double quotes, up to and with the closing one,
// and returns its length, or -1; dollar says that a shell would change it.
func quoted(s string, word *strings.Builder) (n int, dollar bool) {
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b == '"':
			return i + 1, dollar
		case b == '\\' && i+1 < len(s) && strings.IndexByte("\\\"$`\n", s[i+1]) >= 0:
			if i++; s[i] != '\n' {
				word.WriteByte(s[i])
			}
		default:
			dollar = dollar || b == '$' || b == '`'
			word.WriteByte(b)
		}
	}
	return -1, dollar
}

// meta says what a byte outside of quotes asks of a shell.
func meta(line string, i int, inWord, firstWord bool) (shell, compound bool) {
	switch line[i] {
	case ';', '|', '\n', '\r', '(', ')':
		return true, true
	case '&':
		// "2>&1" and "&>" are redirections.
		redirection := i > 0 && (line[i-1] == '>' || line[i-1] == '<') || i+1 < len(line) && line[i+1] == '>'
		return true, !redirection
	case '<', '>', '$', '`', '*', '?', '[':
		return true, false
	case '#', '~':
		return !inWord, false
	case '!', '{', '}':
		return firstWord && !inWord, firstWord && !inWord
	case '=':
		return firstWord, false
	}
	return false, false
}
