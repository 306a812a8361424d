package wire

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// Kind is what a message of a worker is.
type Kind uint8

// The kinds of messages. The zero value is none.
const (
	// Other is a message of a type that is not Perdure's.
	Other Kind = iota + 1
	Hello
	Connected
	Heartbeat
	Stats
	Event
	Ready
	Status
	Progress
	Log
	Reloading
	Stopping
	Extend
	Unhealthy
	Reply
	Disconnecting
	// NumKinds is one more than the highest kind.
	NumKinds
)

// String returns the type as it stands in a message; for Other "other".
func (k Kind) String() string {
	switch k {
	case Other:
		return "other"
	case Hello:
		return "hello"
	case Connected:
		return "connected"
	case Heartbeat:
		return "heartbeat"
	case Stats:
		return "stats"
	case Event:
		return "event"
	case Ready:
		return "ready"
	case Status:
		return "status"
	case Progress:
		return "progress"
	case Log:
		return "log"
	case Reloading:
		return "reloading"
	case Stopping:
		return "stopping"
	case Extend:
		return "extend"
	case Unhealthy:
		return "unhealthy"
	case Reply:
		return "reply"
	case Disconnecting:
		return "disconnecting"
	}
	return ""
}

// Durable says whether messages of the kind are made durable, and so whether
// their ids mean something.
func (k Kind) Durable() bool {
	switch k {
	case Hello, Connected, Disconnecting, Heartbeat, Stats:
		return false
	}
	return true
}

// Latest says whether only the latest message of the kind counts, unless it has
// an id.
func (k Kind) Latest() bool { return k == Status || k == Progress }

// The fields of messages from workers.
const (
	fieldType = iota
	fieldID
	fieldTimestamp
	fieldProcessID
	fieldEvent
	fieldData
	fieldStats
	fieldStatus
	fieldPercent
	fieldMessage
	fieldLevel
	fieldTimeout
	fieldTo
	fieldError
	fieldVersion
	fieldInstance
	fieldSDK
	fieldCapabilities
	fieldToken
	numFields
)

// Message is one message of a worker. Everything in it is a part of the line
// that it was decoded from and valid as long as that is. A message of a kind
// has the fields that the kind requires, of the kinds that they must have.
type Message struct {
	Kind Kind
	// ID is 0 when there is none.
	ID uint64
	// Raw is the whole line, as it was taken: repaired where it was no UTF-8.
	Raw []byte
	// Repaired says that bytes that were no UTF-8 have been replaced.
	Repaired bool

	fields [numFields][]byte
}

// Type is the text of the field "type".
func (m *Message) Type() string { return m.str(fieldType) }

// Timestamp is milliseconds since 1970 by the worker's clock, 0 when there is none.
func (m *Message) Timestamp() float64 { return m.num(fieldTimestamp) }

// ProcessID is what the message claims; empty when it claims nothing.
func (m *Message) ProcessID() []byte {
	if v := m.fields[fieldProcessID]; v != nil && v[0] == '"' {
		return text(v)
	}
	return nil
}

// Name is the name of an Event.
func (m *Message) Name() string { return m.str(fieldEvent) }

// Data is the data of an Event, a Progress, a Log or a Reply as JSON; nil when
// there is none. It may hold line breaks only where the line could: none.
func (m *Message) Data() json.RawMessage { return m.fields[fieldData] }

// Stats is the object of a Stats message.
func (m *Message) Stats() json.RawMessage { return m.fields[fieldStats] }

// Status is the text of a Status, at most MaxStatus bytes.
func (m *Message) Status() string { return Clip(m.str(fieldStatus), MaxStatus) }

// Percent is for Progress, held to 0 to 100.
func (m *Message) Percent() float64 { return max(0, min(100, m.num(fieldPercent))) }

// Text is the message of a Progress, a Log or an Unhealthy.
func (m *Message) Text() string { return m.str(fieldMessage) }

// Level is for Log.
func (m *Message) Level() string { return m.str(fieldLevel) }

// TimeoutMs is for Extend.
func (m *Message) TimeoutMs() int64 {
	n, _ := strconv.ParseInt(string(m.fields[fieldTimeout]), 10, 64)
	return n
}

// To is the id of the command that a Reply answers, Error its error.
func (m *Message) To() string { return m.str(fieldTo) }

// Error is the error of a Reply; ok says whether it has one.
func (m *Message) Error() (reason string, ok bool) {
	return m.str(fieldError), m.fields[fieldError] != nil
}

// Greeting is what a Hello says.
type Greeting struct {
	Version      int      `json:"version"`
	Instance     string   `json:"instance"`
	SDK          string   `json:"sdk,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"`
	Token        string   `json:"token,omitempty"`
}

// Greeting returns what a Hello says.
func (m *Message) Greeting() Greeting {
	g := Greeting{Instance: m.str(fieldInstance), SDK: Clip(m.str(fieldSDK), MaxName), Token: m.str(fieldToken)}
	g.Version, _ = strconv.Atoi(string(m.fields[fieldVersion]))
	if v := m.fields[fieldCapabilities]; v != nil {
		_ = json.Unmarshal(v, &g.Capabilities) // it was checked
	}
	return g
}

func (m *Message) str(field int) string {
	if v := m.fields[field]; v != nil {
		return string(text(v))
	}
	return ""
}

func (m *Message) num(field int) float64 {
	f, err := strconv.ParseFloat(string(m.fields[field]), 64)
	if err != nil {
		return 0 // absent, or beyond what a float can hold
	}
	return f
}

// Clip cuts s to at most n bytes, between two runes.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// RawTimestamp is Timestamp as it was sent; nil when there is none.
func (m *Message) RawTimestamp() json.RawMessage { return m.fields[fieldTimestamp] }
