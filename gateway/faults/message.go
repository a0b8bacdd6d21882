package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Message is what the checker reads of a message in `format: json`.
type Message struct {
	Gateway    string           `json:"gateway"`
	Device     string           `json:"device"`
	Group      string           `json:"group"`
	Epoch      string           `json:"epoch"`
	Seq        uint64           `json:"seq"`
	TS         int64            `json:"ts"`
	Historical bool             `json:"historical"`
	Backfill   bool             `json:"backfill"` // from the history of the device
	Clock      string           `json:"clock"`    // "not set", or nothing
	Values     map[string]any   `json:"values"`   // numbers are json.Number
	Bad        map[string]any   `json:"bad"`
	Times      map[string]int64 `json:"times"` // of the source, ms since 1970, where they differ from TS
	Earlier    []Earlier        `json:"earlier"`
	Gap        *Gap             `json:"gap"`
}

// Earlier is a reading before the one in Values or Bad.
type Earlier struct {
	Tag   string `json:"tag"`
	TS    int64  `json:"ts"` // of the source, ms since 1970
	Value any    `json:"value"`
	Bad   string `json:"bad"`
}

// Gap is a gap record: what was dropped, or never came, and why.
type Gap struct {
	From   int64    `json:"from"` // ms since 1970
	To     int64    `json:"to"`
	Count  uint64   `json:"count"` // readings
	Cause  string   `json:"cause"`
	Reason string   `json:"reason"`
	Tags   []string `json:"tags"`
}

// ParseMessage reads one payload; its numbers keep every digit.
func ParseMessage(payload []byte) (Message, error) {
	var m Message
	err := m.parse(payload, &m)
	return m, err
}

// parseLast is ParseMessage but for what a message holds besides the last value of each tag. That may be most of it, and long to read.
func parseLast(payload []byte) (Message, error) {
	var m struct {
		Message
		Times   json.RawMessage `json:"times"`
		Earlier json.RawMessage `json:"earlier"`
	}
	err := m.parse(payload, &m)
	return m.Message, err
}

// parse reads a payload into what holds m.
func (m *Message) parse(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read message %.80q: %w", payload, err)
	}
	if m.Epoch == "" || m.Device == "" {
		return fmt.Errorf("read message %.80q: it has no epoch or no device", payload)
	}
	return nil
}

// Scan returns the number of the device's answer that a message carries; false when it carries none.
func (m *Message) Scan() (uint32, bool) {
	n, ok := m.Values["scan"].(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return uint32(i), err == nil
}
