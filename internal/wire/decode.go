package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Reason says why a line is not taken; it is the field "reason" of
// process.event_invalid.
type Reason string

// The reasons.
const (
	// ReasonJSON means: no JSON, or no object, or nested too deep.
	ReasonJSON Reason = "json"
	// ReasonType means: "type" is missing or no text.
	ReasonType Reason = "type"
	// ReasonField means: a field is missing or of the wrong kind.
	ReasonField Reason = "field"
	// ReasonName means: the event has a name that none can have.
	ReasonName Reason = "name"
	// ReasonTooLong means: the line is longer than allowed.
	ReasonTooLong Reason = "too_long"
	// ReasonCutOff means: the stream ended within the line.
	ReasonCutOff Reason = "cut_off"
	// ReasonSchema means: the data does not fit the declared schema.
	ReasonSchema Reason = "schema"
)

// InvalidError says why a line is not taken.
type InvalidError struct {
	Reason Reason
	Detail string
}

// Error returns the sentence for people.
func (e *InvalidError) Error() string { return e.Detail }

func invalid(r Reason, format string, args ...any) error {
	return &InvalidError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// Decode reads a line of a worker into m. On a plain connection a message of one
// of our types whose fields do not fit is Other; on an extended one it is an
// *InvalidError. After such an error m has Raw and, where they could be read, ID
// and Type.
func Decode(line []byte, plain bool, m *Message) error {
	*m = Message{}
	if !utf8.Valid(line) {
		line = bytes.ToValidUTF8(line, []byte("\uFFFD"))
		m.Repaired = true
	}
	m.Raw = line
	if err := m.object(line); err != nil {
		return err
	}
	v := m.fields[fieldType]
	if v == nil || v[0] != '"' || len(v) == 2 {
		m.fields[fieldType] = nil
		return invalid(ReasonType, "type: must be a text that is not empty")
	}
	m.Kind = kindOf(text(v))
	if err := m.check(plain); err != nil {
		return m.misfit(err, plain)
	}
	return nil
}

// misfit is for a message of one of our types whose fields do not fit.
func (m *Message) misfit(err error, plain bool) error {
	var ie *InvalidError
	if !plain || errors.As(err, &ie) && ie.Reason == ReasonName {
		return err
	}
	m.Kind = Other
	return nil
}

// object reads the members of the line's object.
func (m *Message) object(b []byte) error {
	i := skipBlank(b, 0)
	if i >= len(b) || b[i] != '{' {
		return invalid(ReasonJSON, "the line is no JSON object")
	}
	i = skipBlank(b, i+1)
	for first := true; ; first = false {
		if first && i < len(b) && b[i] == '}' {
			break
		}
		key, value, next := member(b, i, 1)
		if next == bad {
			return invalid(ReasonJSON, "the line is no JSON, or is nested deeper than %d", MaxDepth)
		}
		if f := fieldOf(text(key)); f >= 0 {
			m.fields[f] = value
		}
		if i = next; i < len(b) && b[i] == ',' {
			i = skipBlank(b, i+1)
			continue
		}
		break
	}
	if i >= len(b) || b[i] != '}' || skipBlank(b, i+1) != len(b) {
		return invalid(ReasonJSON, "the line is no JSON, or has something behind its object")
	}
	return nil
}

func fieldOf(key []byte) int {
	switch string(key) {
	case "type":
		return fieldType
	case "id":
		return fieldID
	case "timestamp":
		return fieldTimestamp
	case "processId":
		return fieldProcessID
	case "event":
		return fieldEvent
	case "data":
		return fieldData
	case "stats":
		return fieldStats
	case "status":
		return fieldStatus
	case "percent":
		return fieldPercent
	case "message":
		return fieldMessage
	case "level":
		return fieldLevel
	case "timeoutMs":
		return fieldTimeout
	case "to":
		return fieldTo
	case "error":
		return fieldError
	case "version":
		return fieldVersion
	case "instance":
		return fieldInstance
	case "sdk":
		return fieldSDK
	case "capabilities":
		return fieldCapabilities
	case "token":
		return fieldToken
	}
	return -1
}

func kindOf(typ []byte) Kind {
	switch string(typ) {
	case "hello":
		return Hello
	case "connected":
		return Connected
	case "heartbeat":
		return Heartbeat
	case "stats":
		return Stats
	case "event":
		return Event
	case "ready":
		return Ready
	case "status":
		return Status
	case "progress":
		return Progress
	case "log":
		return Log
	case "reloading":
		return Reloading
	case "stopping":
		return Stopping
	case "extend":
		return Extend
	case "unhealthy":
		return Unhealthy
	case "reply":
		return Reply
	case "disconnecting":
		return Disconnecting
	}
	return Other
}

// check holds the message to what its kind requires.
func (m *Message) check(plain bool) error {
	if v := m.fields[fieldTimestamp]; v != nil && !isNumber(v) {
		m.fields[fieldTimestamp] = nil
	}
	if !plain && m.Kind.Durable() {
		if err := m.readID(); err != nil {
			return err
		}
	}
	switch m.Kind {
	case Hello:
		return m.checkHello()
	case Event:
		return m.checkEvent()
	case Stats:
		return m.need(fieldStats, "stats", '{')
	case Status:
		return m.need(fieldStatus, "status", '"')
	case Progress:
		return first(m.needNumber(fieldPercent, "percent"), m.may(fieldMessage, "message", '"'), m.may(fieldData, "data", '{'))
	case Log:
		return first(m.checkLevel(), m.need(fieldMessage, "message", '"'), m.may(fieldData, "data", '{'))
	case Extend:
		if n, err := strconv.ParseInt(string(m.fields[fieldTimeout]), 10, 64); err != nil || n <= 0 {
			return invalid(ReasonField, "timeoutMs: must be an integer above 0")
		}
	case Unhealthy:
		return m.may(fieldMessage, "message", '"')
	case Reply:
		return first(m.need(fieldTo, "to", '"'), m.may(fieldError, "error", '"'))
	}
	return nil
}

func (m *Message) readID() error {
	v := m.fields[fieldID]
	if v == nil {
		return nil
	}
	id, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil || id == 0 || id > MaxID {
		return invalid(ReasonField, "id: must be an integer from 1 to %d", uint64(MaxID))
	}
	m.ID = id
	return nil
}

func (m *Message) checkHello() error {
	n, err := strconv.Atoi(string(m.fields[fieldVersion]))
	if err != nil || n < 1 {
		return invalid(ReasonField, "version: must be an integer of at least 1")
	}
	if err := m.need(fieldInstance, "instance", '"'); err != nil {
		return err
	}
	if !instanceOK(text(m.fields[fieldInstance])) {
		return invalid(ReasonField, "instance: must be 8 to 64 letters, digits, \"-\" or \"_\"")
	}
	if v := m.fields[fieldCapabilities]; v != nil {
		var list []string
		if json.Unmarshal(v, &list) != nil {
			return invalid(ReasonField, "capabilities: must be a list of texts")
		}
	}
	return first(m.may(fieldSDK, "sdk", '"'), m.may(fieldToken, "token", '"'))
}

func instanceOK(b []byte) bool {
	if len(b) < 8 || len(b) > 64 {
		return false
	}
	for _, c := range b {
		if !letterOrDigit(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func (m *Message) checkEvent() error {
	v := m.fields[fieldEvent]
	if v == nil || v[0] != '"' || len(v) == 2 {
		return invalid(ReasonField, "event: must be a text that is not empty")
	}
	if !ValidName(text(v)) {
		return invalid(ReasonName, "event: must have letters, digits, \"_\", \"-\", \".\" and \":\" only, begin with a letter or digit and be at most %d bytes long", MaxName)
	}
	return nil
}

// ValidName says whether an event or a command may have this name.
func ValidName(name []byte) bool {
	if len(name) == 0 || len(name) > MaxName || !letterOrDigit(name[0]) {
		return false
	}
	for _, c := range name {
		if !letterOrDigit(c) && c != '_' && c != '-' && c != '.' && c != ':' {
			return false
		}
	}
	return true
}

func letterOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func (m *Message) checkLevel() error {
	if v := m.fields[fieldLevel]; v != nil && v[0] == '"' {
		switch string(text(v)) {
		case "debug", "info", "warn", "error":
			return nil
		}
	}
	return invalid(ReasonField, `level: must be "debug", "info", "warn" or "error"`)
}

// need holds a field to be there and to begin as its kind of value does.
func (m *Message) need(field int, name string, begin byte) error {
	if m.fields[field] == nil {
		return invalid(ReasonField, "%s: is missing", name)
	}
	return m.may(field, name, begin)
}

// may is need for a field that need not be there.
func (m *Message) may(field int, name string, begin byte) error {
	v := m.fields[field]
	switch {
	case v == nil || v[0] == begin:
		return nil
	case begin == '"':
		return invalid(ReasonField, "%s: must be a text", name)
	}
	return invalid(ReasonField, "%s: must be an object", name)
}

func (m *Message) needNumber(field int, name string) error {
	if v := m.fields[field]; v == nil || !isNumber(v) {
		return invalid(ReasonField, "%s: must be a number", name)
	}
	return nil
}

func isNumber(v []byte) bool { return v[0] == '-' || v[0] >= '0' && v[0] <= '9' }

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
