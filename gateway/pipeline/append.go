package pipeline

import (
	"fmt"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// Bounds of a record, so that a burst does not become one that no broker takes, or no store (the smallest takes 32 KiB): what is more makes further records of the same
// time. They are of what makes records grow in a burst: a poll of many numbers or short texts stays one record, whatever its size.
const (
	maxEvents = 100
	maxTexts  = 24 << 10 // bytes of all events of a record, or of all its long texts and arrays. One alone may be longer
	longText  = 256      // bytes from which on a text or an array counts, among values
)

// append appends readings to the sink: a record has either values or events.
func (g *Group) append(readings []telemetry.Reading) error {
	if g.events == nil {
		return g.appendValues(readings)
	}
	values, events := g.events.split(readings)
	if err := g.appendValues(values); err != nil {
		return err
	}
	for n := 0; len(events) > 0; events = events[n:] {
		n = portion(events[:min(len(events), maxEvents)], 0)
		if err := g.appendRecord(events[:n]); err != nil {
			return err
		}
	}
	return nil
}

// appendValues appends one record, or several where long texts make it large. What is not large in the store has no such texts.
func (g *Group) appendValues(readings []telemetry.Reading) error {
	if len(readings) == 0 {
		return nil
	}
	g.encode(readings)
	if len(g.buf) <= maxTexts {
		return g.store()
	}
	n := portion(readings, longText)
	if n == len(readings) {
		return g.store()
	}
	for ; len(readings) > 0; readings = readings[n:] {
		n = portion(readings, longText)
		if err := g.appendRecord(readings[:n]); err != nil {
			return err
		}
	}
	return nil
}

// portion returns how many of the readings, from the first on, one record takes by their texts of at least so many bytes.
func portion(readings []telemetry.Reading, long int) int {
	for i, size := 0, 0; i < len(readings); i++ {
		if n := len(readings[i].Value.Text); n >= long {
			size += n
		}
		if size > maxTexts && i > 0 {
			return i
		}
	}
	return len(readings)
}

func (g *Group) appendRecord(readings []telemetry.Reading) error {
	g.encode(readings)
	return g.store()
}

// encode puts the record of readings into g.buf.
func (g *Group) encode(readings []telemetry.Reading) {
	g.record.Readings = readings
	g.buf = record.Append(g.buf[:0], &g.record)
}

// store hands the record that was encoded to the sink.
func (g *Group) store() error {
	if err := g.sink.Append(g.types.schema, g.buf, len(g.record.Readings), g.record.Time); err != nil {
		return fmt.Errorf("append record: %w", err)
	}
	return nil
}
