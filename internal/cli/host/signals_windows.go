package host

import "os"

// UserSignals are none: Windows has no such signals.
func UserSignals() []os.Signal { return nil }

// OperatorSignals are none, either.
func OperatorSignals() []os.Signal { return nil }

// IsHangup is never so.
func IsHangup(os.Signal) bool { return false }

// SignalName is the name of a signal.
func SignalName(s os.Signal) string { return s.String() }
