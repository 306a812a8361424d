// Package probe asks processes whether they are ready or healthy, over HTTP,
// over TCP or by a command. It knows nothing of thresholds: it reports each
// answer, and somebody else counts.
//
// Every ask opens a connection of its own: a kept one would hold a worker of a
// server that has only one, and would not prove that it still accepts. So an
// ask is made cheap instead: on Linux all asks of numeric addresses, of
// localhost and of Unix sockets are made by one goroutine, those that are due
// together in one go; only names, TLS and commands take a goroutine each.
package probe

import (
	"context"
	"errors"
	"hash/fnv"
	"math/bits"
	"time"

	"github.com/perdure/perdure/api"
)

// Answer is the answer to one ask.
type Answer uint8

// The answers. Unknown means that the question could not be asked, by a fault
// of this side: no descriptor, the command could not be started, the ask was
// called off. Whoever does not answer, or refuses, has said No.
const (
	Unknown Answer = iota
	Yes
	No
)

// String returns "unknown", "yes" or "no".
func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// Result is one answer.
type Result struct {
	Answer Answer
	// Detail says for people why it is no or unknown, such as
	// "status 503, not 2xx"; empty for yes.
	Detail string
	// Took is how long the ask lasted. With Spec.Spread it may be up to a
	// millisecond too long, for answers are looked for together.
	Took time.Duration
}

// Exec runs a probe's command until ctx ends, with all that it has started, and
// returns its exit code (128+n after signal n) and the beginning of its output.
// An error other than ctx's means that it could not be run.
type Exec func(ctx context.Context, argv []string) (code int, output string, err error)

// Spec is one probe of one process.
type Spec struct {
	// Name is the process's name; it spreads the first asks.
	Name string
	// Probe is filled with its defaults: Interval and Timeout are above 0 (10s
	// and 5s stand in for 0).
	Probe api.Probe
	// Spread is meant for health. It delays the first ask by up to a second (at
	// most a quarter of Interval), always by the same for a name, so that many
	// processes are not asked at once. And it lets an ask come up to a quarter
	// of Interval, at most 100ms, before its time, when another is made then:
	// asks share the work of waking up. Readiness is asked immediately and
	// exactly.
	Spread bool
	// Exec runs the command of an exec probe.
	Exec Exec
}

// asker makes one ask. The deadline is in ctx.
type asker interface {
	ask(ctx context.Context) (Answer, string)
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// spread returns a part of span that depends on name alone.
func spread(name string, span time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails (hash.Hash)
	// FNV leaves the high bits of short names alike; this mixes them
	// (the finalizer of MurmurHash3).
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	hi, _ := bits.Mul64(x^x>>33, uint64(span))
	return time.Duration(hi)
}

func newAsker(spec Spec) (asker, error) {
	p := spec.Probe
	switch {
	case p.HTTP != nil:
		return newHTTP(*p.HTTP)
	case p.TCP != nil:
		return newTCP(*p.TCP)
	case p.Exec != nil && spec.Exec != nil && len(p.Exec.Command) > 0:
		return execAsker{argv: p.Exec.Command, exec: spec.Exec}, nil
	}
	return nil, api.Errorf(api.CodeInvalid, "cannot ask %q: its probe has no http, tcp or exec", spec.Name)
}

// calledOff says whether the ask was ended by stop or Close and not by its own
// timeout.
func calledOff(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }
