package session

import (
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// notify is what is kept of sd_notify between two messages.
type notify struct {
	noted bool // that FDSTORE is ignored has been told
}

// bySdNotify is Report.By of what comes over sd_notify.
const bySdNotify = "sd_notify"

// maxNotify is the longest sd_notify message that is read.
const maxNotify = 64 << 10

// notified takes one message of sd_notify(3): assignments, one a line. Files
// that come with it belong to the caller.
func (e *Endpoint) notified(text string, p Peer, generation uint64) {
	tell := func(r Report) {
		r.Generation = generation
		e.enqueue(r)
	}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			if line != "" {
				tell(invalidNotify("a line without \"=\"", line))
			}
			continue
		}
		if r, bad := e.assigned(key, value, p, generation); bad != "" {
			tell(invalidNotify(bad, line))
		} else if r.Type != "" {
			tell(r)
		}
	}
}

// assigned says what one assignment is to report; nothing when Type is empty.
func (e *Endpoint) assigned(key, value string, p Peer, generation uint64) (r Report, bad string) {
	switch key {
	case "READY":
		if value == "1" {
			return Report{Type: "process.worker_ready", Kind: wire.Ready, By: bySdNotify, Data: []byte(`{"by":"sd_notify"}`)}, ""
		}
	case "RELOADING":
		if value == "1" {
			return Report{Type: "process.worker_reloading", Kind: wire.Reloading, Data: []byte(`{"by":"sd_notify"}`)}, ""
		}
	case "STOPPING":
		if value == "1" {
			return Report{Type: "process.worker_stopping", Kind: wire.Stopping, Data: []byte(`{"by":"sd_notify"}`)}, ""
		}
	case "STATUS":
		text := wire.Clip(strings.ToValidUTF8(value, "\uFFFD"), wire.MaxStatus)
		e.keepLatest(Report{Type: "process.status", Kind: wire.Status, Generation: generation, Text: text, Data: append(appendText([]byte(`{"status":`), text), '}')})
	case "WATCHDOG":
		return e.watchdog(value)
	case "WATCHDOG_USEC":
		return micros(value, "process.worker_watchdog", 0)
	case "EXTEND_TIMEOUT_USEC":
		return micros(value, "process.worker_extend", wire.Extend)
	case "MAINPID":
		return e.mainPID(value, p)
	case "ERRNO":
		if n, err := strconv.Atoi(value); err == nil {
			return Report{Type: "process.worker_errno", Data: append(strconv.AppendInt([]byte(`{"errno":`), int64(n), 10), '}')}, ""
		}
		return r, "ERRNO must be a number"
	case "FDSTORE", "FDSTOREREMOVE", "FDNAME", "FDPOLL":
		if !e.notes.noted {
			e.notes.noted = true
			return Report{Type: "process.worker_fdstore_ignored", Data: []byte(`{"detail":"Perdure keeps no file descriptors for a process; it goes on without"}`)}, ""
		}
	}
	// Other variables are the service manager's or of later versions; BARRIER
	// needs nothing but that its descriptor is closed.
	return r, ""
}

func (e *Endpoint) watchdog(value string) (r Report, bad string) {
	switch value {
	case "1":
		e.beat()
		return r, ""
	case "trigger":
		return Report{Type: "process.worker_unhealthy", Kind: wire.Unhealthy, Text: "it asked for its watchdog",
			Data: []byte(`{"message":"it asked for its watchdog","by":"sd_notify"}`)}, ""
	}
	return r, "WATCHDOG must be 1 or trigger"
}

func micros(value, typ string, kind wire.Kind) (r Report, bad string) {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || n == 0 {
		return r, "it must be a number of microseconds above 0"
	}
	d := maxExtend
	if n < uint64(maxExtend/time.Microsecond) {
		d = time.Duration(n) * time.Microsecond
	}
	data := strconv.AppendInt([]byte(`{"timeout_ms":`), d.Milliseconds(), 10)
	return Report{Type: typ, Kind: kind, By: bySdNotify, Timeout: d, Data: append(data, `,"by":"sd_notify"}`...)}, ""
}

// mainPID takes the word of who the main process is, if it is one of the tree.
func (e *Endpoint) mainPID(value string, p Peer) (r Report, bad string) {
	pid, err := strconv.Atoi(value)
	if err != nil || pid <= 0 {
		return r, "MAINPID must be a process number"
	}
	if pid != p.PID && !e.handler.Owns(pid) {
		return r, "MAINPID is of no process of this one's"
	}
	return Report{Type: "process.worker_main_pid", By: bySdNotify, PID: pid, Data: append(strconv.AppendInt([]byte(`{"pid":`), int64(pid), 10), '}')}, ""
}

func invalidNotify(why, line string) Report {
	data := appendText([]byte(`{"reason":"notify","error":`), why)
	data = appendText(append(data, `,"raw":`...), wire.Clip(line, wire.Kept))
	return Report{Type: "process.event_invalid", Data: append(data, '}')}
}
