package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// The messages that Perdure sends, each of which is one line.

// Welcome is the answer to a hello.
type Welcome struct {
	Version      int             `json:"version"`
	Server       string          `json:"server,omitempty"`
	ProcessID    string          `json:"processId"`
	Name         string          `json:"name"`
	Generation   uint64          `json:"generation"`
	Last         uint64          `json:"last"` // the highest id that is settled
	MaxLine      int             `json:"maxLine"`
	Heartbeat    *Beat           `json:"heartbeat,omitempty"`
	Stop         *Stop           `json:"stop,omitempty"`
	Metadata     json.RawMessage `json:"metadata,omitempty"`
	Capabilities []string        `json:"capabilities"`
}

// Beat says how heartbeats are watched.
type Beat struct {
	IntervalMs int64 `json:"intervalMs"`
	TimeoutMs  int64 `json:"timeoutMs"`
}

// Stop says how the process is stopped.
type Stop struct {
	GraceMs int64 `json:"graceMs"`
}

// Code is the code of an error on the wire.
type Code string

// The codes.
const (
	CodeInvalid Code = "invalid"
	CodeTooLong Code = "too_long"
	CodeVersion Code = "version"
	CodeDenied  Code = "denied"
)

// Refusal says that something that the worker sent is not taken; ID is 0 for a
// message without one.
type Refusal struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	ID      uint64 `json:"id,omitempty"`
}

// Command asks the worker to do something.
type Command struct {
	ID        string          `json:"id"`
	Command   string          `json:"command"`
	Data      json.RawMessage `json:"data"`
	TimeoutMs int64           `json:"timeoutMs"`
}

// AppendWelcome appends the line of a welcome.
func AppendWelcome(b []byte, w Welcome) ([]byte, error) {
	if w.Capabilities == nil {
		w.Capabilities = []string{}
	}
	return appendTyped(b, "welcome", w)
}

// AppendAck appends the line that settles all ids up to id.
func AppendAck(b []byte, id uint64) []byte {
	b = append(b, `{"type":"ack","id":`...)
	b = strconv.AppendUint(b, id, 10)
	return append(b, "}\n"...)
}

// AppendRefusal appends the line of an error.
func AppendRefusal(b []byte, r Refusal) ([]byte, error) { return appendTyped(b, "error", r) }

// AppendCommand appends the line of a command on an extended connection.
func AppendCommand(b []byte, c Command) ([]byte, error) { return appendTyped(b, "command", c) }

// AppendPlainCommand appends the line of a command on a plain connection: data,
// which must be an object, with the name as its type.
func AppendPlainCommand(b []byte, name string, data json.RawMessage) ([]byte, error) {
	inner := bytes.TrimSpace(data)
	if len(inner) < 2 || inner[0] != '{' || !json.Valid(inner) {
		return b, fmt.Errorf("cannot send the command %q to a worker without hello: its data must be an object", name)
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return b, err
	}
	var line bytes.Buffer
	line.WriteString(`{"type":`)
	line.Write(quoted)
	if rest := bytes.TrimSpace(inner[1:]); rest[0] != '}' {
		line.WriteByte(',')
	}
	line.Write(inner[1:])
	return appendCompact(b, line.Bytes())
}

// AppendSent appends the line of something that is sent to the worker and is no
// command: the value itself on a plain connection.
func AppendSent(b []byte, plain bool, value json.RawMessage) ([]byte, error) {
	if plain {
		return appendCompact(b, value)
	}
	return appendTyped(b, "message", struct {
		Data json.RawMessage `json:"data"`
	}{value})
}

// The messages that workers send. Those that programs write themselves need
// nothing of this: they are here for the Go client and for tests.

// Sent is any message of a worker. Of the fields those that the kind has are
// set; a zero ID and Timestamp are left out.
type Sent struct {
	Event   string          `json:"event,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	Stats   json.RawMessage `json:"stats,omitempty"`
	Status  *string         `json:"status,omitempty"`
	Percent *float64        `json:"percent,omitempty"`
	Level   string          `json:"level,omitempty"`
	Message *string         `json:"message,omitempty"`
	To      string          `json:"to,omitempty"`
	Error   *string         `json:"error,omitempty"`
	Timeout int64           `json:"timeoutMs,omitempty"`
	ID      uint64          `json:"id,omitempty"`
	// Timestamp is milliseconds since 1970.
	Timestamp int64 `json:"timestamp,omitempty"`
}

// AppendSentBy appends the line of a worker's message.
func AppendSentBy(b []byte, k Kind, s Sent) ([]byte, error) {
	if k == Heartbeat {
		return AppendHeartbeat(b, s.Timestamp), nil
	}
	return appendTyped(b, k.String(), s)
}

// AppendHeartbeat appends the line of a heartbeat; a zero timestamp is left out.
func AppendHeartbeat(b []byte, timestamp int64) []byte {
	b = append(b, `{"type":"heartbeat"`...)
	if timestamp != 0 {
		b = append(b, `,"timestamp":`...)
		b = strconv.AppendInt(b, timestamp, 10)
	}
	return append(b, "}\n"...)
}

// AppendHello appends the line of a hello.
func AppendHello(b []byte, g Greeting) ([]byte, error) { return appendTyped(b, "hello", g) }

// appendTyped appends v, a struct, as one line with the type before its fields.
func appendTyped(b []byte, typ string, v any) ([]byte, error) {
	var w bytes.Buffer
	enc := json.NewEncoder(&w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return b, err
	}
	fields := w.Bytes() // "{…}\n"
	b = append(b, `{"type":"`...)
	b = append(b, typ...)
	b = append(b, '"')
	if fields[1] != '}' {
		b = append(b, ',')
	}
	return append(b, fields[1:]...), nil
}

// appendCompact appends a JSON value as one line.
func appendCompact(b []byte, value json.RawMessage) ([]byte, error) {
	var w bytes.Buffer
	if err := json.Compact(&w, value); err != nil {
		return b, fmt.Errorf("cannot send what is no JSON: %w", err)
	}
	b = append(b, w.Bytes()...)
	return append(b, '\n'), nil
}
