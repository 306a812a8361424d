package workers

import (
	"crypto/sha256"
	"encoding/base32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/internal/definition"
)

// maxPath is the longest path that a program can connect to without knowing how
// to reach a longer one: sun_path has 108 bytes with the zero at its end (unix(7)).
const maxPath = 107

// path is the place of a file of the process. It depends on nothing but the
// folder and the name, and is the same for every supervisor and generation.
func (d *Desk) path(ending string) string {
	if path := filepath.Join(d.o.Dir, d.o.Name+ending); len(path) <= maxPath {
		return path
	}
	return filepath.Join(d.o.Dir, d.short()+ending)
}

// short stands for the name where that would make the path too long. No process
// has such a name.
func (d *Desk) short() string {
	sum := sha256.Sum256([]byte(d.o.Name))
	return "." + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

// notifyPath is the address for sd_notify(3): a path, or, where that is too long
// or of a user who cannot enter our folder, a name of the abstract namespace, in
// which the kernel's word on the sender is the only check.
func (d *Desk) notifyPath() string {
	path := d.path(".notify")
	if len(path) <= maxPath && d.def.User == "" {
		return path
	}
	return "@perdure/" + d.o.ID
}

// Environ is what a program is told of where it can speak to us. Given is the
// environment that it has already; what stands there of sd_notify is the user's
// own and stays.
func (d *Desk) Environ(given []string) []string {
	var out []string
	set := func(value string, names ...string) {
		for _, name := range names {
			out = append(out, name+"="+value)
		}
	}
	switch {
	case d.spec.NoWorkers:
	case d.spec.Path != "":
		set(d.o.ID, "DONKEYLABS_PROCESS_ID")
		set(d.spec.Path, "PERDURE_WORKER_SOCKET", "DONKEYLABS_SOCKET_PATH")
	default:
		port := strconv.Itoa(d.spec.Port)
		set(d.o.ID, "DONKEYLABS_PROCESS_ID")
		set("127.0.0.1:"+port, "PERDURE_WORKER_ADDRESS")
		set(port, "DONKEYLABS_TCP_PORT")
		set(d.spec.Token, "PERDURE_WORKER_TOKEN")
	}
	if text, open := definition.Metadata(*d.def); open {
		set(string(text), "PERDURE_METADATA", "DONKEYLABS_METADATA")
	}
	if d.spec.Notify != "" && !slices.ContainsFunc(given, func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") }) {
		set(d.spec.Notify, "NOTIFY_SOCKET")
		if h := d.def.Heartbeat; h != nil {
			set(strconv.FormatInt(h.Timeout.D().Microseconds(), 10), "WATCHDOG_USEC")
		}
	}
	return out
}

// Descriptors are the program's own from 3 on; nil stands for one that is closed.
// The caller closes them.
func (d *Desk) Descriptors() ([]*os.File, error) {
	if d.spec.Newline == "" {
		return nil, nil
	}
	end, err := readyEnd(d.spec.Newline)
	if err != nil {
		return nil, err
	}
	out := make([]*os.File, d.def.Ready.FD-2)
	out[len(out)-1] = end
	return out, nil
}
