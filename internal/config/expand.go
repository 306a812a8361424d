package config

import (
	"errors"
	"fmt"
	"strings"
)

// lookup finds a variable.
type lookup func(name string) (string, bool)

const maxExpandDepth = 8

// maxExpanded bounds what variables can blow one value up to.
const maxExpanded = 1 << 20

// expand puts variables into s:
//
//	${NAME}            its value; an error when it is not set
//	${NAME:-default}   default when it is not set or empty ("-": not set)
//	${NAME:?message}   an error with message when it is not set or empty ("?": not set)
//	$$                 one $
//
// "$" before anything else stands for itself, so that $HOME and $1 reach a
// shell. A default may hold variables itself.
func expand(s string, find lookup) (string, error) {
	return expandAt(s, find, 0)
}

func expandAt(s string, find lookup, depth int) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	if depth > maxExpandDepth {
		return "", errors.New("cannot expand variables that are nested so deep")
	}
	var b strings.Builder
	for {
		at := strings.IndexByte(s, '$')
		if at < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:at])
		s = s[at:]
		switch {
		case strings.HasPrefix(s, "$$"):
			b.WriteByte('$')
			s = s[2:]
		case strings.HasPrefix(s, "${"):
			end := closing(s)
			if end < 0 {
				return "", fmt.Errorf("cannot find the } of %q; write $$ for a plain $", clip(s))
			}
			value, err := reference(s[2:end], find, depth)
			if err != nil {
				return "", err
			}
			b.WriteString(value)
			s = s[end+1:]
		default:
			b.WriteByte('$')
			s = s[1:]
		}
		if b.Len() > maxExpanded {
			return "", errors.New("cannot expand a value to more than 1 MiB")
		}
	}
}

// closing returns the place of the "}" that closes the "${" at the begin of s.
func closing(s string) int {
	open := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "${"):
			open++
			i++
		case s[i] == '}':
			if open--; open == 0 {
				return i
			}
		}
	}
	return -1
}

// reference expands what stands between "${" and "}".
func reference(ref string, find lookup, depth int) (string, error) {
	n := 0
	for n < len(ref) && (ref[n] == '_' || ref[n] >= 'A' && ref[n] <= 'Z' || ref[n] >= 'a' && ref[n] <= 'z' || n > 0 && ref[n] >= '0' && ref[n] <= '9') {
		n++
	}
	name, op := ref[:n], ref[n:]
	if name == "" {
		return "", fmt.Errorf("cannot expand %q: it names no variable; write $${ to keep it for a shell", "${"+clip(ref)+"}")
	}
	value, ok := find(name)
	if rest, colon := strings.CutPrefix(op, ":"); colon && rest != "" {
		op, ok = rest, ok && value != ""
	}
	switch {
	case op == "" && !ok:
		return "", fmt.Errorf("the variable %s is not set; set it, or write ${%s:-default}", name, name)
	case op == "":
		return value, nil
	case op[0] == '-':
		if ok {
			return value, nil
		}
		return expandAt(op[1:], find, depth+1)
	case op[0] == '?':
		if ok {
			return value, nil
		}
		if op == "?" {
			return "", fmt.Errorf("the variable %s is required and not set", name)
		}
		return "", fmt.Errorf("the variable %s is required: %s", name, op[1:])
	}
	return "", fmt.Errorf("cannot expand %q: use ${%s}, ${%s:-default} or ${%s:?message}; write $${ to keep it for a shell",
		"${"+clip(ref)+"}", name, name, name)
}

func clip(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
