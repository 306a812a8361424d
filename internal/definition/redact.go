package definition

import (
	"maps"
	"regexp"
	"strings"

	"github.com/perdure/perdure/api"
)

// Redacted stands in the place of a secret.
const Redacted = "***"

// Redact returns a copy of d that may be shown (P28, N17): values of variables,
// headers, metadata and arguments whose names look secret become "***", and so
// does what stands before the "@" of an address.
func Redact(d api.Definition) api.Definition {
	d.Env = redactMap(d.Env)
	d.Command = redactArgs(d.Command)
	d.Ready = redactProbe(d.Ready)
	d.Health = redactProbe(d.Health)
	if d.Metadata != nil {
		d.Metadata = redactAny(d.Metadata).(map[string]any)
	}
	return d
}

// SecretKey says whether a name looks as if its value were a secret, such as
// DB_PASSWORD, api-key or Authorization. PWD and OLDPWD are directories.
func SecretKey(key string) bool {
	up := strings.ToUpper(key)
	if up == "PWD" || up == "OLDPWD" {
		return false
	}
	for _, part := range []string{"PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIAL", "APIKEY", "PRIVATE", "COOKIE"} {
		if strings.Contains(up, part) {
			return true
		}
	}
	for word := range strings.FieldsFuncSeq(up, func(r rune) bool { return !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') }) {
		switch word {
		case "KEY", "KEYS", "DSN", "AUTH", "AUTHORIZATION", "PASS", "PWD", "PAT", "SALT", "PIN", "JWT":
			return true
		}
		if strings.HasSuffix(word, "ACCESSKEY") || strings.HasSuffix(word, "SSHKEY") {
			return true
		}
	}
	return false
}

// userinfo finds what stands between the scheme of an address and its host.
// It is greedy up to the last "@" before the path, as a password may hold one.
var userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@`)

func redactURL(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return userinfo.ReplaceAllString(s, "${1}"+Redacted+"@")
}

func redactValue(key, value string) string {
	if value != "" && SecretKey(key) {
		return Redacted
	}
	return redactURL(value)
}

func redactMap(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = redactValue(k, v)
	}
	return out
}

// redactArgs knows "--password=x", "--password x", "PASSWORD=x" and addresses.
func redactArgs(args api.Command) api.Command {
	if args == nil {
		return nil
	}
	out := make(api.Command, len(args))
	next := false
	for i, arg := range args {
		name, value, assigned := strings.Cut(arg, "=")
		bare := strings.TrimLeft(name, "-")
		plain := !strings.ContainsAny(bare, " /")
		switch {
		case next && !strings.HasPrefix(arg, "-"):
			out[i] = Redacted
		case assigned && plain && SecretKey(bare):
			out[i] = name + "=" + redactValue(bare, value)
		default:
			out[i] = redactURL(arg)
		}
		next = i > 0 && !assigned && plain && bare != name && SecretKey(bare)
	}
	return out
}

func redactProbe(p *api.Probe) *api.Probe {
	if p == nil {
		return nil
	}
	c := *p
	if c.HTTP != nil {
		h := *c.HTTP
		h.URL = redactURL(h.URL)
		h.Headers = redactMap(h.Headers)
		c.HTTP = &h
	}
	if c.Exec != nil {
		c.Exec = &api.ExecProbe{Command: redactArgs(c.Exec.Command)}
	}
	return &c
}

func redactAny(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := maps.Clone(v)
		for k, e := range v {
			if SecretKey(k) && e != nil {
				out[k] = Redacted
			} else {
				out[k] = redactAny(e)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = redactAny(e)
		}
		return out
	case string:
		return redactURL(v)
	}
	return v
}
