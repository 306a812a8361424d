// Package wire is the protocol between Perdure and the programs under
// supervision that speak to it: frames, and the messages both ways, as
// docs/reference/wire.md specifies them. It is pure: it knows no socket, no
// clock and no process. The server's end (internal/session) and the Go client
// (worker) both use it.
//
// Decoding costs no allocation for the messages that come often: a Message
// keeps slices of the line that it was decoded from.
package wire

// Version is the version of the extended protocol that this package speaks.
const Version = 1

// The bounds of the protocol.
const (
	// MaxLine is the longest line in bytes, without its end.
	MaxLine = 1 << 20
	// MaxID is the highest id of a message: 2^53-1, so that every language has it.
	MaxID = 1<<53 - 1
	// MaxDepth is how deep objects and arrays may be nested.
	MaxDepth = 200
	// MaxName is the longest name of an event or a command in bytes.
	MaxName = 128
	// MaxStatus is how much of a status text is kept, in bytes.
	MaxStatus = 4096
	// Kept is how much of a line that is too long is kept for the report.
	Kept = 4096
)
