// Package pipeline turns the readings of one poll or push into one record, or several where some are events or long texts: it scales, shows the values, reports by
// exception, encodes, and keeps the first half of the ledger (polled = suppressed + accepted).
//
// The poller calls Take in its own goroutine; a record is in the buffer when Take returns.
package pipeline

import (
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// Sink is where records go: one stream of the buffer.
type Sink interface {
	// Count adds to the ledger's first half.
	Count(polled, suppressed int)
	// Append accepts one encoded record of the schema that holds so many readings; at is the time of its poll in µs
	// since 1970. The payload is valid only during the call. A schema is never changed: when data types have been
	// learnt, another one comes with the next record.
	Append(s *record.Schema, payload []byte, readings int, at int64) error
}

// Values is told the readings of each poll, after scaling and before report by exception; at is the time of the poll in
// µs since 1970. The slice is valid only during the call and must not be changed.
type Values interface {
	Put(at int64, readings []telemetry.Reading)
}

// Options say what a Group works on.
type Options struct {
	Schema     *record.Schema    // of the group's records; data types that it does not have are filled in in a copy
	Tags       []telemetry.Tag   // one for each of Schema.Tags but for the derived ones, which come last
	Reports    []Report          // one for each of Tags; nil = always
	Clamps     map[int]Range     // by tag, of numbers after scaling; nil = none
	Aggregates map[int]Aggregate // by tag, derived ones included; nil = none
	Derived    []Derived
	Device     *Device // of the group; nil = it has no derived tags
	Sink       Sink
	Values     Values // nil = none

	ClockUnset func() bool // whether the gateway's clock is known not to be set; nil = never
}

// Group is the pipeline of one poll group. It is not safe for concurrent use.
type Group struct {
	sink       Sink
	values     Values
	scales     []scale // nil = no tag is scaled
	clamps     map[int]Range
	derived    *derived    // nil = none here, and none that needs a tag of this group
	aggregates *aggregates // nil = no tag has one
	types      *types
	events     *events  // nil = no tag is of events
	changes    *changes // nil = everything is reported
	record     record.Record
	unset      func() bool
	beats      []telemetry.Reading
	buf        []byte
}

// New returns the pipeline of a group. It starts nothing.
func New(o Options) *Group {
	events := newEvents(o.Schema)
	return &Group{
		sink:       o.Sink,
		values:     o.Values,
		scales:     newScales(o.Tags),
		clamps:     o.Clamps,
		derived:    newDerived(&o),
		aggregates: newAggregates(o.Aggregates),
		types:      newTypes(o.Schema),
		events:     events,
		changes:    newChanges(events.reports(allReports(&o))),
		unset:      o.ClockUnset,
	}
}

// Take counts, scales and filters the readings of one poll in place, works out the derived ones, and appends those worth reporting to the sink as one
// record, and events among them and long texts as others (see append). at is the time of the poll, with its monotonic part; it is the time of the record, and of readings without one.
// No readings say that all is as it was, of a device that pushes what changes: then heartbeats may be due.
func (g *Group) Take(at time.Time, readings []telemetry.Reading) error {
	if len(readings) == 0 {
		return g.beat(at)
	}
	g.record.Time, g.record.ClockUnset = at.UnixMicro(), g.unset != nil && g.unset()
	stamp(readings, g.record.Time)
	if g.scales != nil {
		applyScales(g.scales, readings)
	}
	if len(g.clamps) > 0 {
		applyClamps(g.clamps, readings)
	}
	applyFinite(readings)
	if g.derived != nil {
		readings = g.derived.add(g.record.Time, readings)
	}
	polled := len(readings)
	if g.values != nil {
		g.values.Put(g.record.Time, readings)
	}
	if g.aggregates != nil {
		readings = g.aggregates.filter(at, readings)
		polled += len(g.aggregates.over) // a window's value is a reading beside those that it stands for
	}
	g.types.see(readings)
	if g.changes != nil {
		readings = g.changes.filter(at, readings)
	}
	g.sink.Count(polled, polled-len(readings))
	return g.append(readings)
}

// Describe fills in what the device says of the tags where the schema says nothing, and returns the schema that records have from now on.
func (g *Group) Describe(details []telemetry.Details) *record.Schema {
	g.types.describe(details, g.rangeOf)
	return g.types.schema
}

// rangeOf returns what the reported values of a tag are within when those of the device are within r: none of a rate, which is of another unit.
func (g *Group) rangeOf(tag int, r telemetry.Range) telemetry.Range {
	if g.aggregates != nil && g.aggregates.of[tag] != nil && g.aggregates.of[tag].Kind == Rate {
		return telemetry.Range{}
	}
	if g.scales != nil && g.scales[tag].mul != 0 {
		r = g.scales[tag].applyRange(r)
	}
	if !r.Known() {
		return telemetry.Range{}
	}
	return r
}

// Past appends what the device has kept of a time when nobody heard it, scaled, as a record with that mark. at is the time of asking. It is
// not shown, not aggregated and not compared with what was reported: all that is about now.
func (g *Group) Past(at time.Time, readings []telemetry.Reading) error {
	if g.scales != nil {
		applyScales(g.scales, readings)
	}
	if len(g.clamps) > 0 {
		applyClamps(g.clamps, readings)
	}
	applyFinite(readings)
	g.types.see(readings)
	g.sink.Count(len(readings), 0)
	g.record.Time, g.record.ClockUnset, g.record.Backfill = at.UnixMicro(), g.unset != nil && g.unset(), true
	defer func() { g.record.Backfill = false }()
	return g.append(readings)
}

// beat reports anew what has not been reported for a heartbeat's time, with the time that it had.
func (g *Group) beat(at time.Time) error {
	if g.values != nil {
		g.values.Put(at.UnixMicro(), nil)
	}
	if g.aggregates != nil {
		if err := g.windows(at); err != nil {
			return err
		}
	}
	if g.changes == nil {
		return nil
	}
	g.beats = g.changes.beats(at, g.beats[:0])
	if len(g.beats) == 0 {
		return nil
	}
	g.record.Time, g.record.ClockUnset = at.UnixMicro(), g.unset != nil && g.unset()
	g.sink.Count(len(g.beats), 0)
	return g.append(g.beats)
}

// Close records the windows that are not over, as uncertain: what a stop would otherwise take with it. at is the time of the stop.
func (g *Group) Close(at time.Time) error {
	if g.aggregates == nil {
		return nil
	}
	return g.ended(at, g.aggregates.cut())
}

// windows records those aggregates whose window is over though nothing was pushed.
func (g *Group) windows(at time.Time) error {
	return g.ended(at, g.aggregates.filter(at, nil))
}

// ended records the values of windows.
func (g *Group) ended(at time.Time, over []telemetry.Reading) error {
	if len(over) == 0 {
		return nil
	}
	g.record.Time, g.record.ClockUnset = at.UnixMicro(), g.unset != nil && g.unset()
	g.types.see(over)
	n := len(over)
	if g.changes != nil {
		over = g.changes.filter(at, over)
	}
	g.sink.Count(n, n-len(over))
	return g.append(over)
}

// allReports returns the reports of all tags, nil = always.
func allReports(o *Options) []Report {
	if len(o.Derived) == 0 {
		return o.Reports
	}
	all := make([]Report, len(o.Tags), len(o.Tags)+len(o.Derived))
	copy(all, o.Reports)
	for i := range o.Derived {
		all = append(all, o.Derived[i].Report)
	}
	return all
}

// stamp gives readings whose device said no time that of the poll.
func stamp(readings []telemetry.Reading, at int64) {
	for i := range readings {
		if readings[i].Time == 0 {
			readings[i].Time = at
		}
	}
}
