package wire

import "encoding/json"

// Received is a message of Perdure as a client reads it. Type says which of the
// fields mean something; a client ignores types that it does not know.
type Received struct {
	Type string
	// ID is for ack and error.
	ID uint64
	// Refusal is for error; its ID is the same.
	Refusal Refusal
	Welcome Welcome
	Command Command
	// Data is for message.
	Data json.RawMessage
}

// DecodeReceived reads a line of Perdure. On a line that is no message it
// returns an error, and the client goes on with the next one.
func DecodeReceived(line []byte) (Received, error) {
	var r Received
	var head struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return r, invalid(ReasonJSON, "cannot read a line of Perdure: %v", err)
	}
	var err error
	switch r.Type = head.Type; r.Type {
	case "welcome":
		err = json.Unmarshal(line, &r.Welcome)
	case "ack":
		var ack struct {
			ID uint64 `json:"id"`
		}
		err = json.Unmarshal(line, &ack)
		r.ID = ack.ID
	case "error":
		err = json.Unmarshal(line, &r.Refusal)
		r.ID = r.Refusal.ID
	case "command":
		err = json.Unmarshal(line, &r.Command)
	case "message":
		r.Data = head.Data
	}
	if err != nil {
		return r, invalid(ReasonField, "cannot read a line of Perdure: %v", err)
	}
	return r, nil
}
