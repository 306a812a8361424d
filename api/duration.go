package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as text ("1m30s") in JSON and
// YAML. A plain number is refused, because its unit could only be guessed.
type Duration time.Duration

// D returns d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns the Go form of the duration, such as "1m30s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration as time.Duration.String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("cannot read %q as a duration (write it like 500ms, 30s or 1h30m)", text)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalJSON reads a JSON string in the form of UnmarshalText.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("cannot read %s as a duration (write it as text, like \"30s\")", data)
	}
	return d.UnmarshalText([]byte(s))
}

// Size is a number of bytes, written as text with a unit ("10MiB") or as a
// plain number of bytes.
type Size int64
