package proc

import (
	"fmt"
	"strconv"
	"strings"
)

// firstRealtime is SIGRTMIN as C libraries on Linux count it; 32 and 33 belong
// to their threads (signal(7)).
const (
	firstRealtime = 34
	lastRealtime  = 64
)

// Signals returns the canonical names of the signals without the realtime ones,
// in the order of their numbers on this system.
func Signals() []string {
	var out []string
	for n := 1; n < firstRealtime; n++ {
		if name := fixedSignalName(n); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// ParseSignal returns the canonical name, "SIGHUP" or "SIGRTMIN+3", of what
// people write: "HUP", "sighup", "1", "RTMIN+3", "RTMAX-1".
func ParseSignal(s string) (name string, err error) {
	n, err := signalNumber(s)
	if err != nil {
		return "", err
	}
	return signalName(n), nil
}

func signalNumber(s string) (int, error) {
	text := strings.ToUpper(strings.TrimSpace(s))
	if n, err := strconv.Atoi(text); err == nil {
		if n > 0 && (fixedSignalName(n) != "" || hasRealtime && n >= firstRealtime && n <= lastRealtime) {
			return n, nil
		}
		return 0, unknownSignal(s)
	}
	text = strings.TrimPrefix(text, "SIG")
	if n := realtimeNumber(text); n > 0 {
		return n, nil
	}
	for n := 1; n < firstRealtime; n++ {
		if fixedSignalName(n) == "SIG"+text {
			return n, nil
		}
	}
	return 0, unknownSignal(s)
}

func unknownSignal(s string) error {
	return fmt.Errorf("cannot take %q as a signal (write a name such as TERM, SIGHUP or RTMIN+3, or its number)", s)
}

// realtimeNumber reads "RTMIN", "RTMIN+3", "RTMAX" and "RTMAX-1"; 0 means that
// it is none of them.
func realtimeNumber(text string) int {
	base, sign := firstRealtime, "+"
	rest, found := strings.CutPrefix(text, "RTMIN")
	if !found {
		if rest, found = strings.CutPrefix(text, "RTMAX"); !found {
			return 0
		}
		base, sign = lastRealtime, "-"
	}
	if !hasRealtime {
		return 0
	}
	if rest == "" {
		return base
	}
	if !strings.HasPrefix(rest, sign) {
		return 0
	}
	off, err := strconv.Atoi(rest)
	if n := base + off; err == nil && n >= firstRealtime && n <= lastRealtime {
		return n
	}
	return 0
}

func signalName(n int) string {
	if name := fixedSignalName(n); name != "" {
		return name
	}
	switch {
	case n == firstRealtime:
		return "SIGRTMIN"
	case n > firstRealtime && n <= lastRealtime:
		return "SIGRTMIN+" + strconv.Itoa(n-firstRealtime)
	}
	return "SIG" + strconv.Itoa(n)
}
