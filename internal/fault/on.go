//go:build faults

package fault

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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

// every is the name that stands for all points.
const every = "*"

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
	dir := os.Getenv("PERDURE_FAULT_DIR")
	if dir != "" {
		struck(dir, name)
	}
	a := plan()[name]
	if a == nil {
		return nil
	}
	return a.pass(name, dir)
}

// Here is Point at a place where nothing can fail: it kills, waits, or does
// nothing.
func Here(name string) { _ = Point(name) }

// Boot is the name of a boot of the machine that a test wants to be taken for
// the real one; empty means the real one.
func Boot() string { return os.Getenv("PERDURE_FAULT_BOOT") }

// struck kills the process if it is the first to find a file that says so. It
// leaves its pid in another one.
func struck(dir, name string) {
	path := filepath.Join(dir, name)
	if os.Remove(path+".kill") != nil {
		return
	}
	if err := os.WriteFile(path+".killed.new", strconv.AppendInt(nil, int64(os.Getpid()), 10), 0o600); err != nil {
		refuse(err)
	}
	if err := os.Rename(path+".killed.new", path+".killed"); err != nil {
		refuse(err)
	}
	die()
}

// refuse ends the process because PERDURE_FAULT_DIR cannot be used.
func refuse(err error) {
	fmt.Fprintln(os.Stderr, "PERDURE_FAULT_DIR:", err)
	os.Exit(2)
}

// die kills the process as SIGKILL does.
func die() {
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot be killed:", err)
		os.Exit(2)
	}
	select {} // the signal is on its way
}

func (a *action) pass(name, dir string) error {
	n, err := a.count(name, dir)
	if err != nil {
		refuse(err)
	}
	switch {
	case a.verb == "delay":
		<-time.After(a.delay)
	case a.verb == "kill" && n == a.from:
		die()
	case a.verb == "error" && n >= a.from:
		return fmt.Errorf("%s: %w", name, ErrInjected)
	}
	return nil
}

// count is the number of this pass.
func (a *action) count(name, dir string) (int64, error) {
	if dir == "" {
		return a.passes.Add(1), nil
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	// Behind what was appended is the offset of this pass, whoever else appends.
	_, err = f.WriteString(".")
	n, seekErr := f.Seek(0, io.SeekCurrent)
	return n, errors.Join(err, seekErr, f.Close())
}

func parse(text string) (map[string]*action, error) {
	plan := map[string]*action{}
	points := Points()
	for _, item := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' }) {
		name, rest, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || name != every && !slices.Contains(points, name) {
			return nil, fmt.Errorf("cannot use %q: write it like journal.sync=kill:3, with a name of fault.Points", item)
		}
		names := []string{name}
		if name == every {
			names = points
		}
		for _, name := range names {
			a, err := parseAction(rest)
			if err != nil {
				return nil, fmt.Errorf("cannot use %q: %w", item, err)
			}
			plan[name] = a
		}
	}
	return plan, nil
}

func parseAction(text string) (*action, error) {
	verb, arg, _ := strings.Cut(text, ":")
	a := &action{verb: verb, from: 1}
	var err error
	switch {
	case verb == "delay":
		a.delay, err = time.ParseDuration(arg)
	case !slices.Contains([]string{"kill", "error", "count"}, verb):
		err = errors.New("the action must be kill, error, delay or count")
	case arg != "":
		a.from, err = strconv.ParseInt(arg, 10, 64)
	}
	return a, err
}
