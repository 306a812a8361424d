// Package session is Perdure's end of the worker protocol
// (docs/reference/wire.md): it listens for the workers of each process, says who
// they are, reads what they say and sends what they are sent. It decides nothing
// about processes: what it hears goes to a Handler.
//
// Who a worker is follows from the socket that it connects to and from what the
// kernel says of the other end, never from a message.
//
// Nothing is buffered without bound, and nothing that was read is dropped:
// a connection whose messages wait to be made durable is not read. The bounds
// are the constants of this package; docs/reference/wire.md states them.
package session

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// The bounds.
const (
	// MaxConns is how many connections of one process are open at once; more
	// wait in the socket's queue.
	MaxConns = 64
	// MaxWaiting is how many bytes of one connection's messages wait to be made
	// durable, or one message; then it is not read.
	MaxWaiting = 64 << 10
	// MaxHeld is how many bytes of unfinished lines are held for one process. A
	// connection that needs more is hung up on.
	MaxHeld = 4 << 20
	// MaxUnsent is how many bytes wait to be sent to one connection; one that
	// does not read is hung up on.
	MaxUnsent = 256 << 10
	// MaxMarks is how many instances of a process are remembered, the ones heard
	// last.
	MaxMarks = 64
	// readSize is how much is read from one connection in one round.
	readSize = 64 << 10
	// maxBatch is the size at which a batch for Handler.Take is closed.
	maxBatch = 256 << 10
	// maxStats is the longest stats object that is kept.
	maxStats = 16 << 10
)

// Options says how a Hub works.
type Options struct {
	// Clock is nanoseconds of a clock that never jumps. It is the time of
	// heartbeats.
	Clock func() int64
	// Logger takes what concerns the sockets themselves. Default: none.
	Logger *slog.Logger
	// Coalesce is the least time between two reports of a status, of a progress
	// that asks for no ack, and of peers that are turned away. Default: 1s.
	Coalesce time.Duration
	// Retry is the wait before a batch that could not be made durable is tried
	// again. Default: 1s.
	Retry time.Duration
	// Portable serves connections in the way that works on every system, where
	// a better one is there. For tests.
	Portable bool
}

// Spec is what one process's workers need. The fields do not change.
type Spec struct {
	// ProcessID is the id of the process: a message that names another one is told.
	ProcessID string
	// Path is the Unix socket; empty for TCP on loopback.
	Path string
	// NoWorkers opens neither: only Notify and Newline.
	NoWorkers bool
	// Port is for TCP; 0 takes any.
	Port int
	// Token is for TCP: what a hello must bring unless the system tells whose
	// the connection is.
	Token string
	// Marks are those of the last batch that had any.
	Marks []Mark
	// AnyMessage lets every message count as a heartbeat.
	AnyMessage bool
	// Notify is the path of the socket for sd_notify messages; empty for none.
	// Linux only.
	Notify string
	// Newline is the path of a FIFO on which a line says ready; empty for none.
	Newline string
}

// Mark says up to which id the messages of an instance are settled.
type Mark struct {
	Instance string `json:"instance"`
	ID       uint64 `json:"id"`
}

// Handler is who a process's workers speak to. Its methods are called from
// several goroutines, must not block, and must not call the Hub or the Endpoint.
type Handler interface {
	// Owns says whether an operating system process belongs to the tree of the
	// process that the endpoint is for. It may read files of the system.
	Owns(pid int) bool
	// Tree lists the operating system processes of the tree. It is asked on TCP alone.
	Tree() []int
	// Welcome returns what the worker is to be told of the process; the caller
	// fills in the version, Last, MaxLine and the capabilities.
	Welcome() wire.Welcome
	// Take makes a batch durable, whole or not at all, and then calls done, from
	// any goroutine but this. After an error the same batch comes once more. No
	// other batch of the endpoint comes before done.
	Take(b Batch, done func(error))
	// Beat says that there is a heartbeat for the first time since AwaitBeat.
	Beat()
}

// Batch is what is made durable together.
type Batch struct {
	Reports []Report
	// Marks are those that hold once the batch is durable, the one heard last at
	// the end; nil when the batch changes none.
	Marks []Mark
}

// Report is one thing that a worker has said and that is made durable.
type Report struct {
	// Type is the type of the event, such as "process.event".
	Type string
	// Data is the event's data, an object.
	Data json.RawMessage
	// Kind is what the worker said; 0 for what the session itself tells.
	Kind wire.Kind
	// Generation is the one that the connection was opened in.
	Generation uint64
	// By says how it was said where that was no message of a worker: "sd_notify"
	// or "newline".
	By string
	// Text is the text of a Status or an Unhealthy, or the name of an Event,
	// Percent and Message those of a Progress, and Timeout the time of an Extend.
	Text    string
	Message string
	Percent float64
	Timeout time.Duration
	// PID is the main process that an sd_notify message names.
	PID int
	// Plain is the whole message, for one on a plain connection.
	Plain json.RawMessage
	// Mark is the mark that is reached once the report is durable; its Instance
	// is empty for a report of a message without an id.
	Mark Mark

	from   *conn
	answer []byte // is sent once it is durable
	size   int
}

// Peer is who is at the other end, as far as the system tells.
type Peer struct {
	PID int // 0: unknown
	UID int // -1: unknown
	// Vouched says that the system itself makes sure that the peer is of the
	// process; on TCP without it a token is needed.
	Vouched bool
	// Foreign says why the peer is refused; empty when it is not.
	Foreign string
}
