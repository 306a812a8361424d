//go:build faults

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Enabled says whether points do anything in this build.
const Enabled = true

type action struct {
	verb   string
	from   int64 // the pass at which it begins
	delay  time.Duration
	passes atomic.Int64
}

// plan is what PERDURE_FAULT says.
var plan = sync.OnceValue(func() map[string]*action { //ok: read once from the environment, constant afterwards but for the counters
	p, err := parse(os.Getenv("PERDURE_FAULT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "PERDURE_FAULT:", err)
		os.Exit(2)
	}
	return p
})

// Point does what PERDURE_FAULT says of name: it kills the process, returns
// ErrInjected, waits, or does nothing.
func Point(name string) error {
	a := plan()[name]
	if a == nil {
		return nil
	}
	return a.pass(name)
}

func (a *action) pass(name string) error {
	n := a.passes.Add(1)
	switch {
	case a.verb == "delay":
		<-time.After(a.delay)
	case a.verb == "kill" && n == a.from:
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			return err
		}
		select {} // the signal is on its way
	case a.verb == "error" && n >= a.from:
		return fmt.Errorf("%s: %w", name, ErrInjected)
	}
	return nil
}

func parse(text string) (map[string]*action, error) {
	plan := map[string]*action{}
	for _, item := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' }) {
		name, rest, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || !known(name) {
			return nil, fmt.Errorf("cannot use %q: write it like journal.sync=kill:3, with a name of fault.Points", item)
		}
		verb, arg, _ := strings.Cut(rest, ":")
		a := &action{verb: verb, from: 1}
		var err error
		switch {
		case verb == "delay":
			a.delay, err = time.ParseDuration(arg)
		case verb != "kill" && verb != "error":
			err = fmt.Errorf("the action must be kill, error or delay")
		case arg != "":
			a.from, err = strconv.ParseInt(arg, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use %q: %w", item, err)
		}
		plan[name] = a
	}
	return plan, nil
}

func known(name string) bool {
	for _, p := range Points() {
		if p == name {
			return true
		}
	}
	return false
}
