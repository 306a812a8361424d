package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"
)

// Options say how a worker speaks to Perdure. The zero value is a good start:
// everything comes from the environment that Perdure gives to a program.
type Options struct {
	// Socket is the path of Perdure's Unix socket. Default: PERDURE_WORKER_SOCKET.
	Socket string
	// Address is where Perdure listens on TCP, "127.0.0.1:PORT"; used when
	// there is no Socket. Default: PERDURE_WORKER_ADDRESS.
	Address string
	// Token is what TCP may need. Default: PERDURE_WORKER_TOKEN.
	Token string

	// MaxMessages and MaxBytes bound the outbox: what is accepted and not yet
	// durable. Beyond them Emit fails with ErrFull. Defaults: 10,000 messages,
	// 8 MiB.
	MaxMessages, MaxBytes int

	// ManualHeartbeat leaves heartbeats to the program's own calls of
	// Heartbeat, so that a program that hangs is noticed. Otherwise a goroutine
	// sends them as often as Perdure asks for, which notices only a program
	// that is stopped or starved altogether.
	ManualHeartbeat bool
	// StatsEvery is how often Measure is sent by itself. Default: 0, never.
	StatsEvery time.Duration

	// Commands are what Perdure may ask of the program, by name; OnCommand adds
	// more.
	Commands map[string]CommandFunc
	// OnMessage takes what somebody has sent to the program that is no command.
	// One call at a time; of those that wait, more than 256 are dropped and counted.
	OnMessage func(data json.RawMessage)
	// OnRefused is told of each message that Perdure has refused for good and
	// that no EmitAcked waits for. As OnMessage.
	OnRefused func(*RefusedError)

	// CloseTimeout bounds Close when its context has no deadline. Default: 5 s,
	// or three quarters of the time that Perdure gives the program to stop, if
	// that is less.
	CloseTimeout time.Duration
	// Logger is told of lost connections and of what is refused. Default: nobody.
	Logger *slog.Logger
}

// CommandFunc does what a command asks and returns the data of its reply. The
// error's text goes to whoever has sent the command. ctx ends when nobody waits
// for the reply any more, and when the worker is closed. Commands run at the
// same time, at most 64 of them.
type CommandFunc func(ctx context.Context, data json.RawMessage) (any, error)

// Identity is who the program is to Perdure.
type Identity struct {
	// ID is stable over restarts of the program, Name is the process's name.
	ID, Name string
	// Generation is which incarnation this is, from 1; 0 without supervision.
	Generation uint64
}

// Counters tell what became of the messages of a worker.
type Counters struct {
	// Waiting is how many messages are in the outbox, WaitingBytes how long they are.
	Waiting, WaitingBytes int
	// Settled is how many are durable or were refused, of which Refused were refused.
	Settled, Refused uint64
	// Full is how often the outbox had no room for a message.
	Full uint64
	// Dropped is how many messages were given up: statuses, progresses, stats and
	// heartbeats that a later one replaced before they could be sent, and calls
	// of OnMessage and OnRefused that were too many.
	Dropped uint64
	// Connections is how often Perdure has welcomed the worker.
	Connections uint64
}

// Errors that callers compare with.
var (
	// ErrFull means that the outbox has no room; the refusal is counted.
	ErrFull = errors.New("the outbox is full")
	// ErrClosed means that the worker was closed before.
	ErrClosed = errors.New("the worker is closed")
)

// RefusedError says that Perdure refused a message for good, durably. It is not
// sent again.
type RefusedError struct {
	// Code is that of docs/reference/wire.md, such as "invalid".
	Code string
	// Reason is for people.
	Reason string
	// Sent is the message.
	Sent json.RawMessage
}

// Error returns the reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused by Perdure: %s (%s)", e.Reason, e.Code)
}

// complete fills in the defaults.
func (o Options) complete(getenv func(string) string) (Options, error) {
	if o.Socket == "" && o.Address == "" {
		if o.Socket = getenv("PERDURE_WORKER_SOCKET"); o.Socket == "" {
			o.Address = getenv("PERDURE_WORKER_ADDRESS")
		}
		if o.Token == "" {
			o.Token = getenv("PERDURE_WORKER_TOKEN")
		}
	}
	if o.MaxMessages < 0 || o.MaxBytes < 0 || o.StatsEvery < 0 || o.CloseTimeout < 0 {
		return o, errors.New("cannot start a worker: MaxMessages, MaxBytes, StatsEvery and CloseTimeout cannot be negative")
	}
	if o.MaxMessages == 0 {
		o.MaxMessages = 10_000
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 8 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// identity is who the environment says that the program is.
func identity(getenv func(string) string) Identity {
	n, _ := strconv.ParseUint(getenv("PERDURE_GENERATION"), 10, 64)
	return Identity{ID: getenv("PERDURE_ID"), Name: getenv("PERDURE_NAME"), Generation: n}
}

// sdk is what hello says of this package: "go/" and the version of the module.
func sdk() string {
	const module = "github.com/perdure/perdure"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "go"
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return "go/" + m.Version
		}
	}
	return "go/" + info.Main.Version
}
