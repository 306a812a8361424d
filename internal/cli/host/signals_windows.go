package host

import "os"

// UserSignals are none: Windows has no such signals.
func UserSignals() []os.Signal { return nil }

// SignalName is the name of a signal.
func SignalName(s os.Signal) string { return s.String() }
